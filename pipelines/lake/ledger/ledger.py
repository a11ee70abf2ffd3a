"""The batch ledger: one row for each batch of each job, with the fate of every record it read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import write_deltalake

from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.ledger.voids import LETTERS, Voided, standing
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.storage.places import make_folder
from pipelines.lake.tables import LEDGER, TableName

COUNTS = (
    "rows_read",
    "inserted",
    "replaced",
    "duplicate",
    "conflict",
    "already_present",
    "dead_lettered",
    "tombstone",
    "late",
)


@dataclass(frozen=True)
class BatchRow:
    """What one batch did; counts are records.

    `rows_read` = inserted + replaced + duplicate + already_present + dead_lettered + tombstone. `conflict` (same id,
    another payload) and `late` are parts of the others.
    """

    job: str
    generation: str
    batch_id: int
    offsets: Mapping[str, list[int]]
    rows_read: int = 0
    inserted: int = 0
    replaced: int = 0
    duplicate: int = 0
    conflict: int = 0
    already_present: int = 0
    dead_lettered: int = 0
    tombstone: int = 0
    late: int = 0
    holes: Mapping[str, list[list[int]]] = field(default_factory=dict)
    """Ranges [start, end) inside `offsets` of which the batch saw no record, for each partition that has any."""
    versions: Mapping[str, int] = field(default_factory=dict)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def metadata(self) -> dict[str, Any]:
        """The row as it stands in a commit's `userMetadata`: a batch that runs again after a crash recovers it."""
        return {**asdict(self), "started_at": self.started_at.isoformat()}

    def record(self) -> dict[str, Any]:
        """The row by the ledger's columns, committed now."""
        committed = datetime.now(UTC)
        return {
            **{name: getattr(self, name) for name in ("job", "generation", "batch_id", *COUNTS)},
            "offsets": json.dumps(self.offsets),
            "holes": json.dumps(self.holes) if self.holes else None,
            "versions": json.dumps(self.versions),
            "started_at": self.started_at,
            "committed_at": committed,
            "duration_ms": int((committed - self.started_at).total_seconds() * 1000),
        }

    def with_versions(self, versions: Mapping[str, int]) -> BatchRow:
        """The same row with the table versions that were written."""
        return replace(self, versions=versions)

    @staticmethod
    def from_metadata(metadata: Mapping[str, Any]) -> BatchRow:
        """The row that `metadata` was made from."""
        known = {f.name: metadata[f.name] for f in fields(BatchRow) if f.name in metadata}
        return BatchRow(**{**known, "started_at": datetime.fromisoformat(metadata["started_at"])})


_TIME = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("job", pa.string(), nullable=False),
        pa.field("generation", pa.string(), nullable=False),
        pa.field("batch_id", pa.int64(), nullable=False),
        pa.field("offsets", pa.string()),
        *(pa.field(name, pa.int64()) for name in COUNTS),
        pa.field("holes", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("started_at", pa.timestamp("us", tz="UTC")),
        pa.field("committed_at", pa.timestamp("us", tz="UTC")),
        pa.field("duration_ms", pa.int64()),
    ]
)


