"""Lookups in a small Silver table: each copy is found however far apart, and on-time ids open no old file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyspark.sql import DataFrame

from pipelines.lake.event_schema import read_schemas
from pipelines.lake.settings import SilverSettings
from pipelines.lake.tables import DLQ, SILVER
from pipelines.runtime import delta
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver.dedup.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.facts import Facts
from pipelines.silver.rules import rejecting_rules, warning_rules
from pipelines.silver.schema import DLQ_TABLE, silver_table
from pipelines.silver.transforms import build_dead_letters, build_facts, build_silver_rows, classify, parse_events

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
SCHEMAS = read_schemas("conf/schemas/api_usage_events")
FIELDS = list(SCHEMAS.fields)
_BRONZE = (
    "_kafka_topic string, _kafka_partition int, _kafka_offset bigint, _kafka_timestamp timestamp, _kafka_key binary, "
    "_kafka_headers array<struct<key:string,value:binary>>, _raw_value binary"
)
_NAMES = [column.split(" ")[0] for column in _BRONZE.split(", ")]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Sent = tuple[str, timedelta, timedelta]
"""Id, event time and Kafka time, both from T0."""


@dataclass
class Past:
    """A Silver table that grows by a file at a time."""

    lake: Lake
    make_event: Callable[..., Row]
    make_record: Callable[..., Row]

    def frame(self, *sent: Sent, first: int) -> DataFrame:
        events = [(self.make_event(event_id=name, event_timestamp=_instant(T0 + at)), T0 + kafka) for name, at, kafka in sent]
        return self.parse([self.make_record(event, first + n, at=kafka) for n, (event, kafka) in enumerate(events)])

    def parse(self, records: list[Row]) -> DataFrame:
        rows = [[record[name] for name in _NAMES] for record in records]
        return parse_events(with_kafka_ms(self.lake.spark.createDataFrame(rows, _BRONZE).coalesce(1)))

    def write(self, *sent: Sent, first: int = 0) -> None:
        """Append events to Silver in one file."""
        table, rules = silver_table(SCHEMAS), warning_rules(SilverSettings())
        delta.ensure_table(self.lake.spark, table, self.lake.path(SILVER))
        frame = self.frame(*sent, first=first)
        rows = build_silver_rows(frame, rules, table.column_names, late_after_seconds=7200, processed_at=T0)
        rows.write.format("delta").mode("append").save(self.lake.path(SILVER))

    def facts(self, *sent: Sent, first: int = 100) -> Facts:
        """What a batch of these events knows."""
        return _facts(self.frame(*sent, first=first))


@pytest.fixture
def past(lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]) -> Past:
    return Past(lake, make_event, make_record)


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _facts(parsed: DataFrame) -> Facts:
    return Facts.from_arrow(build_facts(classify(parsed, rejecting_rules()), FIELDS).toArrow())


def _lookup(lake: Lake, first: Facts) -> SilverLookup:
    lookup = SilverLookup(lake.path(SILVER), FIELDS, window_ms=24 * 3600 * 1000, skew_ms=300 * 1000)
    lookup.load(lake.spark, int(first.kafka_ms.min()))
    return lookup


@pytest.mark.parametrize(
    ("row", "copy"),
    [
        pytest.param((0 * DAY, 0 * DAY), (0 * DAY, HOUR), id="inside the window"),
        pytest.param((0 * DAY, 0 * DAY), (23 * HOUR, 24 * HOUR), id="sent again with a new timestamp, a window apart"),
        pytest.param((0 * DAY, 0 * DAY), (0 * DAY, 30 * DAY), id="same timestamp, 30 days apart"),
        pytest.param((-40 * DAY, 0 * DAY), (-40 * DAY, 30 * DAY), id="same old timestamp, 30 days apart"),
        pytest.param((20 * DAY, 0 * DAY), (20 * DAY, 30 * DAY), id="the row's clock was 20 days ahead"),
        pytest.param((40 * DAY, 0 * DAY), (40 * DAY, 30 * DAY), id="both clocks were ahead"),
        pytest.param((0 * DAY, 30 * DAY), (0 * DAY, 0 * DAY), id="the earlier copy comes last"),
    ],
)
def test_copy_is_found(lake: Lake, past: Past, row: tuple[timedelta, timedelta], copy: tuple[timedelta, timedelta]) -> None:
    past.write(("e1", *row), ("other", *row))
    # A record of the batch's own time stands beside it, so that the window lies where the stream is.
    batch = past.facts(("e1", *copy), ("new", copy[1], copy[1]))
    found = _lookup(lake, batch).existing(lake.spark, batch)

    assert found.offset[np.isin(found.key2, batch.key2)].tolist() == [0]


def test_rows_that_a_batch_wrote_are_found_by_the_next(lake: Lake, past: Past) -> None:
    past.write(("e0", 0 * DAY, 0 * DAY))
    sent = (("e1", HOUR, HOUR), ("skewed", 50 * DAY, HOUR))
    first = past.facts(*sent, first=10)
    lookup = _lookup(lake, first)
    past.write(*sent, first=10)
    lookup.remember(first)
    lookup.forget(int((T0 + 40 * DAY).timestamp()) * 1000)
    batch = past.facts(("e1", HOUR, 40 * DAY), ("skewed", 50 * DAY, 40 * DAY), ("new", 40 * DAY, 40 * DAY))

    assert sorted(lookup.existing(lake.spark, batch).offset.tolist()) == [10, 11]


def test_ids_that_are_on_time_and_new_do_not_open_the_table(lake: Lake, past: Past) -> None:
    past.write(("old", 0 * DAY, 0 * DAY))
    batch = past.facts(("new", 30 * DAY, 30 * DAY))
    lookup = _lookup(lake, batch)
    lookup.path = "/nowhere"

    assert len(lookup.existing(lake.spark, batch)) == 0


def test_known_id_opens_only_files_of_its_time(lake: Lake, past: Past) -> None:
    past.write(("old", 0 * DAY, 0 * DAY))
    [old] = Path(lake.path(SILVER)).glob("*.parquet")
    past.write(("recent", 30 * DAY, 30 * DAY), first=1)
    batch = past.facts(("recent", 30 * DAY, 30 * DAY + HOUR))
    lookup = _lookup(lake, batch)
    old.unlink()  # reading it would fail

    assert lookup.existing(lake.spark, batch).offset.tolist() == [1]


def test_rows_are_found_in_all_files_though_some_hold_none(lake: Lake, past: Past) -> None:
    names = ["e0", "other", "e2", "another", "e4"]
    for number, name in enumerate(names):
        past.write((name, HOUR, HOUR), first=number)
    batch = past.facts(*((name, HOUR, 2 * HOUR) for name in names if name.startswith("e")))

    assert sorted(_lookup(lake, batch).existing(lake.spark, batch).offset.tolist()) == [0, 2, 4]


def test_dead_letters_are_known_by_coordinate(lake: Lake, past: Past, make_record: Callable[..., Row]) -> None:
    delta.ensure_table(lake.spark, DLQ_TABLE, lake.path(DLQ))
    letters = [make_record(b"{", offset, partition=offset % 2) for offset in (0, 1, 4, 5)]
    rows = build_dead_letters(past.parse(letters[:3]), rejecting_rules(), dead_lettered_at=T0)
    rows.write.format("delta").mode("append").save(lake.path(DLQ))
    facts = _facts(past.parse([*letters, make_record(b"{", 2, partition=0), make_record(b"{", 1, partition=0)]))

    assert DeadLetterLookup(lake.path(DLQ)).is_known(lake.spark, facts).tolist() == [True, True, True, False, False, False]
