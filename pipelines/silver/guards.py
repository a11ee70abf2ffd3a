"""Refuse a batch that would lose records: on restored tables, from an old copy of the checkpoint, as a skipped transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import SparkSession

from pipelines.lake.errors import DataLossError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.tables import DLQ, SILVER
from pipelines.runtime import delta
from pipelines.runtime.restores import last_written, refuse_restored_after
from pipelines.silver.batch import Batch, Targets
from pipelines.silver.judge import Judged


@dataclass(frozen=True)
class Guards:
    """Looks at the tables and the ledger, and raises; remembers nothing."""

    targets: Targets
    ledger: Ledger

    def refuse_old_copy(self, spark: SparkSession, batch: Batch) -> None:
        """Stop where later batches of the checkpoint were written: its batches have other records now than their numbers say.

        Raises DataLossError.
        """
        checkpoint = self.targets.checkpoint
        last = last_written(spark, checkpoint, self.ledger, self.targets.parts)
        if last > batch.number:
            msg = (
                f"Batch {batch.number} of generation {checkpoint.generation} comes after batch {last} was written, so the "
                f"checkpoint {checkpoint.path} is an old copy, and going on would lose records; start with a new "
                "checkpoint path (playbooks/checkpoint-lost.md)."
            )
            raise DataLossError(msg)

    def refuse_restored(self, spark: SparkSession, seen: Mapping[str, int]) -> dict[str, int]:
        """Stop where a RESTORE beside this run took rows or dead letters back: it would never read their records again.

        `seen`: versions, by name, up to which this run knows of no RESTORE. Gives the versions now; raises CheckpointError.
        """
        versions = {}
        for name, path in self.targets.paths.items():
            versions[name] = delta.current_version(spark, path)
            if name in seen and versions[name] != seen[name]:
                refuse_restored_after(seen[name], self.targets.checkpoint, name, path)
        return versions

    def refuse_lost_rows(self, spark: SparkSession, batch: Batch, judged: Judged) -> None:
        """Stop, before anything is written, where an append has rows that Delta would skip: the batch's was committed before.

        Raises DataLossError.
        """
        for name, rows in ((SILVER, judged.fates.insert), (DLQ, judged.dead_letters)):
            if len(rows):
                done = delta.transaction_version(spark, *self.targets.append_of(name, batch))
                if done is not None and done >= batch.number:
                    raise self.targets.lost_rows(name, batch, len(rows))
