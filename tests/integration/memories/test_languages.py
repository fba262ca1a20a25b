"""Keyword search in each tenant's language, on the embedded index and on a Qdrant server, also after a change of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from service.errors import Conflict
from service.memories.actions import Edit, Query
from service.memories.rewording import REWORD
from service.scope import Caller, TenantId
from service.settings.languages import Language
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add
from tests.integration.memories.model_changes import changing_to
from tests.integration.memories.test_index_healing import ready
from tests.integration.memories.test_index_upkeep import eventually
from tests.integration.memories.test_model_change import opened
from tests.languages import WORDS
from tests.llm.embeddings import ScriptedEmbeddings
from tests.qdrant.serving import qdrant

pytestmark = pytest.mark.integration

HOUSES, HOUSE = "Sie wohnt in einem der alten Häuser am Fluss", "Haus"


@pytest.fixture
def words() -> Iterator[ScriptedEmbeddings]:
    """A model that can be brought in."""
    with ScriptedEmbeddings() as server:
        yield server


@pytest.fixture(params=["embedded", "server"])
def either(request: pytest.FixtureRequest, database: Postgres, data_dir: Path) -> Iterator[Services]:
    """Services on each kind of index."""
    with ExitStack() as stack:
        url = stack.enter_context(qdrant()).url if request.param == "server" else None
        yield opened(database, data_dir, stack, url)


@pytest.fixture
def changed_long_ago(database: Postgres) -> Callable[[TenantId], None]:
    """Let the last change of a tenant's language be two minutes older than it is."""

    def go(tenant: TenantId) -> None:
        with psycopg.connect(database.admin, autocommit=True) as admin:
            moved = "UPDATE tenants SET language_changed_at = language_changed_at - interval '2 minutes' WHERE id = %s"
            assert admin.execute(moved, [tenant]).rowcount == 1

    return go


def spoken_by(services: Services, name: str, language: Language | None) -> Caller:
    """A caller of a new tenant with a language."""
    return caller_of(services, services.installation.tenants.create(name, language=language).id)


def by_words(services: Services, caller: Caller, asked: str) -> set[str]:
    """Return the texts that have a word in common with a question."""
    hits = services.memories.search(caller, caller.scope, Query(asked, limit=50))
    return {hit.memory.text for hit in hits if hit.signals.bm25 > 0}


def change(services: Services, caller: Caller, language: Language | None) -> None:
    """Change the language of a caller's tenant."""
    services.installation.tenants.set_language(str(caller.principal.tenant_id), language)


def test_tenants_find_words_of_their_languages_beside_each_other(either: Services) -> None:
    english = spoken_by(either, "english", None)
    for language, stored, asked in WORDS:
        caller = spoken_by(either, language.value, language)
        add(either, caller, stored, "something else")
        add(either, english, stored)
        assert by_words(either, caller, asked) == {stored}
        assert by_words(either, english, asked) == set()
    add(either, english, "She owns two horses")
    assert by_words(either, english, "a horse") == {"She owns two horses"}
    # Made again from the record each tenant has its own language still.
    assert either.jobs.rebuild(lambda done: None) == 3 * len(WORDS) + 1
    german = caller_of(either, either.installation.tenants.get("german").id)
    assert by_words(either, german, HOUSE) == {HOUSES}
    assert by_words(either, english, HOUSE) == set()


