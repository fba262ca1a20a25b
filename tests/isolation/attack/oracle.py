"""The judge: an attack is answered like a question for what does not exist, and the trail shows who asked."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote, quote_plus

from service.mcp.tools import TOOLS
from service.scope import SYSTEM_TENANT
from tests.isolation.attack.calls import Answer, Call
from tests.isolation.attack.plan import Attack
from tests.isolation.attack.scene import UUIDS, Attacker, Scene
from tests.isolation.attack.spellings import cyrillic, percent, wide
from tests.isolation.attack.surface import Operation

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d|%2B\d\d%3A\d\d)?")
_VARYING: Final = (
    (UUIDS, "<uuid>"),
    (_MOMENT, "<moment>"),
    (re.compile(r'(\\?"(?:hash|identity)\\?": ?\\?")[0-9a-f]{32}'), r"\1<hash>"),
    (re.compile(r'(\\?"latency\\?": ?)[\d.]+'), r"\1<n>"),
    (re.compile(r"mv_[A-Za-z0-9_-]{3,}"), "<key>"),
    (re.compile(r'("(?:seq|xid)": ?)\d+'), r"\1<n>"),
    (re.compile(r'("\w*_mac": ?")[0-9a-f]+'), r"\1<mac>"),
    # What is imported is the attacker's own export, which each import makes longer; an id that is known elsewhere would
    # show in `imported`.
    (re.compile(r'("known": ?)\d+'), r"\1<n>"),
    (re.compile(r"\d+( refused, the first at line )"), r"<n>\1"),
    (re.compile(r"whsec_[A-Za-z0-9+/=]+"), "<secret>"),
    # What the fresh things of the attacker's own are called.
    (re.compile(r"(tea with lemon, |(?:run|agent|app|once|job|connector|account|case)-)[0-9a-f]{8}"), r"\1<n>"),
)
_UNTOLD: Final = frozenset({"x-request-id", "date", "content-length"})
#: Answers that no action gave: the shape was refused, or nothing stands at that path.
_OF_FORM: Final = frozenset({400, 401, 405, 406, 413, 415, 421, 429})
_NO_ROUTE: Final = b"there is no such route"


@dataclass(frozen=True)
class Sent:
    """One attempt: the attack, both calls and both answers."""

    attack: Attack
    target: str
    control: str
    calls: tuple[Call, Call]
    answers: tuple[Answer, Answer]
    request_ids: tuple[str, str]


def attempt(
    scene: Scene, operation: Operation, attacker: Attacker, attacks: Sequence[Attack], prefix: str
) -> list[str]:
    """Make the attempts one after the other and return what is wrong with their answers and with the trail."""
    fresh = _changes(operation)
    fill = partial(scene.filled, attacker, fresh=fresh)
    secrets = scene.secrets(attacker)
    wrong: list[str] = []
    all_sent: list[Sent] = []
    for number, attack in enumerate(attacks):
        target, control = scene.aim(attacker, attack.kind)
        ids = (f"{prefix}.{number}.v", f"{prefix}.{number}.c")
        key = ("Authorization", f"Token {attacker.secret}")
        if operation.tool or operation.resource:
            key = ("Authorization", f"Bearer {attacker.secret}")
        calls = [
            attack.call(one, fill).with_headers(key, ("X-Request-ID", identity))
            for one, identity in zip((target, control), ids, strict=True)
        ]
        # Who is asked first must not matter.
        order = (0, 1) if number % 2 else (1, 0)
        answered = dict(zip(order, scene.world.wire.send([calls[one] for one in order]), strict=True))
        sent = Sent(attack, target, control, (calls[0], calls[1]), (answered[0], answered[1]), ids)
        all_sent.append(sent)
        wrong += [f"{attacker.name}: {attack.family}: {one}" for one in _judged(sent, secrets)]
    wrong += [f"{attacker.name}: {one}" for one in _trail(scene, attacker, all_sent, prefix)]
    return wrong


def _judged(sent: Sent, secrets: set[str]) -> list[str]:
    there, nowhere = sent.answers
    wrong = []
    for answer in sent.answers:
        if answer.status >= 500 and answer.status != 501:
            wrong.append(f"answered {answer.status} for {sent.calls[0]}")
        if answer.status == 429:
            wrong.append("turned away by a limit, which proves nothing")
    known = set(UUIDS.findall(repr(sent.calls[0]).lower())) | {sent.target.lower()}
    leaked = {one.lower() for one in UUIDS.findall(there.body.decode("utf-8", "replace"))} & secrets - known
    if leaked:
        wrong.append(f"told of {len(leaked)} things of the victim's: {sent.calls[0]}")
    mine = _plain(there, sent, 0, whole=sent.attack.whole)
    theirs = _plain(nowhere, sent, 1, whole=sent.attack.whole)
    if mine != theirs:
        wrong.append(f"differs from what does not exist: {sent.calls[0]}\n    {_difference(mine, theirs)}")
    return wrong


def _plain(answer: Answer, sent: Sent, side: int, *, whole: bool) -> tuple[Any, ...]:
    """Return an answer without what differs between any two answers."""
    if not whole:
        return (answer.status,)
    target = (sent.target, sent.control)[side]
    headers = []
    for name, value in answer.headers:
        if name in _UNTOLD:
            continue
        headers.append((name, re.sub(r"\d+", "<n>", value) if name.startswith("x-ratelimit") else value))
    return answer.status, tuple(sorted(headers)), masked(answer.body, target, sent.request_ids[side])


def masked(body: bytes, target: str, request_id: str) -> str:
    """Return a body without the target, the request's id, ids, moments and other things that are new each time."""
    text = body.decode("utf-8", "replace").replace(request_id, "<request>")
    # Put into the middle of ids, where it would hide their second half.
    text = text.replace("\u200b", "").replace("\\u200b", "")
    # The tail alone is what differs between a name and its control, however the rest is spelled.
    tail = target[-8:]
    spelled = {target, target.upper(), target.replace("-", ""), tail, tail.upper(), tail[::-1]}
    spelled |= {spell(one) for spell in (wide, cyrillic, percent) for one in (target, tail)}
    forms = {form for one in spelled for form in (one, json.dumps(one)[1:-1], quote(one, safe=""), quote_plus(one))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= 8:
            text = text.replace(form, "<target>")
    for pattern, put in _VARYING:
        text = pattern.sub(put, text)
    return text


def _difference(mine: tuple[Any, ...], theirs: tuple[Any, ...]) -> str:
    """Return where two answers begin to differ."""
    one, other = str(mine), str(theirs)
    at = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    return f"…{one[max(0, at - 80) : at + 160]}\n    …{other[max(0, at - 80) : at + 160]}"


def _changes(operation: Operation) -> bool:
    if operation.tool is not None:
        return not TOOLS[operation.tool].reads_only
    return operation.method != "GET" and operation.resource is None


def _trail(scene: Scene, attacker: Attacker, all_sent: Sequence[Sent], prefix: str) -> list[str]:
    """Return what is wrong with the trail: each attempt that came to an action is in the attacker's, none elsewhere."""
    rows = scene.world.rows(
        "SELECT request_id, tenant_id FROM audit WHERE request_id LIKE %s", [prefix.replace("_", r"\_") + ".%"]
    )
    tenants = defaultdict(set)
    for request_id, tenant in rows:
        tenants[request_id].add(tenant)
    wrong = []
    for sent in all_sent:
        for answer, request_id in zip(sent.answers, sent.request_ids, strict=True):
            # What is refused as nobody's is counted in the trail of the service.
            home = SYSTEM_TENANT if answer.status == 401 else attacker.tenant
            if tenants[request_id] - {home}:
                wrong.append(f"{sent.attack.family}: in the trail of another tenant: {sent.calls[0]}")
        if _came_to_an_action(sent.answers[0]) and not tenants[sent.request_ids[0]]:
            wrong.append(f"{sent.attack.family}: not in the trail: {sent.calls[0]} {sent.answers[0]}")
    return wrong


def _came_to_an_action(answer: Answer) -> bool:
    if b'"not_enabled"' in answer.body:
        # There are no profiles: nothing is looked at.
        return False
    if answer.status in _OF_FORM or answer.status >= 500 or _NO_ROUTE in answer.body:
        return False
    if b'"jsonrpc"' not in answer.body:
        return True
    body = json.loads(answer.body)
    told = body["error"]["message"] if "error" in body else None
    if told is None and body["result"].get("isError"):
        told = body["result"]["content"][0]["text"]
    return told is None or told.partition(":")[0] in ("forbidden", "not_found")
