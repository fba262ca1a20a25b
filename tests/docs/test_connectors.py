"""The connectors' page says what the code does: keys, labels and bounds."""

from __future__ import annotations

import re

import pytest

from service.filters.connector_fields import KNOWN_LABELS, LABELS, MAX_LABEL, MAX_LABELS, MAX_STRING, STRINGS
from tests.docs.pages import code, table

pytestmark = pytest.mark.unit

PAGE = "docs/connectors.md"


def test_the_keys_and_their_shape() -> None:
    rows = {code(row["key"])[0]: [int(one) for one in re.findall(r"\d+", row["shape"])] for row in table(PAGE, "key")}
    assert rows == {key: [1, MAX_STRING] for key in STRINGS} | {LABELS: [MAX_LABELS, 1, MAX_LABEL]}


def test_the_labels() -> None:
    assert [code(row["label"])[0] for row in table(PAGE, "label")] == list(KNOWN_LABELS)
