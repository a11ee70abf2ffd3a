"""The batch ledger as a table."""

from __future__ import annotations

from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.tables import LEDGER, Column, TableDef

TABLE = TableDef(
    name=LEDGER,
    comment="What each batch read and which fate each record had: one row for a batch.",
    columns=(
        Column("job", "string", "bronze, silver or gold.", nullable=False),
        Column(
            "generation",
            "string",
            "Identity of the checkpoint; `void:` or `void-dlq:` and a generation: batches of it were taken back, counts are "
            "below 0; `part:` and a generation: what a batch of it left in the tables when it died, counted by another run.",
            nullable=False,
        ),
        Column("batch_id", "bigint", "Spark's number of the batch; it starts at 0 in each generation.", nullable=False),
        Column(
            "offsets",
            "string",
            'JSON. Bronze and Silver: `{"<partition>": [first, end]}`, the end exclusive; '
            'a replay of dead letters reads no range: `{}`. Gold: `{"silver_version": [first, last]}`.',
        ),
        Column(
            "rows_read",
            "bigint",
            "Rows of the batch; Bronze, Silver: = inserted + replaced + duplicate + already_present + dead_lettered + tombstone.",
        ),
        Column("inserted", "bigint", "Rows that are new in the table."),
        Column("replaced", "bigint", "Silver: earlier copies that took the place of a later one. Gold: rows that were updated."),
        Column("duplicate", "bigint", "Copies of an event that has its row."),
        Column("conflict", "bigint", "Of the copies, those with another payload under the same event_id."),
        Column("already_present", "bigint", "Records that had their fate from an earlier batch or generation."),
        Column("dead_lettered", "bigint", "Records that became dead letters."),
        Column("tombstone", "bigint", "Records with a NULL value."),
        Column("late", "bigint", "Of the inserted and replacing rows, those that are late."),
        Column(
            "holes",
            "string",
            "JSON: ranges [first, end) inside `offsets` of which the batch saw no record; NULL where there are none.",
        ),
        Column(
            "versions", "string", "JSON: versions that the batch wrote; for Silver and Gold also the version that it read up to."
        ),
        Column("started_at", "timestamp", "When the batch began."),
        Column("committed_at", "timestamp", "When the ledger row was written: after the tables."),
        Column("duration_ms", "bigint", "committed_at - started_at."),
    ),
    keys=("job", "generation", "batch_id"),
    writer="each job",
)
SCHEMA = arrow_schema(TABLE)
