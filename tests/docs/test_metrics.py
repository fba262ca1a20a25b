"""The page of the metrics says what the registry has."""

from __future__ import annotations

import pytest

from tests.docs.metric_names import metrics
from tests.docs.pages import code, table

pytestmark = pytest.mark.unit


def test_the_table_of_the_metrics() -> None:
    rows = table("docs/operate/metrics.md", "metric")
    told = {code(row["metric"])[0]: (row["kind"], code(row["labels"])) for row in rows}
    assert told == metrics()
    assert all(row["meaning"] for row in rows)
