"""The load of a storm: clients that add, extract, change, delete, erase, search and read, and keep a ledger."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any, Final

import httpx

from tests.faults.keeping import Count, Doors
from tests.faults.ledger import Person

#: What a client does next, by weight.
_WEIGHTS: Final = {
    "add": 30,
    "extract": 12,
    "update": 14,
    "delete": 10,
    "search": 14,
    "read": 12,
    "list": 5,
    "erase": 4,
}
_WORDS: Final = ("cello", "tea", "Porto", "Oslo", "locker", "garden", "winter", "train", "bread", "chess", "river")
#: A person who has so much may be erased.
_GROWN: Final = 25
#: Seconds that a client waits that was refused for now.
_REFUSED: Final = 0.2
_SECONDS: Final = 100.0
_PAUSE: Final = 0.02


class Writer:
    """One client. It writes for one user after the other, each of whom is its own."""

    def __init__(self, number: int, seed: int, keys: list[str], doors: Doors, count: Count) -> None:
        self.persons: list[Person] = []
        self.wrong: list[str] = []
        self.acknowledged = 0
        #: Calls that may have been done or not, by what was asked and what came instead of an answer.
        self.unanswered: Counter[str] = Counter()
        self._number = number
        self._chance = random.Random(f"{seed}-{number}")
        self._keys = keys
        self._doors = doors
        self._count = count
        self._clients: dict[str, httpx.Client] = {}
        self._turn = number
        self._texts = 0
        self._person = self._next_person()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the call that is under way."""
        self._thread.join(300)
        assert not self._thread.is_alive(), "a call has had no answer for minutes"

    def close(self) -> None:
        """Close its connections."""
        for client in self._clients.values():
            client.close()

    def ask(self, person: Person, method: str, path: str, body: Any = None, **parameters: Any) -> httpx.Response | None:
        """Ask one of the living; None when there was no answer. What was not sent at all is sent again."""
        deadline = time.monotonic() + _SECONDS
        while True:
            self._turn += 1
            client = self._client(self._doors.next(self._turn))
            headers = {"Authorization": f"Token {person.key}"}
            try:
                return client.request(method, path, json=body, params=parameters, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                assert time.monotonic() < deadline, "no connection for minutes"
                time.sleep(_PAUSE)
            except httpx.TransportError:
                return None

    def _client(self, url: str) -> httpx.Client:
        if url not in self._clients:
            self._clients[url] = httpx.Client(base_url=url, timeout=_SECONDS, trust_env=False)
        return self._clients[url]

    def _next_person(self) -> Person:
        number = len(self.persons)
        person = Person(self._keys[number % len(self._keys)], f"w{self._number}-p{number}")
        self.persons.append(person)
        return person

    def _run(self) -> None:
        try:
            while not self._count.closed.is_set():
                self._count.add()
                getattr(self, f"_{self._chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]}")()
        except BaseException as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _done(self, answer: httpx.Response | None, what: str, *expected: int) -> bool:
        """Whether a call was acknowledged; note what should never be answered."""
        if answer is None or answer.status_code in (429, 503):
            self.unanswered[f"{what}: {'no answer' if answer is None else answer.json()['code']}"] += 1
            if answer is not None and int(answer.headers.get("Retry-After", 0)) < 1:
                self.wrong.append(f"{what}: {answer.status_code} without Retry-After")
            time.sleep(_REFUSED)
            return False
        if answer.status_code not in (200, *expected):
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:300]}")
            return False
        self.acknowledged += 1
        return True

    def _text(self) -> str:
        self._texts += 1
        words = " ".join(self._chance.sample(_WORDS, 3))
        return f"{self._person.name} noted entry {self._texts} about {words}"

    def _body(self, texts: list[str], *, infer: bool) -> dict[str, Any]:
        messages = [{"role": "user", "content": text} for text in texts]
        return {"messages": messages, "user_id": self._person.name, "infer": infer}

    def _some(self) -> str | None:
        """Return a memory that is there for certain."""
        sure = sorted(self._person.kept.keys() - self._person.unsure)
        return self._chance.choice(sure) if sure else None

    def _add(self) -> None:
        person, texts = self._person, [self._text() for _ in range(self._chance.choice([1, 1, 2, 3]))]
        answer = self.ask(person, "POST", "/v3/memories/add/", self._body(texts, infer=False))
        if self._done(answer, "add"):
            assert answer is not None
            results = answer.json()["results"]
            if [one["memory"] for one in results] != texts:
                self.wrong.append("add: what was stored is not what was said")
            person.kept |= {one["id"]: {one["memory"]} for one in results}
        else:
            person.asked |= set(texts)

    def _extract(self) -> None:
        person, text = self._person, self._text()
        answer = self.ask(person, "POST", "/v3/memories/add/", self._body([text], infer=True))
        if self._done(answer, "extract"):
            assert answer is not None
            person.events[answer.json()["event_id"]] = text
        else:
            person.asked.add(text)

    def _update(self) -> None:
        person, chosen, text = self._person, self._some(), self._text()
        if chosen is None:
            return
        # From now on it may have either text, until it is known.
        person.kept[chosen].add(text)
        if self._done(self.ask(person, "PUT", f"/v1/memories/{chosen}/", {"text": text}), "update"):
            person.kept[chosen] = {text}

    def _delete(self) -> None:
        person, chosen = self._person, self._some()
        if chosen is None:
            return
        person.unsure.add(chosen)
        if self._done(self.ask(person, "DELETE", f"/v1/memories/{chosen}/"), "delete"):
            person.unsure.discard(chosen)
            del person.kept[chosen]
            person.gone.add(chosen)

    def _search(self) -> None:
        person, query = self._person, " ".join(self._chance.sample(_WORDS, 2))
        body = {"query": query, "filters": {"user_id": person.name}, "top_k": 50, "threshold": 0.0}
        answer = self.ask(person, "POST", "/v3/memories/search/", body)
        if self._done(answer, "search"):
            assert answer is not None
            self._judge(person, answer, "search")

    def _list(self) -> None:
        person = self._person
        answer = self.ask(person, "POST", "/v3/memories/", {"filters": {"user_id": person.name}}, page=1, page_size=100)
        if self._done(answer, "list"):
            assert answer is not None
            self._judge(person, answer, "list")
            if answer.json()["next"] is None:
                missing = person.kept.keys() - person.unsure - {one["id"] for one in answer.json()["results"]}
                if missing:
                    self.wrong.append(f"list: {len(missing)} acknowledged memories are missing")

    def _read(self) -> None:
        person, chosen = self._person, self._some()
        if chosen is not None:
            answer = self.ask(person, "GET", f"/v1/memories/{chosen}/")
            if self._done(answer, "read"):
                assert answer is not None
                if not person.may_say(chosen, answer.json()["memory"]):
                    self.wrong.append("read: a memory has a text that it was never given")
        if person.gone:
            back = self.ask(person, "GET", f"/v1/memories/{self._chance.choice(sorted(person.gone))}/")
            self._done(back, "read of what was deleted", 404)
            if back is not None and back.status_code == 200:
                self.wrong.append("read: what was deleted is back")

    def _erase(self) -> None:
        person = self._person
        if len(person.kept) + len(person.events) < _GROWN:
            # Who was erased leaves little to lose.
            self._add()
            return
        person.doubtful = True
        if self._done(self.ask(person, "DELETE", f"/v2/entities/user/{person.name}/"), "erase", 404):
            person.doubtful, person.erased = False, True
        self._person = self._next_person()

    def _judge(self, person: Person, answer: httpx.Response, what: str) -> None:
        """Look at what a search or a list shows: nothing that was deleted, no text that nobody wrote."""
        for one in answer.json()["results"]:
            if not person.may_say(one["id"], one["memory"]):
                known = "deleted" if one["id"] in person.gone else "never written"
                self.wrong.append(f"{what}: shows what was {known}")
