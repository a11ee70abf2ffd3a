"""The peer: one process with confluent-kafka, DuckDB and deltalake that does the work of the whole chain.

Written as somebody would write it who wants to be faster than this project: the next batch is read while this one is
worked on, the raw append runs beside the parsing, copies are looked for by a narrow hash, Silver is an anti-join and an
append (faster than deltalake's MERGE, which joins whole rows), Gold is aggregated once over the touched days and
merged. It counts no conflicts, keeps no ledger, and after a crash it starts again from an empty lake.

    python -m benchmarks.peer --bootstrap-servers HOST:PORT --topic TOPIC --lake FOLDER --result FILE
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb

from benchmarks.peer_gold import build_gold
from benchmarks.peer_lake import Lake
from benchmarks.peer_read import read_batches
from benchmarks.peer_silver import SilverStep
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings, SilverSettings


@dataclass
class PeerResult:
    """Records by fate, seconds of wall clock and CPU (imports included in neither), and seconds by step."""

    rows_read: int = 0
    silver: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    tombstone: int = 0
    replaced: int = 0
    gold_hourly: int = 0
    gold_daily: int = 0
    gold_events: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)

    def spend(self, step: str, started: float) -> None:
        """Add the time since `started` to a step."""
        self.steps[step] = self.steps.get(step, 0.0) + time.perf_counter() - started


def run_peer(
    bootstrap_servers: str,
    topic: str,
    lake_root: Path,
    schemas_dir: str,
    silver: SilverSettings,
    *,
    batch_size: int,
    threads: int,
) -> PeerResult:
    """Take the topic as it stands through all layers into a new lake."""
    began, result = time.perf_counter(), PeerResult()
    schemas = read_schemas(schemas_dir)
    lake = Lake(lake_root, schemas)
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    step = SilverStep(connection, lake, schemas, silver, topic)
    with ThreadPoolExecutor(1, "bronze") as beside:
        for batch in read_batches(bootstrap_servers, topic, batch_size):
            raw = beside.submit(lake.append, "bronze", batch)
            started = time.perf_counter()
            ready = step.prepare(batch)
            result.spend("parse and dedupe", started)
            started = time.perf_counter()
            raw.result()
            result.spend("wait for bronze", started)
            started = time.perf_counter()
            step.write(ready)
            result.spend("silver write", started)
            result.rows_read += batch.num_rows
    result.silver, result.duplicate, result.replaced = step.silver, step.duplicate, step.replaced
    result.dead_lettered, result.tombstone = step.dead_lettered, step.tombstone
    started = time.perf_counter()
    result.gold_hourly, result.gold_daily, result.gold_events = build_gold(connection, lake, step.days)
    result.spend("gold", started)
    result.seconds = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result.cpu_seconds = usage.ru_utime + usage.ru_stime
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the peer from the command line; write its result as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--lake", type=Path, required=True, help="an empty folder")
    parser.add_argument("--schemas-dir", default=Settings().schemas_dir)
    parser.add_argument("--batch", type=int, default=500_000, help="records in a batch (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of DuckDB (default: %(default)s)")
    parser.add_argument("--result", type=Path, required=True, help="file for the result, as JSON")
    args = parser.parse_args(argv)
    result = run_peer(
        args.bootstrap_servers,
        args.topic,
        args.lake,
        args.schemas_dir,
        SilverSettings(),
        batch_size=args.batch,
        threads=args.threads,
    )
    args.result.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_process(main)
