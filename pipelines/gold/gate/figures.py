"""Measures a day as a whole: its rows against the ledger and Bronze, its shares, and its figures against the last closed days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.audited import DAY_COLUMNS
from pipelines.gold.gate.history import multiple, usual_of_day
from pipelines.gold.gate.silver_ledger import SilverLedger, read_silver_ledger
from pipelines.gold.gate.sources import Sources
from pipelines.gold.publish import moment
from pipelines.lake.settings import Settings
from pipelines.runtime import delta

_SEVERAL_CUSTOMERS = 10
"""Among fewer the share of one is large."""


def measure_day(
    sources: Sources, candidate: DataFrame, customers: DataFrame, *, closed: list[date], bills: DataFrame
) -> dict[str, Any]:
    """The day's figures by DAY_COLUMNS; what cannot be compared, or is too little to judge, is None.

    `customers`: the row of each (see `measure_customers`); `bills`: those of the `closed` days.
    """
    ledger = _ledger(sources)
    totals = _totals(candidate)
    off = customers.agg(F.sum("event_count_off"), F.sum("late_count_off")).collect()[0]
    silver_rows, late_rows = totals["events"] - (off[0] or 0), totals["late"] - (off[1] or 0)
    table_rows = _rows_of_silver(sources) if ledger is not None else None
    return {
        "events": totals["events"],
        "silver_rows": silver_rows,
        "table_rows": table_rows,
        "ledger_rows": None if ledger is None else ledger.rows,
        "ledger_rows_off": None if ledger is None or table_rows is None else table_rows - ledger.rows,
        "unread_records": None if ledger is None else _unread(sources, ledger),
        "late_share": _share(late_rows, silver_rows, sources.settings),
        "dead_letter_share": _dead_letter_share(sources, silver_rows),
        "conflict_share": None if ledger is None else _share(ledger.conflicts, ledger.records_read, sources.settings),
        **_wrong(sources, totals),
        **_compared(sources, totals, closed, bills),
    }


def day_frame(spark: SparkSession, figures: Mapping[str, Any]) -> DataFrame:
    """The day's figures as one row."""
    schema = ", ".join(f"{column.name} {column.type}" for column in DAY_COLUMNS)
    return spark.createDataFrame([[figures[column.name] for column in DAY_COLUMNS]], schema)


def _totals(rows: DataFrame) -> dict[str, int]:
    found = rows.agg(
        F.sum("event_count").alias("events"),
        F.sum(_bytes()).alias("bytes"),
        F.sum("request_bytes").alias("request_bytes"),
        F.sum("response_bytes").alias("response_bytes"),
        F.sum("error_count").alias("errors"),
        F.sum("late_count").alias("late"),
        F.count(F.lit(1)).alias("customers"),
    ).collect()[0]
    return {name: int(value or 0) for name, value in found.asDict().items()}


def _compared(sources: Sources, totals: Mapping[str, int], closed: list[date], bills: DataFrame) -> dict[str, Any]:
    """The figures that are compared with the closed days; NULL where these, too, have few events."""
    by_day = bills.groupBy("day").agg(
        F.sum("event_count").alias("events"),
        F.sum(_bytes()).alias("bytes"),
        F.sum("error_count").alias("errors"),
        F.count(F.lit(1)).alias("customers"),
    )
    past = {row["day"]: {name: int(row[name] or 0) for name in by_day.columns[1:]} for row in by_day.collect()}
    enough = sources.settings.quality.min_events
    past = {day: figures for day, figures in past.items() if figures["events"] >= enough}

    def compared(figure: float, of: Mapping[date, float]) -> float | None:
        return multiple(figure, usual_of_day(sources.day, of))

    def per_event(name: str) -> float | None:
        if totals["events"] < enough:
            return None
        return compared(totals[name] / totals["events"], {day: one[name] / one["events"] for day, one in past.items()})

    return {
        "history_days": len(closed),
        "events_to_usual": compared(totals["events"], {day: one["events"] for day, one in past.items()}),
        "bytes_per_event_to_usual": per_event("bytes"),
        "error_share_to_usual": per_event("errors"),
        "customers_to_usual": compared(totals["customers"], {day: one["customers"] for day, one in past.items()}),
    }


def _share(part: int, whole: int, settings: Settings) -> float | None:
    return part / whole if whole >= settings.quality.min_events else None


def _ledger(sources: Sources) -> SilverLedger | None:
    path = sources.paths.ledger
    if path is None:
        return None
    spark, version = sources.spark, sources.silver_version
    return read_silver_ledger(spark, path, sources.paths.silver, version, (sources.begin, sources.end))


def _rows_of_silver(sources: Sources) -> int:
    """Rows of all of Silver: Delta answers a plain count from its log."""
    table = sources.spark.read.format("delta").option("versionAsOf", sources.silver_version)
    return table.load(sources.paths.silver).count()


def _unread(sources: Sources, ledger: SilverLedger) -> int | None:
    """Records that Kafka got before the day's grace ended and that no batch of Silver has read; None without Bronze."""
    path = sources.paths.bronze
    if path is None or not delta.is_delta_table(sources.spark, path):
        return None
    beyond = ~F.col("_kafka_partition").isin(list(ledger.ends))
    for partition, end in ledger.ends.items():
        beyond = beyond | ((F.col("_kafka_partition") == partition) & (F.col("_kafka_offset") >= end))
    bronze = sources.spark.read.format("delta").load(path)
    return bronze.where((F.col("_kafka_timestamp") < moment(sources.end)) & beyond).count()


def _dead_letter_share(sources: Sources, silver_rows: int) -> float | None:
    path = sources.paths.dlq
    if path is None or not delta.is_delta_table(sources.spark, path):
        return None
    letters = sources.spark.read.format("delta").load(path).where("_status = 'open'")
    begin = moment(sources.begin)
    end = moment(sources.begin + timedelta(days=1))
    count = letters.where((F.col("_kafka_timestamp") >= begin) & (F.col("_kafka_timestamp") < end)).count()
    return _share(count, count + silver_rows, sources.settings)


def _wrong(sources: Sources, totals: Mapping[str, int]) -> dict[str, float | None]:
    """How far Gold was off, before the batch, by differences that nothing explains."""
    if totals["events"] < sources.settings.quality.min_events:
        return {"gold_wrong_share": None, "gold_wrong_customers": None}
    off = F.sum(F.abs(F.coalesce("after", F.lit(0)) - F.coalesce("before", F.lit(0))))
    found = sources.wrong.groupBy("measure").agg(off.alias("off")).collect()
    wholes = {"event_count": "events", "request_bytes": "request_bytes", "response_bytes": "response_bytes"}
    shares = [row["off"] / max(totals[wholes[row["measure"]]], 1) for row in found if row["measure"] in wholes]
    customers = sources.wrong.select("key").distinct().count()
    return {
        "gold_wrong_share": float(max(shares, default=0.0)),
        "gold_wrong_customers": customers / totals["customers"] if totals["customers"] >= _SEVERAL_CUSTOMERS else None,
    }


def _bytes() -> Column:
    return F.col("request_bytes") + F.col("response_bytes")