class Ledger:
    """Writes `ops.batch_ledger` without the JVM: an append costs milliseconds, not a Spark job.

    Guarantee: one row for (job, generation, batch), also when a batch is run again. Several drivers may write at once:
    the commit is conditional.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = LEDGER.path(settings)

    def record(self, row: BatchRow) -> None:
        """Append `row`."""
        self.append([row.record()])

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows as they are, in one commit."""
        make_folder(self.path)
        table = pa.Table.from_pylist([dict(row) for row in rows], SCHEMA)
        write_deltalake(self.path, table, mode="append", schema_mode="merge")

    def has(self, job: str, generation: str, batch_id: int) -> bool:
        """Tell whether the batch is in the ledger."""
        return any(row["generation"] == generation and row["batch_id"] == batch_id for row in self._rows(job))

    def offsets(self, job: str, generation: str, batch_id: int) -> dict[str, list[int]] | None:
        """Offsets that the batch read, as its row has them; None where the ledger does not have the batch."""
        mine = (row for row in self._rows(job) if (row["generation"], row["batch_id"]) == (generation, batch_id))
        return next((dict(json.loads(row["offsets"])) for row in mine), None)

    def known(self, job: str) -> set[tuple[str, int]]:
        """Generation and number of all batches of `job` that are in the ledger."""
        return {(row["generation"], row["batch_id"]) for row in self._rows(job)}

    def covered(self, job: str) -> dict[int, list[tuple[int, int]]]:
        """For each Kafka partition the ranges [start, end) that batches of `job` read, in any generation, merged.

        Batches that were taken back (see voids.py) do not count.
        """
        return covered_by(standing(self._rows(job)))

    def letters_taken_back(self, job: str) -> dict[int, list[tuple[int, int]]]:
        """The ranges, as those of `covered`, of batches of `job` whose dead letters were taken back (see voids.py)."""
        rows = self._rows(job)
        voided = Voided.of(rows, LETTERS)
        return covered_by([row for row in rows if voided.has(row)])

    def end_offsets(self, job: str) -> dict[int, int]:
        """For each Kafka partition the end (exclusive) of what any generation of `job` recorded."""
        return {partition: ranges[-1][1] for partition, ranges in self.covered(job).items()}

    def first_version(self, table: TableName, job: str, starting: Mapping[int, int]) -> int:
        """Version of `table` with which `job` first wrote a record from `starting` on, for each partition; 0 if unknown.

        A partition that `starting` does not name counts from its beginning.
        """
        versions = []
        for row in standing(self._rows(job)):
            ranges = json.loads(row["offsets"])
            if any(end > starting.get(int(partition), 0) for partition, (_, end) in ranges.items()):
                versions.append(json.loads(row["versions"] or "{}").get(str(table), 0))
        return min(versions, default=0)

    def since(self, job: str, moment: datetime) -> list[dict[str, Any]]:
        """Rows of the batches of `job` that were committed after `moment`: batch, offsets (as JSON), times and counts."""
        columns = ["generation", "batch_id", "offsets", "started_at", "committed_at", *COUNTS]
        return self._read((ds.field("job") == job) & (ds.field("committed_at") > pa.scalar(moment, _TIME)), columns)

    def batches(self, job: str) -> list[dict[str, Any]]:
        """All rows of `job` with all columns, in the order in which they were written."""
        return sorted(self._read(ds.field("job") == job, SCHEMA.names), key=lambda row: row["committed_at"])

    def _rows(self, job: str) -> list[dict[str, Any]]:
        return self._read(ds.field("job") == job, ["job", "generation", "batch_id", "offsets", "holes", "versions"])

    def _read(self, wanted: ds.Expression, columns: list[str]) -> list[dict[str, Any]]:
        table = open_table(self.path)
        if table is None:
            return []
        with told_apart(self.path):
            rows: list[dict[str, Any]] = rows_dataset(table, schema=SCHEMA).to_table(columns=columns, filter=wanted).to_pylist()
        return rows


def covered_by(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[tuple[int, int]]]:
    """For each Kafka partition the ranges [start, end) of which the batches of `rows` saw records, merged."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        holes = json.loads(row["holes"] or "{}")
        for partition, (start, end) in json.loads(row["offsets"]).items():
            edges = [start, *(edge for hole in holes.get(partition, []) for edge in hole), end]
            ranges.setdefault(int(partition), []).extend(zip(edges[::2], edges[1::2], strict=True))
    return {partition: merge_ranges(found) for partition, found in ranges.items()}


def merge_ranges(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge ranges [start, end) that touch or overlap; sorted."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def subtract(
    ranges: Mapping[int, list[tuple[int, int]]], others: Mapping[int, list[tuple[int, int]]]
) -> dict[int, list[tuple[int, int]]]:
    """What is left of `ranges` [start, end) of each partition without `others`; both sorted and merged."""
    left: dict[int, list[tuple[int, int]]] = {}
    for partition, found in ranges.items():
        for start, end in found:
            at = start
            for low, high in others.get(partition, []):
                if high > at and low < end:
                    if low > at:
                        left.setdefault(partition, []).append((at, low))
                    at = max(at, high)
            if at < end:
                left.setdefault(partition, []).append((at, end))
    return left
