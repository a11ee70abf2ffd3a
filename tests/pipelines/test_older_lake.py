"""A lake with files of an older version (INT96, no number of Kafka's time) and of this one is read and written on as one."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from lakehouse.commands import cli
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.archive.archiving import archive, plan_archive
from pipelines.archive.restoring import plan_restore, restore
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import BRONZE, DLQ, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, SILVER
from tests.older_lake import make_older

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
FAR_MS = 1_795_860_000_000_000
"""Microseconds that a producer gave for milliseconds: the year 58878, which an older version kept as such."""


def _append(lake: Lake, *records: Row) -> None:
    """Add rows of this version to Bronze: with Kafka's own number, and NULL for a time that is none."""
    rows = []
    for record in records:
        ms = record.pop("ms", None)
        ms = int(record["_kafka_timestamp"].timestamp() * 1000) if ms is None else ms
        held = 0 <= ms < 7_258_118_400_000
        rows.append({**record, "_kafka_timestamp": record["_kafka_timestamp"] if held else None, "_kafka_timestamp_ms": ms})
    table = DeltaTable(lake.path(BRONZE))
    fields = [field for field in pa.schema(table.schema().to_arrow()) if field.name != "_kafka_timestamp_ms"]
    schema = pa.schema([*fields, pa.field("_kafka_timestamp_ms", pa.int64())])
    write_deltalake(lake.path(BRONZE), pa.Table.from_pylist(rows, schema), mode="append", schema_mode="merge")


def _append_far(lake: Lake, record: Row) -> None:
    """Add a row of the older version with a time that Python's calendar has not."""
    schema = pa.schema(DeltaTable(lake.path(BRONZE)).schema().to_arrow())
    table = pa.Table.from_pylist([record], schema)
    at = schema.get_field_index("_kafka_timestamp")
    table = table.set_column(at, schema.field(at), pa.array([FAR_MS * 1000], schema.field(at).type))
    write_deltalake(lake.path(BRONZE), table, mode="append")


def _physical(path: str) -> set[str]:
    """How the data files of a table store times."""
    files = [pq.ParquetFile(uri.removeprefix("file://")) for uri in DeltaTable(path).file_uris()]
    return {file.schema.column(at).physical_type for file in files for at in range(len(file.schema)) if
            file.schema.column(at).name == "_kafka_timestamp"}  # fmt: skip


def _command(lake: Lake, *words: str) -> str:
    config = lake.folder / "settings.yaml"
    config.write_text(
        f"lake:\n  root: {lake.folder}/lake\n  state_dir: {lake.folder}\n  checkpoints: {lake.folder}/checkpoints\n"
        f"schemas_dir: {lake.settings.schemas_dir}\n"
    )
    said = io.StringIO()
    with pytest.raises(SystemExit) as ended, redirect_stdout(said), redirect_stderr(said):
        cli.main([*words, "--config", str(config)])
    assert ended.value.code == 0, (words, said.getvalue())
    return said.getvalue()


def test_lake_with_files_of_both_versions(
    spark: SparkSession, make_event: Callable[..., Row], make_record: Callable[..., Row], tmp_path: Path, lake: Lake
) -> None:
    minute = timedelta(minutes=1)
    lake = type(lake)(spark, tmp_path / "first")
    lake.append(
        make_record(make_event(event_id="old"), 0),
        make_record(make_event(event_id="replaced", status_code=500), 1, at=T0 + timedelta(hours=3)),
        make_record(b"{", 2),
        make_record(make_event(event_id="far-later"), 3),
    )
    _append_far(lake, make_record(make_event(event_id="far"), 4))
    _append_far(lake, make_record(b"{far", 5))
    lake.run_silver()
    lake.run_gold()
    shutil.copytree(lake.folder, tmp_path / "older")
    lake = type(lake)(spark, tmp_path / "older")
    for table in (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY):
        make_older(lake.path(table))
    shutil.rmtree(lake.path(GOLD_BY_KEY))  # older versions have none
    # What an older version made of a time in the year 58878.
    assert _physical(lake.path(SILVER)) == {"INT96"}

    _append(
        lake,
        make_record(make_event(event_id="old"), 6, at=T0 + 2 * minute),
        # Earlier copies take the place of old rows, whose Kafka time stands in the instant alone.
        make_record(make_event(event_id="replaced"), 7, at=T0 + minute),
        make_record(make_event(event_id="far"), 8, at=T0 + minute),
        {**make_record(make_event(event_id="far-later"), 9), "ms": FAR_MS},
        {**make_record(make_event(event_id="new-far"), 10), "ms": FAR_MS},
        make_record(b"{new", 11),
    )
    lake.run_silver("g2")
    lake.run_gold("g2")

    rows = {row["event_id"]: row["_kafka_offset"] for row in lake.rows(SILVER)}
    assert rows == {"old": 0, "replaced": 7, "far": 8, "far-later": 3, "new-far": 10}
    assert lake.counts() == {"rows_read": 18, "inserted": 5, "replaced": 2, "duplicate": 2, "conflict": 1, "late": 1} | {
        "dead_lettered": 3,
        "already_present": 6,
    }
    # The rows of Bronze were written by the test, and so is what its job says of them.
    offsets = {"0": [0, 12]}
    Ledger(lake.settings).record(BatchRow("bronze", "g1", 0, offsets, rows_read=12, inserted=12, versions={str(BRONZE): 3}))
    found = {one.id: (one.verdict, one.findings) for one in verify(lake.settings, VerifyOptions())}
    assert not [one for one in found.values() if one[1]], found
    for words in (("status",), ("dlq", "list"), ("dlq", "stats"), ("verify",), ("archive", "list")):
        _command(lake, *words)
    # A day of which half are dead letters is for the gate's own tests.
    closed = reconcile(lake.spark, lake.settings, Paths.of(lake.settings), T0.date(), datetime.now(UTC), suites=[])
    assert (closed.events_off, closed.events_after, closed.status) == (0, 5, "final")

    now = datetime.now(UTC)
    moved = archive(lake.settings, plan_archive(lake.settings, date(2026, 1, 29), now), "run1", now, lambda _: None)
    assert sum(moved.removed.values()) == 12
    assert restore(lake.settings, plan_restore(lake.settings, T0.date(), T0.date()), "run2") == 12
    assert not [one for one in verify(lake.settings, VerifyOptions()) if one.findings]
