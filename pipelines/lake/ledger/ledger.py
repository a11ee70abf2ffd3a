"""The batch ledger: one row for each batch of each job, with the fate of every record it read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa
from deltalake import write_deltalake

from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.ledger.ranges import covered_by, positions
from pipelines.lake.ledger.reader import LedgerReader
from pipelines.lake.ledger.schema import SCHEMA
from pipelines.lake.ledger.voids import LETTERS, Voided
from pipelines.lake.ledger_row import BatchRow, LedgerRow
from pipelines.lake.places import make_folder
from pipelines.lake.settings import Settings
from pipelines.lake.tables import LEDGER, TableName

__all__ = ["BatchRow", "Ledger", "LedgerRow"]


class Ledger:
    """Writes `ops.batch_ledger` without the JVM: an append costs milliseconds, not a Spark job.

    Guarantee: one row for (job, generation, batch), also when a batch is run again. Several drivers may write at once:
    the commit is conditional. Each question reads the table as it is then.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = LEDGER.path(settings)

    def record(self, row: BatchRow) -> None:
        """Append `row`."""
        self.append([row.committed()])

    def append(self, rows: Sequence[LedgerRow]) -> None:
        """Append rows as they are, in one commit."""
        make_folder(self.path)
        table = pa.Table.from_pylist([row.columns() for row in rows], SCHEMA)
        write_deltalake(self.path, table, mode="append", schema_mode="merge")

    def reader(self) -> LedgerReader:
        """The ledger as it is now."""
        return LedgerReader(open_table(self.path))

    def has(self, job: str, generation: str, batch_id: int) -> bool:
        """Tell whether the batch is in the ledger."""
        return (generation, batch_id) in self.reader().batches(job, generation)

    def offsets(self, job: str, generation: str, batch_id: int) -> dict[str, list[int]] | None:
        """Offsets that the batch read, as its row has them; None where the ledger does not have the batch."""
        mine = (row for row in self.reader().rows(job=job, generation=generation) if row.batch_id == batch_id)
        return next((dict(row.offsets) for row in mine), None)

    def known(self, job: str) -> set[tuple[str, int]]:
        """Generation and number of all batches of `job` that are in the ledger."""
        return self.reader().batches(job)

    def covered(self, job: str) -> dict[int, list[tuple[int, int]]]:
        """For each Kafka partition the ranges [start, end) of which batches of `job` saw records, in any generation, merged.

        Batches that were taken back (see voids.py) do not count.
        """
        return covered_by(self.standing(job))

    def letters_taken_back(self, job: str) -> dict[int, list[tuple[int, int]]]:
        """The ranges, as those of `covered`, of batches of `job` whose dead letters were taken back (see voids.py)."""
        rows = self.batches(job)
        voided = Voided.of(rows, LETTERS)
        return covered_by(row for row in rows if voided.has(row))

    def positions(self, job: str) -> dict[int, tuple[int, int]]:
        """For each Kafka partition the first and the end (exclusive) offset of what any generation of `job` recorded."""
        return positions(self.standing(job))

    def end_offsets(self, job: str) -> dict[int, int]:
        """The ends alone of `positions`."""
        return {partition: end for partition, (_, end) in self.positions(job).items()}

    def first_version(self, table: TableName, job: str, starting: Mapping[int, int]) -> int:
        """Version of `table` with which `job` first wrote a record from `starting` on, for each partition; 0 if unknown.

        A partition that `starting` does not name counts from its beginning.
        """
        reaching = (row for row in self.standing(job) if any(end > starting.get(part, 0) for part, (_, end) in row.spans.items()))
        return min((row.versions.get(str(table), 0) for row in reaching), default=0)

    def since(self, job: str, moment: datetime) -> list[LedgerRow]:
        """Rows of `job` that were committed after `moment`, oldest first."""
        return self.reader().rows(job=job, after=moment)

    def batches(self, job: str) -> list[LedgerRow]:
        """All rows of `job`, void rows among them, oldest first."""
        return self.reader().rows(job=job)

    def standing(self, job: str) -> list[LedgerRow]:
        """Rows of `job`, oldest first, without void rows and the batches whose events were taken back (see voids.py)."""
        return self.reader().standing(job)
