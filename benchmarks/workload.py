"""What the parts of the bench share: the folder, the broker's settings, topics of generated events, the oracle's counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml
from deltalake import DeltaTable

from lakehouse.local.event_plan import ProducePlan
from lakehouse.local.producer import ProduceSummary, produce_events
from lakehouse.proof.op_ledger import fates_sql
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import DLQ, LEDGER, SILVER, TableName


@dataclass(frozen=True)
class Fates:
    """Records of a topic by fate: what each program has to come to."""

    rows: int
    silver: int
    duplicate: int
    dead_letter: int
    tombstone: int

    def __str__(self) -> str:
        return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in asdict(self).items())


@dataclass(frozen=True)
class Run:
    """A lake of its own on the bench's broker, and the settings file that points to it."""

    name: str
    folder: Path
    settings: Settings
    config: Path

    @property
    def ledger_dir(self) -> Path:
        """The op ledger of the run's topic."""
        return self.folder.parent / "op_ledger" / self.settings.kafka.topic

    def clear(self) -> None:
        """Remove the run's lake and checkpoints."""
        shutil.rmtree(self.settings.lake.root, ignore_errors=True)
        shutil.rmtree(self.settings.lake.checkpoints, ignore_errors=True)


def new_run(work: Path, name: str, topic: str, overrides: Mapping[str, Any] | None = None) -> Run:
    """Write the settings of a run with an empty lake under `work`; `overrides` are dotted keys."""
    folder = work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tree: dict[str, Any] = {
        "environment": "local",
        "kafka": {"topic": topic},
        "lake": {"root": str(folder / "lake"), "checkpoints": str(folder / "checkpoints"), "state_dir": str(work / "state")},
        "schemas_dir": str(PROJECT / Settings().schemas_dir),
    }
    for key, value in (overrides or {}).items():
        section, _, setting = key.partition(".")
        tree.setdefault(section, {})[setting] = value
    config = folder / "settings.yaml"
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return Run(name, folder, load_settings(config, environ={}), config)


def fill_topic(run: Run, plan: ProducePlan, on_progress: Callable[[int], None] | None = None) -> ProduceSummary:
    """Produce the plan into the run's topic, with its op ledger."""
    return produce_events(run.settings, plan, run.ledger_dir, on_progress)


def expected_fates(run: Run) -> Fates:
    """Count the fates that the op ledger expects."""
    counts = dict(query(f"SELECT fate, count(*) FROM ({fates_sql(run.ledger_dir)}) GROUP BY fate"))  # noqa: S608
    fates = {name: int(counts.get(name, 0)) for name in ("silver", "duplicate", "dead_letter", "tombstone")}
    return Fates(rows=sum(fates.values()), **fates)


def mean_value_bytes(run: Run) -> float:
    """Mean size of the topic's values in bytes, tombstones left out."""
    files = f"{run.ledger_dir}/*.parquet"
    return float(query(f"SELECT avg(value_size) FROM read_parquet('{files}')")[0][0] or 0)  # noqa: S608


def lake_fates(settings: Settings) -> Fates:
    """Count the fates that the project came to: rows in its tables, and copies and tombstones in its ledger."""
    sums = ledger_rows(settings, "sum(rows_read), sum(duplicate) + sum(replaced), sum(tombstone)", "silver")[0]
    rows, duplicate, tombstone = (int(value) for value in sums)
    silver, dead = count_rows(SILVER, settings), count_rows(DLQ, settings)
    return Fates(rows=rows, silver=silver, duplicate=duplicate, dead_letter=dead, tombstone=tombstone)


def ledger_rows(settings: Settings, columns: str, job: str) -> list[tuple[Any, ...]]:
    """Select from the batch ledger's rows of one job."""
    ledger = rows_dataset(DeltaTable(LEDGER.path(settings))).to_table()
    return query(f"SELECT {columns} FROM ledger WHERE job = '{job}'", ledger=ledger)  # noqa: S608


def count_rows(table: TableName, settings: Settings) -> int:
    """Count a table's rows, from its files."""
    return int(rows_dataset(DeltaTable(table.path(settings))).count_rows())


def query(sql: str, **tables: Any) -> list[tuple[Any, ...]]:
    """Answer `sql` in a DuckDB of its own, in UTC."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(sql).fetchall()
