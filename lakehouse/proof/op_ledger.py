"""The op ledger: what Kafka acknowledged, where, and the fate that each record must have. The oracle of tests and checks.

Parquet files in one folder, a row for each acknowledged record; several runs share a folder. A record that was sent and
not acknowledged is not in it, though Kafka may hold it; records of a producer that was killed may be missing too.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.proof.event_rows import EVENT_COLUMNS, Rows

SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("kafka_timestamp_ms", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("expected", pa.string(), nullable=False),
        pa.field("expected_rule", pa.string()),
        pa.field("value_md5", pa.string()),
        pa.field("value_size", pa.int64()),
        pa.field("key_md5", pa.string()),
        pa.field("event_id", pa.string()),
        pa.field("event_timestamp_ms", pa.int64()),
        pa.field("customer_id", pa.string()),
        pa.field("api_key_id", pa.string()),
        pa.field("endpoint", pa.string()),
        pa.field("method", pa.string()),
        pa.field("status_code", pa.int32()),
        pa.field("response_time_ms", pa.float64()),
        pa.field("request_bytes", pa.int64()),
        pa.field("response_bytes", pa.int64()),
        pa.field("region", pa.string()),
        pa.field("is_late", pa.bool_()),
    ]
)
_PENDING, _FAILED = -1, -2
_COORDINATES = ("run_id", "topic", "partition", "offset")
_BODY = pa.schema([field for field in SCHEMA if field.name not in _COORDINATES])
_UNIQUE = ("value_md5", "event_id")


class LedgerPart:
    """The rows of one file, waiting for their acknowledgements; `ack` is called by position in the part."""

    def __init__(self, capacity: int) -> None:
        self._partitions = array("i", [_PENDING]) * capacity
        self._offsets = array("q", [_PENDING]) * capacity
        self._batches: list[pa.RecordBatch] = []
        self.rows = 0
        self.acked = 0
        self.failed = 0

    @property
    def settled(self) -> bool:
        """Whether each row so far was acknowledged or has failed for good."""
        return self.acked + self.failed == self.rows

    def add(self, body: pa.RecordBatch) -> int:
        """Append rows (see `ledger_body`) and return the position of the first."""
        first = self.rows
        self._batches.append(body)
        self.rows += body.num_rows
        return first

    def ack(self, position: int, partition: int, offset: int) -> None:
        """Note where Kafka has put the row."""
        self._partitions[position] = partition
        self._offsets[position] = offset
        self.acked += 1

    def fail(self, position: int) -> None:
        """Note that the row was refused or timed out for good; it does not go to the file."""
        self._partitions[position] = _FAILED
        self.failed += 1

    def table(self, run_id: str, topic: str) -> pa.Table:
        """Return the acknowledged rows as the ledger has them."""
        body = pa.Table.from_batches(self._batches, _BODY)
        partitions = pa.array(self._partitions[: self.rows], pa.int32())
        constants = {"run_id": run_id, "topic": topic}
        columns: dict[str, Any] = {name: pa.repeat(pa.scalar(text), self.rows) for name, text in constants.items()}
        columns |= {"partition": partitions, "offset": pa.array(self._offsets[: self.rows], pa.int64())}
        columns |= {name: body[name] for name in body.column_names}
        table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        return table.filter(pc.greater_equal(partitions, 0)) if self.acked < self.rows else table


class OpLedger:
    """Writes the parts of one run to a folder, each file whole or not at all."""

    def __init__(self, folder: Path, run_id: str, topic: str) -> None:
        self._folder, self._run_id, self._topic = folder, run_id, topic
        self._files = 0
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, part: LedgerPart) -> None:
        """Write the acknowledged rows of `part`; none: no file."""
        if not part.acked:
            return
        target = self._folder / f"{self._run_id}-{self._files:05d}.parquet"
        unfinished = target.with_suffix(".tmp")
        table = part.table(self._run_id, self._topic)
        # Unique texts gain nothing from a dictionary.
        plain = [name for name in table.column_names if name not in _UNIQUE]
        pq.write_table(table, unfinished, compression="zstd", compression_level=1, use_dictionary=plain)
        unfinished.rename(target)
        self._files += 1


def body_writer(late_after_ms: int) -> Callable[[Rows], pa.RecordBatch]:
    """Return a function from rows to all ledger columns but the coordinates; it remembers the hashes of keys."""
    key_hashes: dict[bytes | None, str | None] = {None: None}

    def body(rows: Rows) -> pa.RecordBatch:
        for key in set(rows.key) - key_hashes.keys():
            key_hashes[key] = None if key is None else _md5(key)
        columns: dict[str, list[Any]] = {
            "kafka_timestamp_ms": rows.kafka_ms,
            "kind": rows.kind,
            "expected": rows.expected,
            "expected_rule": rows.rule,
            "value_md5": [None if value is None else _md5(value) for value in rows.value],
            "value_size": [None if value is None else len(value) for value in rows.value],
            "key_md5": [key_hashes[key] for key in rows.key],
            "event_timestamp_ms": rows.event_ms,
            "is_late": [
                None if event is None else kafka - event > late_after_ms
                for kafka, event in zip(rows.kafka_ms, rows.event_ms, strict=True)
            ],
        }
        columns |= {name: getattr(rows, name) for name in EVENT_COLUMNS if name != "event_ms"}
        arrays = [pa.array(columns[field.name], field.type) for field in _BODY]
        return pa.RecordBatch.from_arrays(arrays, schema=_BODY)

    return body


def fates_sql(folder: Path | str) -> str:
    """Return a DuckDB SELECT of all ledger columns and `fate`: silver, duplicate, dead_letter or tombstone.

    The survivor of an event_id is the first by Kafka timestamp, partition, offset over all runs in `folder`.
    """
    files = f"{folder}/**/*.parquet".replace("'", "''")
    return f"""
        SELECT *, CASE
            WHEN expected <> 'event' THEN expected
            WHEN row_number() OVER (
                PARTITION BY expected, event_id ORDER BY kafka_timestamp_ms, "partition", "offset"
            ) = 1 THEN 'silver'
            ELSE 'duplicate' END AS fate
        FROM read_parquet('{files}')
    """  # noqa: S608 - a path of the user's own machine, quoted


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
