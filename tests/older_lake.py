"""Tables as versions before 2026-12 wrote them: times as INT96, and no column with Kafka's own number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

LATER = "_kafka_timestamp_ms"


def make_older(table: str) -> None:
    """Rewrite the data files and the log of the Delta table at `table`, all of its versions."""
    folder = Path(table)
    for path in (folder / "_delta_log").iterdir():
        if path.suffix == ".json":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            path.write_text("".join(f"{json.dumps(_older(folder, line))}\n" for line in lines), encoding="utf-8")
        elif path.is_file():
            path.unlink()  # checksums and checkpoints of the log: made of it


def _older(folder: Path, action: dict[str, Any]) -> dict[str, Any]:
    if "metaData" in action:
        schema = json.loads(action["metaData"]["schemaString"])
        schema["fields"] = [field for field in schema["fields"] if field["name"] != LATER]
        action["metaData"]["schemaString"] = json.dumps(schema)
        statistics = action["metaData"]["configuration"].get("delta.dataSkippingStatsColumns")
        if statistics:
            kept = ",".join(name for name in statistics.split(",") if name != LATER)
            action["metaData"]["configuration"]["delta.dataSkippingStatsColumns"] = kept
    for kind in ("add", "cdc"):
        if kind in action:
            file = folder / unquote(action[kind]["path"])
            if file.exists():
                rows = _with_times(pq.read_table(file))
                names = [name for name in rows.column_names if name != LATER]
                pq.write_table(rows.select(names), file, use_deprecated_int96_timestamps=True)
                action[kind]["size"] = file.stat().st_size
            if action[kind].get("stats"):
                stats = json.loads(action[kind]["stats"])
                for part in ("minValues", "maxValues", "nullCount"):
                    stats.get(part, {}).pop(LATER, None)
                action[kind]["stats"] = json.dumps(stats)
    return action


def _with_times(rows: pa.Table) -> pa.Table:
    """Rows with an instant, a delay and a flag made of any number of Kafka's: nothing was too far for an older version."""
    if LATER not in rows.column_names:
        return rows
    micros = pc.multiply(rows.column(LATER), 1000)
    found = {"_kafka_timestamp": pc.coalesce(rows.column("_kafka_timestamp"), micros.cast(pa.timestamp("us", tz="UTC")))}
    if "_arrival_delay_seconds" in rows.column_names:
        delay = pc.divide(
            pc.subtract(micros, rows.column("event_timestamp").cast(pa.int64())).cast(pa.float64(), safe=False), 1e6
        )
        found |= {"_arrival_delay_seconds": delay, "_is_late_arriving": pc.greater(delay, 7200)}
    for name, column in found.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
