"""Columns of a record's place and time in Kafka: ranges of offsets, Kafka's number of milliseconds, and its instant."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.lake.ranges import END_INSTANT_MS, FIRST_INSTANT_MS

KAFKA_MS = "_kafka_timestamp_ms"
"""Column with Kafka's own number, any of 64 bits; rows that were written before the column was there have NULL."""
KAFKA_TIME = "_kafka_timestamp"
"""Column with the instant, NULL where Kafka's number is none that the lake holds (see ranges.py)."""


def held_instant(ms: Column) -> Column:
    """The instant that `ms` (milliseconds since 1970) is, NULL where the lake does not hold it."""
    return _where_held(ms, F.timestamp_millis(ms))


def _where_held(ms: Column, instant: Column) -> Column:
    return F.when(ms.between(FIRST_INSTANT_MS, END_INSTANT_MS - 1), instant)


def with_kafka_ms(rows: DataFrame) -> DataFrame:
    """Give each row Kafka's number: rows of before have the timestamp alone, which was made of it.

    KAFKA_TIME becomes NULL in such rows too where it is no instant that the lake holds.
    """
    of_time = F.unix_millis(KAFKA_TIME)
    ms = F.coalesce(F.col(KAFKA_MS), of_time) if KAFKA_MS in rows.columns else of_time
    return rows.withColumns({KAFKA_MS: ms, KAFKA_TIME: _where_held(ms, F.col(KAFKA_TIME))})


def in_ranges(start: Mapping[int, int], end: Mapping[int, int]) -> Column:
    """Whether a row lies in one of the ranges [start, end) of its partition; literals, so that files are pruned."""
    ranges = [
        (F.col("_kafka_partition") == partition)
        & (F.col("_kafka_offset") >= start.get(partition, 0))
        & (F.col("_kafka_offset") < stop)
        for partition, stop in end.items()
    ]
    return reduce(lambda left, right: left | right, ranges, F.lit(False))
