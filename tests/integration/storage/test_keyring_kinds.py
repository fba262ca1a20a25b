"""What holds for a keyring of files and for one in a database alike, between processes."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import pytest

from service import clock
from service.scope import TenantId
from service.storage.encryption import Cipher, Place
from service.storage.keyring import KeyDestroyed, KeyMissing, Keyring
from service.storage.tombstones import TombstoneKind, tombstone_id
from tests.integration.storage.keyrings import SUBJECT, TENANT, OpenKeys, stopped

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def test_a_key_is_the_same_for_all_and_destroyed_for_good(kept: OpenKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    now = stopped(monkeypatch)
    here, elsewhere = kept()[0], kept()[0]
    place = Place(TENANT, "memories", uuid4(), "content")
    sealed = here.create_subject(TENANT, SUBJECT).seal(b"tea", place)
    assert elsewhere.create_subject(TENANT, SUBJECT).open(sealed, place) == b"tea"
    assert kept()[0].subject(TENANT, SUBJECT).open(sealed, place) == b"tea"
    here.destroy_subject(TENANT, SUBJECT)
    here.destroy_subject(TENANT, SUBJECT)
    for refused in (here.subject, here.create_subject, kept()[0].subject, kept()[0].create_subject):
        with pytest.raises(KeyDestroyed):
            refused(TENANT, SUBJECT)
    # The other process believes what it remembers for seconds only.
    assert isinstance(elsewhere.subject(TENANT, SUBJECT), Cipher)
    monkeypatch.setattr(clock, "monotonic", lambda: now + 6)
    with pytest.raises(KeyDestroyed):
        elsewhere.subject(TENANT, SUBJECT)


def test_a_key_can_be_destroyed_before_it_is_made(kept: OpenKeys) -> None:
    kept()[0].destroy_subject(TENANT, SUBJECT)
    with pytest.raises(KeyDestroyed):
        kept()[0].create_subject(TENANT, SUBJECT)


def test_a_new_key_is_of_this_process_until_it_is_made_durable(kept: OpenKeys) -> None:
    here, elsewhere, other = kept()[0], kept()[0], UUID(int=3)
    place = Place(TENANT, "memories", uuid4(), "content")
    sealed = here.new_subject(TENANT, SUBJECT).seal(b"tea", place)
    here.new_subject(TENANT, other)
    assert here.subject(TENANT, SUBJECT).open(sealed, place) == b"tea"
    here.forget_new(TENANT, other)
    for keyring, subject_id in ((elsewhere, SUBJECT), (elsewhere, other), (here, other)):
        with pytest.raises(KeyMissing):
            keyring.subject(TENANT, subject_id)
    assert here.create_subject(TENANT, SUBJECT).open(sealed, place) == b"tea"
    here.forget_new(TENANT, SUBJECT)
    assert elsewhere.subject(TENANT, SUBJECT).open(sealed, place) == b"tea"


def test_no_key_is_made_in_a_tenant_that_was_erased_meanwhile(kept: OpenKeys) -> None:
    here, elsewhere = kept()[0], kept()[0]
    here.create_tenant(TENANT)
    here.new_subject(TENANT, SUBJECT)
    elsewhere.destroy_tenant(TENANT)
    with pytest.raises(KeyDestroyed):
        here.create_subject(TENANT, SUBJECT)
    here.forget_new(TENANT, SUBJECT)
    for keyring in (here, kept()[0]):
        with pytest.raises((KeyDestroyed, KeyMissing)):
            keyring.subject(TENANT, SUBJECT)


def test_a_tenant_s_key_goes_with_those_of_its_subjects_and_no_other(
    kept: OpenKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival, others = TenantId(UUID(int=7)), [UUID(int=number) for number in range(2, 5)]
    here, elsewhere = kept()[0], kept()[0]
    for tenant_id in (TENANT, rival):
        here.create_tenant(tenant_id)
        here.create_tenant(tenant_id)
        for one in others:
            here.create_subject(tenant_id, one)
    secret = here.tenant_secret(TENANT, "names")
    assert elsewhere.tenant_secret(TENANT, "names") == secret != here.tenant_secret(TENANT, "other")
    assert secret != here.tenant_secret(rival, "names")
    here.destroy_tenant(TENANT)
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + 6)
    for keyring in (here, kept()[0]):
        for one in others:
            with pytest.raises(KeyDestroyed):
                keyring.subject(TENANT, one)
            assert keyring.subject(rival, one)
        with pytest.raises(KeyDestroyed):
            keyring.tenant_secret(TENANT, "names")
    with pytest.raises(KeyDestroyed):
        elsewhere.subject(TENANT, others[0])
    with pytest.raises(KeyDestroyed):
        elsewhere.tenant_secret(TENANT, "names")
    assert elsewhere.tenant_secret(rival, "names")


def test_whether_a_key_is_there_is_asked_anew(kept: OpenKeys) -> None:
    here, elsewhere = kept()[0], kept()[0]
    here.create_tenant(TENANT)
    here.create_subject(TENANT, SUBJECT)
    with pytest.raises(KeyMissing):
        elsewhere.check(TENANT, UUID(int=9))
    secret = elsewhere.tenant_secret(TENANT, "names")
    for one in (SUBJECT, None):
        elsewhere.check(TENANT, one)
    here.destroy_subject(TENANT, SUBJECT)
    here.destroy_tenant(TENANT)
    for one in (SUBJECT, None):
        with pytest.raises(KeyDestroyed):
            elsewhere.check(TENANT, one)
    # What is remembered is believed for seconds, and is no answer to that.
    assert elsewhere.tenant_secret(TENANT, "names") == secret


def test_many_processes_make_one_key(kept: OpenKeys) -> None:
    keyrings, place = [kept()[0] for _ in range(4)], Place(TENANT, "memories", uuid4(), "content")
    sealed: list[bytes] = []

    def make(keyring: Keyring) -> None:
        sealed.append(keyring.create_subject(TENANT, SUBJECT).seal(b"tea", place))

    threads = [threading.Thread(target=make, args=(keyring,)) for keyring in keyrings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [kept()[0].subject(TENANT, SUBJECT).open(one, place) for one in sealed] == [b"tea"] * 4


def test_the_journal_is_one_for_all_and_chained(kept: OpenKeys) -> None:
    first, other = kept()[1], kept()[1]
    erased, subject = TombstoneKind.SUBJECT_ERASED, uuid4()
    once = tombstone_id(erased, TENANT, subject)
    one = first.append(erased, TENANT, [subject], tombstone=once)
    two = other.append(TombstoneKind.HOLD_PLACED, TENANT, [uuid4(), uuid4()], sealed=b"\x00sealed")
    first.append(erased, TENANT, [subject], tombstone=once)
    threads = [threading.Thread(target=lambda: [kept()[1].append(erased, TENANT, [uuid4()]) for _ in range(5)])] * 1
    threads += [threading.Thread(target=lambda: [first.append(erased, TENANT, [uuid4()]) for _ in range(5)])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    told = list(kept()[1].all())
    assert told[:2] == [one, two]
    assert len(told) == len({one.id for one in told}) == 12
