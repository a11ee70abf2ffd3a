"""Each guard of a start refuses what it is for, by name, and lets a sound start pass; no job opens a checkpoint beside them."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from pipelines.archive import records
from pipelines.bronze.schema import TABLE as BRONZE_TABLE
from pipelines.gold.schema import BY_KEY_TABLE, DAILY_TABLE, HOURLY_TABLE
from pipelines.lake.checkpoint.checked_files import create_checked
from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.errors import CheckpointError, ContractError, DataLossError, LakehouseError, UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.job_tables import job_tables
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY, TopicState
from pipelines.lake.ledger.known_gaps import RETENTION, Gap, record_gaps
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.local_files import files_below
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER, TableName
from pipelines.runtime import delta
from pipelines.runtime.guards.guards import GUARDS
from pipelines.runtime.guards.start import Moment, Start
from pipelines.runtime.start_up import look_at_source, look_at_tables, open_start
from pipelines.silver.schema import DLQ_TABLE, silver_table

TOPIC = TopicState("t", "topic-1", {0: 0, 1: 0}, {0: 100, 1: 100})
SCHEMAS = PROJECT / "conf/schemas/api_usage_events"
GOLD = (BY_KEY_TABLE, HOURLY_TABLE, DAILY_TABLE)


@dataclass
class World:
    """A small lake of empty tables, and the sound start of each job on a checkpoint of its own."""

    spark: SparkSession
    settings: Settings

    def path(self, name: TableName) -> str:
        return name.path(self.settings)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.settings)

    def start(self, job: str) -> Start:
        schemas = read_schemas(self.settings.schemas_dir)
        path = f"{self.settings.lake.checkpoints}/{job}/g1"
        start = Start(spark=self.spark, settings=self.settings, job=job, checkpoint_path=path)
        if job == "bronze":
            return replace(start, reads=(LEDGER,), writes=(BRONZE_TABLE,), topic=TOPIC)
        if job == "silver":
            return replace(start, reads=(BRONZE, LEDGER), writes=(silver_table(schemas), DLQ_TABLE))
        return replace(start, reads=(SILVER, LEDGER), writes=GOLD, first_version=0)

    def opened(self, job: str) -> Start:
        """The start with its checkpoint: a new one, or the one that is there."""
        start, tables = self.start(job), job_tables(job)
        target = DeltaTable(self.path(tables.target))
        checkpoint = open_checkpoint(
            start.checkpoint_path,
            job=job,
            source=TOPIC.topic_id if tables.source is None else str(DeltaTable(self.path(tables.source)).metadata().id),
            target=str(target.metadata().id),
            versions={str(name): DeltaTable(self.path(name)).version() for name in tables.written},
        )
        checkpoint.lock.release()
        return replace(start, checkpoint=checkpoint)

    def record(self, job: str, batch: int, version: int) -> None:
        """Let the ledger say that the checkpoint of `job` wrote a batch, up to offset 40 of each partition."""
        generation = self.opened(job).open_checkpoint.generation
        row = BatchRow(job, generation, batch, {"0": [0, 40], "1": [0, 40]})
        self.ledger.record(row.with_versions({str(job_tables(job).target): version}))

    def plan(self, job: str, batch: int) -> None:
        """Let the checkpoint have planned a batch, as Spark's offset log has it."""
        create_checked(open_storage(self.start(job).checkpoint_path), f"offsets/{batch}", b"v1\n{}\n{}")

    def files(self) -> dict[str, int]:
        """Every file of tables and checkpoints with its size."""
        folder = Path(self.settings.lake.root).parent
        return {
            str(file.relative_to(folder)): file.stat().st_size for file in files_below(folder, "*") if "-locks" not in str(file)
        }


