"""The trail in other formats: syslog lines, OCSF events, cursors, and the header that says what a call is for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.audit.details import Reason
from service.audit.entries import Entry, document
from service.audit.events import AuditEvent, Outcome
from service.audit.ocsf import API_ACTIVITY, AUTHENTICATION, ENTITY_MANAGEMENT, class_of, ocsf
from service.audit.selection import Place, Selection, Snapshot, read_cursor, write_cursor
from service.audit.syslog import Syslog, counted
from service.audit.trail import purpose_of
from service.errors import InvalidInput
from service.scope import Action

pytestmark = pytest.mark.unit

AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ENTRY = Entry(
    tenant_id=UUID(int=7),
    id=UUID(int=8),
    seq=9,
    xid=10,
    at=AT,
    event="memory:searched",
    outcome="done",
    principal_id=UUID(int=11),
    acting_subject_id=UUID(int=12),
    subject_ids=(UUID(int=12),),
    connector="slack",
    client="Bücher 🙂 client",
    face="rest",
    request_id="r-1",
    permissions=("memory:read",),
    purpose="support case",
    target_ids=(),
    result_ids=(UUID(int=13), UUID(int=14)),
    query_mac=b"\x01" * 32,
    value_mac=None,
    detail={"limit": 10},
)
#: RFC 5424, section 6: the header's grammar, with no structured data.
LINE = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48})"
    rb" - (?P<id>[!-~]{1,32}) - (?P<message>[ -~]*)"
)


def test_a_syslog_line_keeps_to_the_grammar_and_holds_the_whole_row() -> None:
    match = LINE.fullmatch(Syslog("127.0.0.1", 514).line(ENTRY))
    assert match
    assert match["pri"] == b"110"  # log audit (13), informational (6)
    assert match["time"] == b"2030-01-02T03:04:05.678901Z"
    assert (match["app"], match["id"]) == (b"memvault", b"memory:searched")
    assert json.loads(match["message"]) == document(ENTRY)


@pytest.mark.parametrize(("outcome", "severity"), [("done", 6), ("not_found", 5), ("refused", 4), ("failed", 4)])
def test_a_refusal_is_louder_than_a_read(outcome: str, severity: int) -> None:
    line = Syslog("127.0.0.1", 514, facility=4).line(replace(ENTRY, outcome=outcome))
    assert line.startswith(b"<%d>1 " % (4 * 8 + severity))


def test_every_event_fits_a_syslog_message_id() -> None:
    assert all(re.fullmatch(r"[!-~]{1,32}", event) for event in AuditEvent)


def test_octets_are_counted_in_bytes() -> None:
    assert counted(b"abc") == b"3 abc"


def entry_of(event: AuditEvent, **more: Any) -> Entry:
    """An entry of an event."""
    detail: dict[str, Any] = {}
    if event is AuditEvent.ACCESS_DENIED:
        detail = {"action": Action.DELETE_ALL.value, "reason": Reason.PERMISSION.value}
    return replace(ENTRY, event=event.value, detail=detail, **more)


#: What version 1.3.0 of the schema requires of every event, and of each class that is used.
REQUIRED = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED_OF = {
    API_ACTIVITY: {"actor", "api", "src_endpoint"},
    ENTITY_MANAGEMENT: {"entity"},
    AUTHENTICATION: {"user"},
}


@pytest.mark.parametrize("event", AuditEvent)
@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("bare", [True, False])
def test_every_event_becomes_a_valid_ocsf_event(event: AuditEvent, outcome: Outcome, bare: bool) -> None:
    more: dict[str, Any] = {"principal_id": None, "connector": None, "client": "", "acting_subject_id": None}
    found = ocsf(entry_of(event, outcome=outcome.value, **(more if bare else {})))
    assert set(found) >= REQUIRED | REQUIRED_OF[found["class_uid"]]
    assert found["class_uid"] == class_of(event)
    assert found["category_uid"] == found["class_uid"] // 1000
    assert found["type_uid"] == found["class_uid"] * 100 + found["activity_id"]
    assert found["metadata"]["version"] == "1.3.0"
    assert found["metadata"]["product"]["vendor_name"]
    assert found["time"] == 1893553445678
    assert found["status_id"] == (1 if outcome is Outcome.DONE else 2)
    assert found["activity_id"] in (1, 2, 3, 4, 99)
    # Objects that the schema wants at least one name of.
    assert set(found["actor"]) & {"process", "user", "session", "app_name", "app_uid"}
    if found["class_uid"] == API_ACTIVITY:
        assert found["api"]["operation"]
        assert found["src_endpoint"]["name"]
        assert found["src_endpoint"]["svc_name"]
    if found["class_uid"] == AUTHENTICATION:
        assert found["service"]["name"]
    json.dumps(found)


def test_a_denied_call_says_in_ocsf_what_was_attempted() -> None:
    found = ocsf(entry_of(AuditEvent.ACCESS_DENIED, outcome="refused"))
    assert (found["api"]["operation"], found["activity_id"], found["status_id"]) == ("delete_all", 4, 2)


def test_a_read_is_a_read_in_ocsf_and_names_the_memories() -> None:
    found = ocsf(ENTRY)
    assert (found["type_uid"], found["type_name"]) == (600302, "API Activity: Read")
    assert [one["uid"] for one in found["resources"]] == [str(UUID(int=13)), str(UUID(int=14))]


SECRET = b"k" * 32
PLACE = Place(AT, UUID(int=3), Snapshot(2**40, (2**40 - 1, 2**40 - 7, 2**40 - 2**31)))


def test_a_cursor_leads_back_to_its_place() -> None:
    cursor = write_cursor(SECRET, Selection(), newest_first=True, place=PLACE)
    assert read_cursor(SECRET, Selection(), newest_first=True, cursor=cursor) == PLACE
    assert str(PLACE.row_id) not in cursor


@pytest.mark.parametrize(
    ("secret", "selection", "newest_first"),
    [(b"x" * 32, Selection(), True), (SECRET, Selection(request_id="x"), True), (SECRET, Selection(), False)],
)
def test_a_cursor_of_another_tenant_filter_or_order_is_refused(
    secret: bytes, selection: Selection, newest_first: bool
) -> None:
    cursor = write_cursor(SECRET, Selection(), newest_first=True, place=PLACE)
    with pytest.raises(InvalidInput, match="cursor"):
        read_cursor(secret, selection, newest_first=newest_first, cursor=cursor)


def test_a_cursor_that_was_changed_anywhere_is_refused() -> None:
    cursor = write_cursor(SECRET, Selection(), newest_first=True, place=PLACE)
    refused = 0
    for place, character in enumerate(cursor.rstrip("=")):
        changed = cursor[:place] + ("A" if character != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(InvalidInput):
            read_cursor(SECRET, Selection(), newest_first=True, cursor=changed)
        refused += 1
    assert refused > 50
    for broken in ("", "x", cursor[:-4], cursor + "AAAA", "ü", "\x00", "A" * 5000):
        with pytest.raises(InvalidInput):
            read_cursor(SECRET, Selection(), newest_first=True, cursor=broken)


def test_the_digest_of_a_filter_does_not_hang_on_the_order_of_its_sets() -> None:
    events = [AuditEvent.MEMORY_READ, AuditEvent.KEY_CREATED, AuditEvent.EVENT_READ]
    assert Selection(events=frozenset(events)).digest() == Selection(events=frozenset(reversed(events))).digest()
    assert Selection(subjects=(uuid4(),)).digest() != Selection(subjects=(uuid4(),)).digest()


@pytest.mark.parametrize(("header", "kept"), [(None, None), ("", None), ("  ", None), (" case 7 ", "case 7")])
def test_a_purpose_is_kept_as_it_is(header: str | None, kept: str | None) -> None:
    assert purpose_of(header) == kept


@pytest.mark.parametrize("header", ["x" * 201, "a\x1b[31m", "a\tb", "a\nb"])
def test_a_purpose_that_cannot_be_shown_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput, match="X-Purpose"):
        purpose_of(header)
