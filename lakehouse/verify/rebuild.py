"""I13: Silver and the dead letters, derived a second time from Bronze's bytes, in another order and by another parser."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lakehouse.verify.events import differing
from lakehouse.verify.lake import EVENT_FIELDS, Lake
from lakehouse.verify.records import AT
from lakehouse.verify.result import Invariant
from lakehouse.verify.strict import StrictReader
from pipelines.common.settings import Settings
from pipelines.common.tables import BRONZE

_COLUMNS = ("event_timestamp", *EVENT_FIELDS)
_ROWS = 20_000
_SMALL = 20_000
"""Below this many records one process is quicker than starting others."""

_TYPES = {"event_timestamp": pa.int64(), "status_code": pa.int32(), "response_time_ms": pa.float64()}
_TYPES |= {"request_bytes": pa.int64(), "response_bytes": pa.int64()}
_SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("p", pa.int32()),
        ("o", pa.int64()),
        ("kts", pa.int64()),
        ("fate", pa.string()),
        *((name if name != "event_timestamp" else "ets", _TYPES.get(name, pa.string())) for name in _COLUMNS),
    ]
)


@dataclass(frozen=True)
class _Share:
    """What one process reads: every `step`-th file of a version of Bronze, from the last one back."""

    path: str
    version: int
    first: int
    step: int
    schemas: str
    max_bytes: int
    target: str


def check_rebuild(lake: Lake, settings: Settings) -> Invariant:
    """I13: what Bronze's bytes give, by Python's own JSON parser, is what Silver and the dead-letter table hold."""
    result = Invariant("I13", "Silver rebuilt from Bronze equals the live Silver")
    db = lake.db
    _rebuild(lake, settings)
    result.count(db, "records parsed", "SELECT count(*) FROM rebuilt")
    db.run("""CREATE OR REPLACE TABLE survivors AS SELECT * FROM rebuilt SEMI JOIN (
        SELECT s.first.topic, s.first.p, s.first.o FROM (
            SELECT min({'kts': kts, 'p': p, 'o': o, 'topic': topic}) AS first
            FROM rebuilt WHERE fate = 'event' GROUP BY event_id) s
    ) USING (topic, p, o)""")
    result.count(db, "events rebuilt", "SELECT count(*) FROM survivors")
    result.count(db, "dead letters rebuilt", "SELECT count(DISTINCT (topic, p, o)) FROM rebuilt WHERE fate = 'dead_letter'")
    result.expect_none(db, "event of Bronze missing in Silver", f"SELECT {AT} FROM survivors ANTI JOIN silver USING ({AT})")
    result.expect_none(db, "Silver row that Bronze does not give", f"SELECT {AT} FROM silver ANTI JOIN survivors USING ({AT})")
    result.expect_none(db, "fields differ from Bronze's bytes", differing("survivors", "e.ets IS DISTINCT FROM s.ets"))
    rejected = "(SELECT * FROM rebuilt WHERE fate = 'dead_letter')"
    result.expect_none(
        db, "record should be a dead letter, but is none", f"SELECT {AT} FROM {rejected} ANTI JOIN dlq USING ({AT})"
    )
    result.expect_none(
        db, "dead letter is a valid event or a tombstone", f"SELECT {AT} FROM dlq ANTI JOIN {rejected} USING ({AT})"
    )
    return result


def _rebuild(lake: Lake, settings: Settings) -> None:
    bronze = lake.tables[BRONZE]
    rows = lake.db.number("SELECT count(*) FROM bronze")
    workers = 1 if rows < _SMALL else min(os.cpu_count() or 1, 8)
    shares = [
        _Share(
            bronze.table_uri,
            bronze.version(),
            first,
            workers,
            settings.schemas_dir,
            settings.silver.max_event_bytes,
            str(lake.scratch / f"rebuilt-{first}.parquet"),
        )
        for first in range(workers)
    ]
    if workers == 1:
        parse_share(shares[0])
    else:
        # Spawned, because DuckDB's and Arrow's threads do not survive a fork.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(parse_share, shares))
    files = [share.target for share in shares]
    lake.db.run(f"CREATE OR REPLACE VIEW rebuilt AS SELECT * FROM read_parquet({files})")


def parse_share(share: _Share) -> None:
    """Parse a share of Bronze and write its fates to `share.target`."""
    reader = StrictReader.from_files(Path(share.schemas), _COLUMNS, share.max_bytes)
    dataset = DeltaTable(share.path, version=share.version).to_pyarrow_dataset()
    fragments = list(dataset.get_fragments())[::-1][share.first :: share.step]
    columns = ["_kafka_topic", "_kafka_partition", "_kafka_offset", "_kafka_timestamp", "_raw_value"]
    with pq.ParquetWriter(share.target, _SCHEMA, compression="zstd", compression_level=1) as writer:
        for fragment in fragments:
            for batch in fragment.to_batches(schema=dataset.schema, columns=columns, batch_size=_ROWS):
                writer.write_batch(_parse(batch, reader))


def _parse(batch: pa.RecordBatch, reader: StrictReader) -> pa.RecordBatch:
    fates, events = [], []
    for fate, event in _fates(batch.column("_raw_value").to_pylist(), reader):
        fates.append(fate)
        events.append(event)
    fields = zip(*events, strict=True) if events else [()] * len(_COLUMNS)
    arrays = [
        batch.column("_kafka_topic").cast(pa.string()),
        batch.column("_kafka_partition"),
        batch.column("_kafka_offset"),
        batch.column("_kafka_timestamp").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()),
        pa.array(fates, pa.string()),
        *(pa.array(values, field.type) for values, field in zip(fields, list(_SCHEMA)[5:], strict=True)),
    ]
    return pa.record_batch(arrays, schema=_SCHEMA)


def _fates(values: list[bytes | None], reader: StrictReader) -> Iterator[tuple[str, tuple[Any, ...]]]:
    nothing = (None,) * len(_COLUMNS)
    for value in values:
        if value is None:
            yield "tombstone", nothing
        else:
            event = reader.read(value)
            yield ("dead_letter", nothing) if event is None else ("event", event)
