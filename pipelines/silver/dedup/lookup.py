"""What Silver and the dead letters hold already: the reads behind a batch's decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.lake.errors import LakehouseError
from pipelines.lake.ranges import END_INSTANT_MS, FIRST_INSTANT_MS
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver.dedup.recent_keys import RecentKeys
from pipelines.silver.dedup.silver_files import LONGS, Places, SilverFiles
from pipelines.silver.facts import Facts, Flags, Longs
from pipelines.silver.judge import LetterStates
from pipelines.silver.transforms import coordinate, payload_hash, second_key

_HOUR = 3_600_000
_DAY_US = 86_400_000_000
_PADDING = tuple(range(-16, 0))
"""No coordinates; as keys they cost nothing but their place in the set."""
_NEVER = 2**62
"""A time that no record is as young as."""
_LITERALS = 500
"""Up to so many values are literals in the plan; more are joined by broadcast."""


def among(frame: DataFrame, name: str, value: Column, wanted: Longs, *, keep: bool = True) -> DataFrame:
    """Keep (or drop) the rows whose long `value` is one of `wanted`."""
    if len(wanted) <= _LITERALS:
        # A longer list is a set that generated code refers to; a short one would be part of the code, compiled anew each time.
        condition = value.isin([*wanted.tolist(), *_PADDING])
        return frame.where(condition if keep else ~condition)
    values = frame.sparkSession.createDataFrame(pa.table({name: wanted}))
    joined = frame.withColumn(name, value) if name not in frame.columns else frame
    return joined.join(F.broadcast(values), on=name, how="left_semi" if keep else "left_anti").select(frame.columns)


@dataclass
class SilverLookup:
    """Finds the rows of Silver that have the ids of a batch; exact, and as narrow as the batch allows.

    A copy of an event that is not older than `recent.horizon_ms` by Kafka time is known to `recent`, and so is every
    event that came from the future, or without a Kafka time. Any other copy has the same event_timestamp and so lies before
    the horizon: only records with such an old timestamp, or that old themselves, are looked for in the table's past.
    A `bounded` replay remembers nothing and looks for every record in the past: its part of the table may be any.
    """

    path: str
    fields: Sequence[str]
    window_ms: int
    skew_ms: int
    bounded: bool = False
    recent: RecentKeys = field(default_factory=lambda: RecentKeys(0))
    skewed: RecentKeys = field(default_factory=lambda: RecentKeys(0))

    @cached_property
    def files(self) -> SilverFiles:
        """The table's files."""
        return SilverFiles(self.path)

    def load(self, spark: SparkSession, oldest_kafka_ms: int) -> None:
        """Read the keys of the window before `oldest_kafka_ms` from the table."""
        if self.bounded:
            self.recent = RecentKeys(_NEVER)
            return
        horizon = oldest_kafka_ms - self.window_ms - _HOUR
        self.recent, self.skewed = RecentKeys(horizon), RecentKeys(0)
        # Of the table's own column: a file without such a row is passed over by its statistics.
        rows = spark.read.format("delta").load(self.path)
        rows = rows.where(
            (F.col("_kafka_timestamp") >= kafka_moment(horizon))
            | F.col("_kafka_timestamp").isNull()
            | (F.col("_arrival_delay_seconds") < -self.skew_ms / 1000)
        )
        is_skewed = F.col("_kafka_timestamp").isNull() | (F.col("_arrival_delay_seconds") < -self.skew_ms / 1000)
        table = with_kafka_ms(rows).select("_event_key", "_kafka_timestamp_ms", is_skewed.alias("skewed")).toArrow()
        keys, times = table.column("_event_key").to_numpy(), table.column("_kafka_timestamp_ms").to_numpy()
        self._remember(keys, times, table.column("skewed").to_numpy(zero_copy_only=False).astype(bool))

    def forget(self, oldest_kafka_ms: int) -> None:
        """Let the window follow the stream: rows too old for any record from `oldest_kafka_ms` on are forgotten."""
        if self.bounded:
            return
        horizon = oldest_kafka_ms - self.window_ms - _HOUR
        if horizon > self.recent.horizon_ms + _HOUR:
            self.recent.forget_before(horizon)

    def remember(self, written: Facts) -> None:
        """Add the rows that a batch wrote."""
        on_time = written.delayed_more(-self.skew_ms * 1000 - 1)
        self._remember(written.key, written.kafka_ms, ~on_time)

    def _remember(self, keys: Longs, kafka_ms: Longs, skewed: Flags) -> None:
        if self.bounded:
            return
        self.recent.add(keys, kafka_ms)
        self.skewed.add(keys[skewed], kafka_ms[skewed])

    def existing(self, spark: SparkSession, first: Facts) -> Facts:
        """The table's rows that have an id of `first`."""
        known, units = self.recent.find(first.key)
        known_skewed, units_skewed = self.skewed.find(first.key)
        old = (first.event_us // 1000 < self.recent.horizon_ms + self.skew_ms) | self._is_replayed(first)
        suspects = known | known_skewed | old
        if not suspects.any():
            return _no_facts()
        places = self._places(np.concatenate((units, units_skewed)), first.take(old))
        rows = self.files.read(np.unique(first.key[suspects]), places, self._columns())
        if not rows.num_rows:
            return _no_facts()
        existing = Facts.from_arrow(with_kafka_ms(spark.createDataFrame(rows)).select(*self._fact_columns()).toArrow())
        if len(existing) != rows.num_rows:
            msg = (
                f"Spark gave {len(existing)} of {rows.num_rows} Silver rows back; stopped, since copies would be let in "
                "(playbooks/unknown-error.md)."
            )
            raise LakehouseError(msg)
        return existing

    def has_rows(self, spark: SparkSession, records: Facts) -> Flags:
        """For each record whether it is a row of the table itself, by its coordinates: of a rejected one no id may be known."""
        if not len(records):
            return np.zeros(0, dtype=bool)
        low, high = int(records.offset.min()), int(records.offset.max())
        table = spark.read.format("delta").load(self.path).where(F.col("_kafka_offset").between(low, high))
        rows = among(table.select(coordinate().alias("coordinate")), "coordinate", F.col("coordinate"), records.coordinates())
        return np.isin(records.coordinates(), rows.toArrow().column("coordinate").to_numpy())

    def _is_replayed(self, records: Facts) -> Flags:
        """Which records are so old that the window around them is not in `recent`."""
        if self.bounded:
            return np.ones(len(records), dtype=bool)
        result: Flags = records.kafka_ms < self.recent.horizon_ms + self.window_ms
        return result

    def _places(self, units: Longs, old: Facts) -> Places:
        days = np.unique(old.event_us // _DAY_US)
        # The window around a record of today is in `recent`; only a replay reads records from before.
        replayed = old.take(self._is_replayed(old))
        has_time = replayed.has_kafka_time()
        times, others = replayed.kafka_ms[has_time], replayed.kafka_ms[~has_time]
        spans = [(int(times.min()) - self.window_ms, int(times.max()) + self.window_ms)] if len(times) else []
        # Numbers that are no time are few and may be any: one span for those below the time that is held, one for those above.
        if (others < FIRST_INSTANT_MS).any():
            spans.append((LONGS.min, FIRST_INSTANT_MS + self.window_ms))
        if (others >= END_INSTANT_MS).any():
            spans.append((END_INSTANT_MS - self.window_ms, LONGS.max))
        return Places(units, days, spans)

    def _columns(self) -> list[str]:
        return ["_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_kafka_timestamp_ms", "_event_key", *self.fields]

    def _fact_columns(self) -> list[Column]:
        return [
            F.col("_kafka_partition").alias("partition"),
            F.col("_kafka_offset").alias("offset"),
            F.col("_kafka_timestamp_ms").alias("kafka_ms"),
            F.unix_micros("event_timestamp").alias("event_us"),
            F.lit(0).alias("verdict"),
            F.col("_event_key").alias("key"),
            second_key(F.col("event_id")).alias("key2"),
            payload_hash(self.fields).alias("payload"),
        ]


@dataclass
class DeadLetterLookup:
    """Tells dead letters that the table has from new ones; reads the table only where a range is read again."""

    path: str
    ends: dict[int, int] | None = None

    def is_known(self, spark: SparkSession, rejected: Facts) -> Flags:
        """For each rejected record whether the table has it."""
        if self.ends is None:
            self.ends = self._read_ends(spark)
        ends = np.array([self.ends.get(partition, 0) for partition in rejected.partition.tolist()], dtype=np.int64)
        again = rejected.offset < ends
        if not again.any():
            return again
        low, high = int(rejected.offset[again].min()), int(rejected.offset[again].max())
        table = spark.read.format("delta").load(self.path).where(F.col("_kafka_offset").between(low, high))
        present = table.select(coordinate().alias("coordinate")).toArrow().column("coordinate").to_numpy()
        return np.isin(rejected.coordinates(), present)

    def forget(self) -> None:
        """Read the table anew for the next batch: somebody else may have written to it."""
        self.ends = None

    def states(self, spark: SparkSession, valid: Facts) -> LetterStates:
        """Tell which records that pass now are dead letters: of an older schema file, say, in a range that is read again."""
        if self.ends is None:
            self.ends = self._read_ends(spark)
        again = np.zeros(len(valid), dtype=bool)
        for partition, end in self.ends.items():
            again |= (valid.partition == partition) & (valid.offset < end)
        if not again.any():
            return LetterStates(again, again)
        low, high = int(valid.offset[again].min()), int(valid.offset[again].max())
        letters = spark.read.format("delta").load(self.path).where(F.col("_kafka_offset").between(low, high))
        found = letters.where("_status <> 'replayed'").select(coordinate().alias("coordinate"), "_status").toArrow()
        at, state = found.column("coordinate").to_numpy(), np.array(found.column("_status").to_pylist(), dtype=str)
        coordinates = valid.coordinates()
        return LetterStates(np.isin(coordinates, at[state == "open"]), np.isin(coordinates, at[state == "discarded"]))

    def remember(self, written: Facts) -> None:
        """Note the dead letters that a batch wrote."""
        for partition, (_, end) in written.offset_ranges().items():
            ends = self.ends if self.ends is not None else {}
            ends[int(partition)] = max(end, ends.get(int(partition), 0))
            self.ends = ends

    def _read_ends(self, spark: SparkSession) -> dict[int, int]:
        table = spark.read.format("delta").load(self.path)
        rows = table.groupBy("_kafka_partition").agg(F.max("_kafka_offset").alias("last")).collect()
        return {row["_kafka_partition"]: row["last"] + 1 for row in rows}


def kafka_moment(ms: int) -> datetime:
    """Python's moment of a Kafka time in milliseconds; the nearest that the lake holds where it holds none such."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=min(max(ms, FIRST_INSTANT_MS), END_INSTANT_MS))


def _no_facts() -> Facts:
    empty = np.zeros(0, dtype=np.int64)
    return Facts(**dict.fromkeys(Facts.__dataclass_fields__, empty))