def test_after_a_change_the_words_are_taken_anew_while_everything_goes_on(
    either: Services, changed_long_ago: Callable[[TenantId], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.memories.indexing._REBUILD_BATCH", 3)
    caller, other = spoken_by(either, "acme", None), spoken_by(either, "rival", None)
    tenant = caller.principal.tenant_id
    ids = [one.memory_id for one in add(either, caller, HOUSES, *(f"Notiz {n}: Äpfel" for n in range(6))).results]
    add(either, other, HOUSES)
    assert by_words(either, caller, HOUSE) == set()
    change(either, caller, Language.GERMAN)
    # What is there is found by its old words, what is new by the new ones.
    add(either, caller, "Er kauft alte Bücher")
    assert by_words(either, caller, "Häuser Buch") == {HOUSES, "Er kauft alte Bücher"}
    assert by_words(either, caller, HOUSE) == set()
    with pytest.raises(Conflict):
        change(either, caller, Language.FRENCH)
    either.jobs.handlers()[REWORD](str(tenant))
    assert by_words(either, caller, HOUSE) == set(), "a process may still write what it knew before the change"
    changed_long_ago(tenant)
    either.memories.delete(caller, caller.scope, ids[1])
    either.memories.update(caller, caller.scope, ids[2], Edit(text="Sie baut kleine Häuser"))
    either.jobs.handlers()[REWORD](str(tenant))
    houses = {HOUSES, "Sie baut kleine Häuser"}
    assert by_words(either, caller, HOUSE) == houses
    assert by_words(either, caller, "Apfel") == {f"Notiz {n}: Äpfel" for n in (2, 3, 4, 5)}
    assert by_words(either, caller, "Buch") == {"Er kauft alte Bücher"}
    assert by_words(either, other, HOUSE) == set(), "the other tenant is as it was"
    assert either.installation.languages.of(tenant).former is None
    # What is left in the outbox from before changes nothing.
    either.indexing.drain()
    either.indexing.agree([tenant])
    either.indexing.drain()
    assert by_words(either, caller, HOUSE) == houses
    assert either.index.of(caller.scope).count() == 7
    # And back to the installation's.
    change(either, caller, None)
    changed_long_ago(tenant)
    either.jobs.handlers()[REWORD](str(tenant))
    assert by_words(either, caller, HOUSE) == set()


def test_the_sweep_has_a_change_worked_at_once_it_is_due(
    services: Services, caller: Caller, tenant: TenantId, database: Postgres, changed_long_ago: Callable[..., None]
) -> None:
    add(services, caller, HOUSES)
    count = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'reword'"
    with psycopg.connect(database.admin, autocommit=True) as admin:
        change(services, caller, Language.GERMAN)
        change(services, caller, Language.GERMAN)
        services.jobs.sweep(0)
        assert admin.execute(count).fetchone() == (0,)
        changed_long_ago(tenant)
        for _ in range(2):
            services.jobs.sweep(0)
            assert admin.execute(count).fetchone() == (1,)


def test_a_worker_takes_the_words_anew(
    make_services: MakeServices, database: Postgres, changed_long_ago: Callable[[TenantId], None]
) -> None:
    services = make_services(worker=True)
    caller = spoken_by(services, "acme", None)
    add(services, caller, HOUSES)
    change(services, caller, Language.GERMAN)
    changed_long_ago(caller.principal.tenant_id)
    services.jobs.sweep(0)
    eventually(lambda: services.installation.languages.of(caller.principal.tenant_id).changed_at is None)
    assert by_words(services, caller, HOUSE) == {HOUSES}


def test_while_a_model_is_brought_in_the_words_wait_and_then_come(
    either: Services, words: ScriptedEmbeddings, changed_long_ago: Callable[[TenantId], None]
) -> None:
    caller, german = spoken_by(either, "acme", None), spoken_by(either, "german", Language.GERMAN)
    tenant = caller.principal.tenant_id
    for one in (caller, german):
        add(either, one, HOUSES)
    with changing_to(either, words, held_at=1) as ended:
        change(either, caller, Language.GERMAN)
        changed_long_ago(tenant)
        either.jobs.handlers()[REWORD](str(tenant))
        assert either.installation.languages.of(tenant).changed_at is not None
    assert ended == [2]
    assert by_words(either, german, HOUSE) == {HOUSES}, "the new index is in the language of its tenant"
    either.change.look()
    either.jobs.handlers()[REWORD](str(tenant))
    assert by_words(either, caller, HOUSE) == {HOUSES}
    assert either.installation.languages.of(tenant).changed_at is None


def test_an_index_that_is_lost_is_made_again_in_the_language(database: Postgres, data_dir: Path) -> None:
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None)
        caller = spoken_by(services, "acme", Language.GERMAN)
        add(services, caller, HOUSES)
    shutil.rmtree(data_dir / "index")
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None)
        eventually(lambda: ready(services))
        assert by_words(services, caller, HOUSE) == {HOUSES}


def test_another_process_s_change_is_known_within_seconds(
    services: Services, caller: Caller, tenant: TenantId, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.tenants.languages._TRUSTED", 0.2)
    languages = services.installation.languages
    assert languages.of(tenant).language is Language.ENGLISH
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("UPDATE tenants SET language = 'german' WHERE id = %s", [tenant])
    eventually(lambda: languages.of(tenant).language is Language.GERMAN)


def test_the_installation_s_language_is_that_of_tenants_without_one(make_services: MakeServices) -> None:
    services = make_services(index={"language": "german"})
    caller, english = spoken_by(services, "acme", None), spoken_by(services, "english", Language.ENGLISH)
    for one in (caller, english):
        add(services, one, HOUSES)
    assert by_words(services, caller, HOUSE) == {HOUSES}
    assert by_words(services, english, HOUSE) == set()
