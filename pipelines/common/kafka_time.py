"""Kafka's time of a record: its own number of milliseconds, and the instant that it stands for where it is one."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pipelines.common.ranges import END_INSTANT_MS, FIRST_INSTANT_MS

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