@pytest.fixture(scope="module")
def tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a lake whose tables are there and empty."""
    folder = tmp_path_factory.mktemp("tables")
    settings = _settings(folder)
    for table in (BRONZE_TABLE, silver_table(read_schemas(settings.schemas_dir)), DLQ_TABLE, *GOLD):
        properties = {TOPIC_ID_PROPERTY: "topic-1"} if table is BRONZE_TABLE else {}
        delta.ensure_table(spark, table, table.name.path(settings), properties)
    return folder


@pytest.fixture
def world(spark: SparkSession, tables: Path, tmp_path: Path) -> World:
    """A lake of its own for each test."""
    shutil.copytree(tables / "lake", tmp_path / "lake")
    return World(spark, _settings(tmp_path))


def _settings(folder: Path) -> Settings:
    places = {"lake.root": str(folder / "lake"), "lake.checkpoints": str(folder / "checkpoints"), "lake.state_dir": str(folder)}
    return load_settings(None, environ={}, overrides={**places, "schemas_dir": str(SCHEMAS)})


def _source_exists(world: World) -> Start:
    shutil.rmtree(world.path(BRONZE))
    return world.start("silver")


def _contract_holds(world: World) -> Start:
    path = Path(world.path(DLQ))
    shutil.rmtree(path)
    write_deltalake(path, pa.table({"_kafka_offset": pa.array([], pa.int32())}))
    return world.start("silver")


def _topic_is_the_same(world: World) -> Start:
    return replace(world.start("bronze"), topic=replace(TOPIC, topic_id="topic-2"))


def _log_reaches_back(world: World) -> Start:
    table = DeltaTable(world.path(SILVER))
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 40 days"})
    table.create_checkpoint()
    (Path(world.path(SILVER)) / "_delta_log" / f"{0:020d}.json").unlink()
    return world.start("gold")


def _archive_is_read(world: World) -> Start:
    records.ensure(world.settings)
    now = datetime(2026, 1, 28, tzinfo=UTC)
    row = {"day": date(2026, 1, 28), "run": "r", "topic": "t", "partition": 0, "first_offset": 5, "last_offset": 7}
    rows = pa.Table.from_pylist([{**row, "archived_at": now, "expired_at": None}], records.SCHEMA)
    write_deltalake(records.table_path(world.settings), rows, mode="append")
    return world.start("silver")


def _source_keeps_what_is_next(world: World) -> Start:
    # The change feed was off for one version.
    for value in ("false", "true"):
        DeltaTable(world.path(SILVER)).alter.set_table_properties({"delta.enableChangeDataFeed": value})
    return world.opened("gold")


def _commits_are_there(world: World) -> Start:
    world.record("bronze", 0, 1)
    world.plan("bronze", 0)
    return world.opened("bronze")


def _tables_are_not_restored(world: World) -> Start:
    DeltaTable(world.path(SILVER)).alter.set_table_properties({"delta.logRetentionDuration": "interval 40 days"})
    world.record("silver", 0, 1)
    world.plan("silver", 0)
    DeltaTable(world.path(SILVER)).restore(0)
    return world.opened("silver")


def _checkpoint_is_no_old_copy(world: World) -> Start:
    world.record("silver", 3, 0)
    world.plan("silver", 2)
    return world.opened("silver")


def _kafka_keeps_what_is_unread(world: World) -> Start:
    world.record("bronze", 0, 0)
    shutil.rmtree(world.start("bronze").checkpoint_path)
    return replace(world.opened("bronze"), topic=replace(TOPIC, start={0: 41, 1: 40}))


BREAK: dict[str, tuple[Callable[[World], Start], type[LakehouseError], str]] = {
    "source-exists": (_source_exists, UsageError, "No Delta table lies at .* expected the Bronze table"),
    "contract-holds": (_contract_holds, ContractError, "_kafka_offset .* has the type int"),
    "topic-is-the-same": (_topic_is_the_same, DataLossError, "holds topic t with id topic-1, but Kafka's has id topic-2"),
    "log-reaches-back": (_log_reaches_back, UsageError, r"Gold would begin at version 0 of Silver, .* versions from 1 on alone"),
    "archive-is-read": (_archive_is_read, UsageError, r"3 records .* that Silver has not read are in Bronze's archive alone"),
    "source-keeps-what-is-next": (_source_keeps_what_is_next, ContractError, "change feed was off"),
    "commits-are-there": (_commits_are_there, DataLossError, r"ends with version 0, but the checkpoint .* had come to version 1"),
    "tables-are-not-restored": (_tables_are_not_restored, CheckpointError, r"restored to an older version \(by its version 2\)"),
    "checkpoint-is-no-old-copy": (_checkpoint_is_no_old_copy, CheckpointError, "ends at batch 2, but batch 3 .* was written"),
    "kafka-keeps-what-is-unread": (_kafka_keeps_what_is_unread, DataLossError, "partition 0, offsets 40 to 40"),
}
"""For each guard: what breaks its condition and nothing else, and what it says then."""


def test_each_guard_has_a_case() -> None:
    assert [guard.name for guard in GUARDS] == list(BREAK)


def test_each_guard_stands_in_the_documents() -> None:
    page = (PROJECT / "docs/architecture.md").read_text()
    rows = [f"| `{guard.name}` | {guard.moment.value} | {guard.holds} | {', '.join(guard.looks_at)} |" for guard in GUARDS]
    assert "\n".join(rows) in page


@pytest.mark.parametrize("name", BREAK)
def test_guard_refuses_what_it_is_for_and_changes_nothing(name: str, world: World) -> None:
    make, error, sentence = BREAK[name]
    guard = next(guard for guard in GUARDS if guard.name == name)
    start = make(world)
    before = world.files()

    with pytest.raises(error, match=sentence) as caught:
        guard.refuse(start)

    assert "\n" not in str(caught.value)
    assert world.files() == before
    assert _refusing(start, guard.moment) == [name]


@pytest.mark.parametrize("job", ["bronze", "silver", "gold"])
def test_no_guard_refuses_a_sound_start(job: str, world: World) -> None:
    start = world.start(job)
    for moment in (Moment.SOURCE, Moment.TABLES):
        assert _refusing(start, moment) == []
    assert _refusing(world.opened(job), Moment.CHECKPOINT) == []
    world.record(job, 0, 0)
    world.plan(job, 0)
    assert _refusing(world.opened(job), Moment.CHECKPOINT) == []


def test_guards_of_streams_let_a_replay_pass(world: World) -> None:
    for make in (_archive_is_read, _checkpoint_is_no_old_copy):
        start = replace(make(world), is_replay=True)
        moments = (Moment.SOURCE, Moment.TABLES) if start.checkpoint is None else (Moment.CHECKPOINT,)
        assert [name for moment in moments for name in _refusing(start, moment)] == []


def test_dry_run_mends_nothing(world: World) -> None:
    DeltaTable(world.path(BRONZE)).alter.set_table_properties({"delta.appendOnly": "false"})
    before = world.files()

    for dry_run, versions in ((True, 2), (False, 3)):
        start = replace(world.start("bronze"), is_replay=True, dry_run=dry_run)
        look_at_source(start)
        look_at_tables(start)

        assert len(DeltaTable(world.path(BRONZE)).history()) == versions
        assert (world.files() == before) is dry_run


def test_loss_on_record_is_no_reason_to_stop(world: World) -> None:
    start = _kafka_keeps_what_is_unread(world)

    record_gaps(world.settings, "t", {Gap(0, 40, 40): RETENTION})

    assert _refusing(start, Moment.CHECKPOINT) == []


@pytest.mark.parametrize("name", [guard.name for guard in GUARDS if guard.moment is not Moment.CHECKPOINT])
def test_start_that_is_refused_makes_neither_table_nor_checkpoint(name: str, world: World) -> None:
    make, error, _ = BREAK[name]
    start = make(world)
    before = world.files()

    def make_tables() -> None:
        pytest.fail("A table was made.")

    def start_up() -> None:
        look_at_source(start)
        open_start(start, make_tables)

    with pytest.raises(error):
        start_up()
    assert world.files() == before


def test_checkpoint_that_is_refused_is_free_again(world: World) -> None:
    world.record("silver", 3, 0)
    start = world.start("silver")

    for _ in range(2):  # a lock that was kept would refuse the second
        with pytest.raises(CheckpointError, match=r"ends before its first batch, but batch 3"):
            open_start(start, lambda: None)


def test_no_job_opens_a_checkpoint_beside_the_guards() -> None:
    opening = [
        str(file.relative_to(PROJECT))
        for file in sorted((PROJECT / "pipelines").rglob("*.py"))
        if any(isinstance(node, ast.Name) and node.id == "open_checkpoint" for node in ast.walk(ast.parse(file.read_text())))
    ]
    assert opening == ["pipelines/runtime/start_up.py"]


def _refusing(start: Start, moment: Moment) -> list[str]:
    """Names of the guards of a moment that refuse the start."""
    found = []
    for guard in GUARDS:
        if guard.moment is moment:
            try:
                guard.refuse(start)
            except LakehouseError:
                found.append(guard.name)
    return found
