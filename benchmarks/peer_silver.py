"""The peer's middle: a raw batch to Silver rows and dead letters, each record with one fate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.peer_lake import DLQ_SCHEMA, Lake, event_schema, silver_schema
from benchmarks.peer_parse import RejectedError, fast_projection, read_strictly
from pipelines.lake.event_schema import EventSchemas
from pipelines.lake.settings import SilverSettings

_LOSERS = """
CREATE OR REPLACE TEMP TABLE losers AS SELECT i FROM (
  SELECT i, row_number() OVER (PARTITION BY event_id ORDER BY kafka_timestamp, kafka_partition, kafka_offset) AS nth
  FROM events WHERE event_key IN (SELECT event_key FROM events GROUP BY event_key HAVING count(*) > 1)
) WHERE nth > 1
"""


@dataclass(frozen=True)
class Ready:
    """What a batch adds: new Silver rows, rows that take an older row's place, and dead letters."""

    insert: pa.Table
    replace: pa.Table
    replaced_between: tuple[datetime, datetime] | None
    dead_letters: pa.Table


class SilverStep:
    """Gives the records of batch after batch their fates, and counts them.

    Of several copies of an event_id the first by (Kafka timestamp, partition, offset) stays, whatever batch it comes in.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, lake: Lake, schemas: EventSchemas, settings: SilverSettings, topic: str
    ) -> None:
        self._db, self._lake, self._schemas, self._settings, self._topic = connection, lake, schemas, settings, topic
        self._fields = ", ".join(schemas.fields)
        self._parse = fast_projection(list(schemas.versions.values())[-1], settings.max_event_bytes)
        self._others = pa.schema(
            [("i", pa.int64()), *((f.name, _naive(f.type)) for f in event_schema(schemas)), ("unknown", pa.bool_())]
        )
        self.silver = self.duplicate = self.replaced = self.dead_lettered = self.tombstone = 0
        self.days: set[date] = set()

    def prepare(self, raw: pa.Table) -> Ready:
        """Parse and dedupe a batch of Bronze rows; writes nothing."""
        dead_letters = self._load_events(raw)
        events = self._count("events")
        self._db.execute(_LOSERS)
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE known AS {self._known()}")
        insert = self._rows("i NOT IN (FROM losers) AND i NOT IN (SELECT i FROM known)")
        replace = self._rows("i IN (SELECT i FROM known WHERE earlier)")
        self.duplicate += events - insert.num_rows
        self.silver += insert.num_rows
        self.replaced += replace.num_rows
        span: Any = self._one("SELECT min(there), max(there) FROM known WHERE earlier") if replace.num_rows else None
        return Ready(insert, replace, span, dead_letters)

    def write(self, ready: Ready) -> None:
        """Append what a batch adds; merge where an earlier copy came later."""
        if ready.replaced_between is not None:
            low, high = (
                f"arrow_cast('{moment.isoformat()}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
                for moment in ready.replaced_between
            )
            self._lake.merge("silver", ready.replace, ["_event_key", "event_id"], f"t._kafka_timestamp BETWEEN {low} AND {high}")
        if ready.insert.num_rows:
            self._lake.append("silver", ready.insert)
        if ready.dead_letters.num_rows:
            self._lake.append("dlq", ready.dead_letters)
        for rows in (ready.insert, ready.replace):
            self.days.update(pc.unique(rows["_event_date"]).to_pylist())

    def _load_events(self, raw: pa.Table) -> pa.Table:
        """Make the table `events` of the batch; return the dead letters."""
        values = raw["_raw_value"]
        batch = pa.table(
            {
                "i": np.arange(raw.num_rows),
                # Not validated here: json_valid refuses bytes that are no UTF-8, and only then anything reads the text.
                "text": pa.chunked_array([chunk.view(pa.string()) for chunk in values.chunks]),
                "kafka_partition": raw["_kafka_partition"],
                "kafka_offset": raw["_kafka_offset"],
                "kafka_timestamp": raw["_kafka_timestamp"].cast(pa.timestamp("us")),
            }
        )
        self._db.register("batch", batch)
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE parsed AS {self._parse}")
        suspects = [i for (i,) in self._db.execute("SELECT i FROM parsed WHERE NOT ok ORDER BY i").fetchall()]
        others, rejected = self._read_suspects(values, suspects)
        self._db.register("others", others)
        coordinates = "kafka_partition, kafka_offset, kafka_timestamp"
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE events AS SELECT *, (hash(event_id) >> 1)::BIGINT AS event_key FROM ("  # noqa: S608
            f"SELECT i, {coordinates}, {self._fields}, false AS unknown FROM parsed WHERE ok"
            f" UNION ALL SELECT i, {coordinates}, {self._fields}, unknown FROM others JOIN batch USING (i))"
        )
        self._db.unregister("batch")
        return self._dead_letters(raw, rejected)

    def _read_suspects(self, values: pa.ChunkedArray, suspects: list[int]) -> tuple[pa.Table, dict[int, str]]:
        """Read the rows that the projection could not prove: further events, and the rule that each other one breaks."""
        events: list[dict[str, Any]] = []
        rejected: dict[int, str] = {}
        for i in suspects:
            value = values[i].as_py()
            if value is None:
                self.tombstone += 1
                continue
            try:
                event, unknown = read_strictly(value, self._schemas, self._settings.max_event_bytes)
                events.append({"i": i, **event, "unknown": unknown})
            except RejectedError as error:
                rejected[i] = error.rule
        return pa.Table.from_pylist(events, self._others), rejected

    def _dead_letters(self, raw: pa.Table, rejected: dict[int, str]) -> pa.Table:
        rows, count, now = raw.take(pa.array(rejected, pa.int64())), len(rejected), datetime.now(UTC)
        self.dead_lettered += count
        added = {
            "_quality_flags": [[rule] for rule in rejected.values()],
            "_error_message": [f"{rule}: the record is no event" for rule in rejected.values()],
            "_stage": ["peer"] * count,
            "_dlq_date": rows["_event_date"],
            "_status": ["open"] * count,
            "_attempts": [1] * count,
            "_replay_id": [None] * count,
            "_dead_lettered_at": [now] * count,
        }
        columns = [rows[f.name] if f.name not in added else added[f.name] for f in DLQ_SCHEMA]
        return pa.table(
            [
                column if isinstance(column, pa.ChunkedArray) else pa.array(column, f.type)
                for column, f in zip(columns, DLQ_SCHEMA, strict=True)
            ],
            schema=DLQ_SCHEMA,
        )

    def _known(self) -> str:
        """SELECT of the batch's first copies that Silver has already: `i`, and whether the batch's copy is the earlier one."""
        files = self._lake.files("silver")
        nothing = "SELECT 0::BIGINT AS i, false AS earlier, NULL::TIMESTAMPTZ AS there WHERE false"
        if not files:
            return nothing
        self._db.execute(
            "CREATE OR REPLACE TEMP TABLE met AS"
            " SELECT DISTINCT s._event_key AS k FROM read_parquet($files) s SEMI JOIN events e ON e.event_key = s._event_key",
            {"files": files},
        )
        if not self._count("met"):
            return nothing
        listed = ", ".join(f"'{name}'" for name in files)
        return (
            "SELECT e.i, (e.kafka_timestamp, e.kafka_partition, e.kafka_offset)"  # noqa: S608  # files of this program's own
            " < (s._kafka_timestamp::TIMESTAMP, s._kafka_partition, s._kafka_offset) AS earlier, s._kafka_timestamp AS there"
            f" FROM (SELECT * FROM read_parquet([{listed}]) WHERE _event_key IN (SELECT k FROM met)) s"
            " JOIN events e ON e.event_key = s._event_key AND e.event_id = s.event_id WHERE e.i NOT IN (FROM losers)"
        )

    def _rows(self, condition: str) -> pa.Table:
        late, skew = self._settings.late_after_seconds, self._settings.skew_after_seconds
        schema = silver_schema(self._schemas)
        fields = ", ".join(
            f"{f.name} AT TIME ZONE 'UTC' AS {f.name}" if pa.types.is_timestamp(f.type) else f.name
            for f in event_schema(self._schemas)
        )
        table: pa.Table = self._db.sql(
            f"""
            SELECT {fields}, delay > {late} AS _is_late_arriving, delay AS _arrival_delay_seconds,
              event_timestamp::DATE AS _event_date,
              CASE WHEN delay >= -{skew} AND NOT unknown AND delay <= 3653 * 86400 THEN []::VARCHAR[] ELSE list_filter([
                CASE WHEN delay < -{skew} THEN 'SLV-101' END, CASE WHEN unknown THEN 'SLV-102' END,
                CASE WHEN delay > 3653 * 86400 THEN 'SLV-103' END], lambda flag: flag IS NOT NULL) END AS _quality_flags,
              $topic AS _kafka_topic, kafka_partition AS _kafka_partition, kafka_offset AS _kafka_offset,
              kafka_timestamp AT TIME ZONE 'UTC' AS _kafka_timestamp, $now AS _processed_at, event_key AS _event_key
            FROM (SELECT *, (epoch_us(kafka_timestamp) - epoch_us(event_timestamp)) / 1e6 AS delay FROM events WHERE {condition})
            """,  # noqa: S608
            params={"topic": self._topic, "now": datetime.now(UTC)},
        ).to_arrow_table()
        return table.cast(schema)

    def _count(self, table: str) -> int:
        return int(self._one(f"SELECT count(*) FROM {table}")[0])  # noqa: S608

    def _one(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query).fetchall()[0]
        return row


def _naive(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp("us") if pa.types.is_timestamp(kind) else kind
