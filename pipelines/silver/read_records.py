"""Read a batch's records once, and give them the columns that each step needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.lake.event_schema import EventSchemas
from pipelines.lake.settings import SilverSettings
from pipelines.runtime.kept_rows import kept
from pipelines.silver.dedup.fates import REJECTED, VALID, Facts, Longs
from pipelines.silver.rules import rejecting_rules, warning_rules
from pipelines.silver.schema import silver_table
from pipelines.silver.transforms import build_dead_letters, build_facts, build_silver_rows, classify, parse_events


@dataclass(frozen=True)
class RecordReader:
    """Reads records by the schema files, the settings and the rules that the run started with."""

    settings: SilverSettings
    schemas: EventSchemas

    @contextmanager
    def read(self, batch: DataFrame, poison: Longs) -> Iterator[tuple[DataFrame, Facts]]:
        """Give the classified records and their facts; of the records at the coordinates `poison` nothing is read.

        Parsed once for the block: to judge the records, to write the events and to write the dead letters.
        """
        with kept(classify(parse_events(batch, poison.tolist()), rejecting_rules())) as records:
            yield records, Facts.from_arrow(self._facts(records).toArrow())

    def silver_rows(self, valid: DataFrame, at: datetime) -> DataFrame:
        """Give records that pass the columns of Silver."""
        return build_silver_rows(
            valid,
            warning_rules(self.settings),
            silver_table(self.schemas).column_names,
            late_after_seconds=self.settings.late_after_seconds,
            processed_at=at,
        )

    def dead_letters(self, rejected: DataFrame, at: datetime) -> DataFrame:
        """Give rejected records the columns of the dead-letter table."""
        return build_dead_letters(rejected, rejecting_rules(), dead_lettered_at=at)

    def all_columns(self, batch: DataFrame) -> DataFrame:
        """All that is ever computed of records, as hashes: what fails in the sink fails here."""
        records, now = classify(parse_events(batch), rejecting_rules()), datetime.now(UTC)
        parts = (
            self._facts(records),
            self.silver_rows(records.where(F.col("verdict") == VALID), now),
            self.dead_letters(records.where(F.col("verdict") == REJECTED), now),
        )
        return reduce(DataFrame.union, (part.select(F.xxhash64(*part.columns)) for part in parts))

    def _facts(self, records: DataFrame) -> DataFrame:
        return build_facts(records, list(self.schemas.fields))
