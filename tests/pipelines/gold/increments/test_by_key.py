"""Usage by key over real tables: whatever happens to Silver or to the table, it ends as a recompute gives it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from pipelines.gold.increments import by_key, merge_here
from pipelines.gold.increments.by_key import ByKey, changed_usage
from pipelines.gold.increments.position import Move
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, Step
from pipelines.gold.schema import BY_KEY_TABLE
from pipelines.gold.transforms import build_by_key
from pipelines.lake.delta_log.history import newest_commits
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import GOLD_BY_KEY
from pipelines.runtime import delta
from tests.books import Books
from tests.random_steps import run_random_steps

LIMITS = Limits(step_bytes=1_000_000, recompute_bytes=100_000_000)


def read(usage: DataFrame) -> list[Row]:
    """In an order of its own; hours as texts, for Python's calendar does not have all of them."""
    return sorted(usage.withColumn("hour", F.col("hour").cast("string")).collect(), key=repr)


class Followed:
    """The table beside a Silver that anything may happen to."""

    def __init__(self, books: Books, limits: Limits = LIMITS) -> None:
        self.books, self.spark = books, books.spark
        self.silver, self.path = books.paths.silver, GOLD_BY_KEY.path(books.settings)
        delta.ensure_table(self.spark, BY_KEY_TABLE, self.path)
        self.table = ByKey(self.silver, self.path, limits)

    def step(self) -> Step:
        return self.table.step(self.spark, self.version)

    def settle(self) -> list[Step]:
        steps: list[Step] = []
        while not isinstance(step := self.step(), Idle):
            steps.append(step)
            assert len(steps) < 100
        return steps

    def sql(self, statement: str) -> None:
        self.spark.sql(statement.format(silver=f"delta.`{self.silver}`", gold=f"delta.`{self.path}`"))

    def compact_and_vacuum(self) -> None:
        table = DeltaTable(self.silver)
        table.optimize.compact()
        table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)

    @property
    def version(self) -> int:
        return DeltaTable(self.silver).version()

    def usage(self) -> list[Row]:
        return read(self.spark.read.format("delta").load(self.path))

    def wanted(self) -> list[Row]:
        return read(build_by_key(self.spark.read.format("delta").load(self.silver)))

    def is_right(self) -> bool:
        return self.usage() == self.wanted()


@pytest.fixture
def followed(books: Books) -> Followed:
    return Followed(books)


@pytest.mark.parametrize("few_keys", [20_000, 0], ids=["few", "many"])
def test_usage_follows_what_silver_gets_loses_and_changes(books: Books, few_keys: int) -> None:
    followed = Followed(books, replace(LIMITS, few_keys=few_keys))
    books.add({"event_id": "e1"}, {"event_id": "e2", "at": 11, "customer_id": "c2"}, {"event_id": "e3", "api_key_id": "k2"})
    [first] = followed.settle()
    assert first == Recompute(followed.version, "its log holds no position")
    assert followed.is_right()
    assert len(followed.usage()) == 3

    before = followed.version
    books.add({"event_id": "e4", "status_code": 500})
    # By both writers of Silver's changes: Spark, and deltalake where rows are few.
    followed.sql("UPDATE {silver} SET request_bytes = 7 WHERE event_id = 'e1'")
    DeltaTable(followed.silver).update(updates={"api_key_id": "'k3'"}, predicate="event_id = 'e3'")
    followed.sql("DELETE FROM {silver} WHERE event_id = 'e2'")
    assert followed.settle() == [Apply(before, before + 4)]
    assert followed.is_right()
    assert [(row["api_key_id"], row["event_count"], row["request_bytes"]) for row in followed.usage()] == [
        ("k1", 2, 107),
        ("k3", 1, 100),
    ]

    # Nothing to take over costs no commit: OPTIMIZE changes no row, nor do properties.
    commits = DeltaTable(followed.path).version()
    followed.sql("OPTIMIZE {silver}")
    followed.sql("ALTER TABLE {silver} SET TBLPROPERTIES ('lakehouse.note' = 'x')")
    assert followed.settle() == []
    assert DeltaTable(followed.path).version() == commits
    followed.sql("OPTIMIZE {gold}")
    assert followed.settle() == []


def test_versions_are_taken_whole_and_as_many_as_the_limit_lets(books: Books) -> None:
    followed = Followed(books, Limits(step_bytes=20_000, recompute_bytes=10_000_000))
    followed.settle()
    for number in range(6):
        books.add(*({"event_id": f"e{number}-{n}", "at": n % 20} for n in range(20)))
    steps = followed.settle()
    assert len(steps) > 1
    assert all(isinstance(step, Apply) for step in steps)
    assert followed.is_right()


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("INSERT INTO {gold} SELECT * FROM {gold} LIMIT 1", "written by somebody else"),
        ("UPDATE {gold} SET hour = NULL WHERE api_key_id = 'k1'", "written by somebody else"),
        ("DELETE FROM {gold} WHERE true", "written by somebody else"),
        ("RESTORE TABLE {gold} TO VERSION AS OF 1", "(RESTORE) was written by somebody else"),
        ("RESTORE TABLE {silver} TO VERSION AS OF 1", "is a RESTORE"),
        ("ALTER TABLE {silver} SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'false')", "switched the change feed off"),
    ],
)
def test_what_voids_the_position_has_the_days_that_differ_recomputed(followed: Followed, what: str, why: str) -> None:
    followed.books.add({"event_id": "e1"}, {"event_id": "e2", "api_key_id": "k2"})
    followed.settle()
    followed.books.add({"event_id": "e3"})
    followed.settle()
    followed.sql(what)

    [step] = followed.settle()
    assert isinstance(step, Recompute)
    assert why in step.why
    assert followed.is_right()


def test_log_that_was_cleaned_has_it_recomputed(followed: Followed) -> None:
    followed.books.add({"event_id": "e1"})
    followed.settle()
    followed.books.add({"event_id": "e2"})
    followed.books.add({"event_id": "e3"})
    table = DeltaTable(followed.silver)
    table.create_checkpoint()
    (Path(followed.silver) / "_delta_log" / f"{table.version() - 1:020d}.json").unlink()
    [step] = followed.settle()
    assert step == Recompute(followed.version, f"the log of its source has no version {followed.version - 1} any more")
    assert followed.is_right()


def test_feed_whose_files_are_gone_has_it_recomputed(followed: Followed) -> None:
    followed.books.add({"event_id": "e1"})
    followed.settle()
    followed.books.add({"event_id": "e2"})
    followed.books.add({"event_id": "e3"})
    followed.compact_and_vacuum()
    [step] = followed.settle()
    assert isinstance(step, Recompute)
    assert "cannot be read: files that it added were compacted and then deleted" in step.why
    assert followed.is_right()


def test_file_of_silver_itself_that_is_gone_is_no_gap(followed: Followed) -> None:
    followed.settle()
    followed.books.add({"event_id": "e1"})
    [uri] = DeltaTable(followed.silver).file_uris()
    Path(uri).unlink()
    with pytest.raises((PySparkException, Py4JJavaError)):
        followed.step()


def test_another_silver_has_it_recomputed(followed: Followed) -> None:
    followed.books.add({"event_id": "e1"}, {"event_id": "e2"})
    followed.settle()
    another = str(Path(followed.silver).with_name("another"))
    rows = followed.spark.read.format("delta").load(followed.silver).where("event_id = 'e1'")
    rows.write.format("delta").option("delta.enableChangeDataFeed", "true").save(another)

    table = ByKey(another, followed.path, LIMITS)
    assert isinstance(table.step(followed.spark, 0), Recompute)
    assert table.step(followed.spark, 0) == Idle()
    assert followed.usage() == read(build_by_key(rows))
    # The other way round, it is the first Silver that the table does not stand for.
    assert isinstance(followed.step(), Recompute)
    assert followed.is_right()


def test_silver_that_was_put_back_from_a_backup_has_it_recomputed(followed: Followed, tmp_path: Path) -> None:
    followed.books.add({"event_id": "e1"})
    followed.settle()
    backup = tmp_path / "backup"
    shutil.copytree(followed.silver, backup)
    followed.books.add({"event_id": "e2"})
    followed.settle()
    shutil.rmtree(followed.silver)
    shutil.copytree(backup, followed.silver)
    jvm: Any = followed.spark._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    followed.spark.catalog.clearCache()

    came_to = followed.version
    [step] = followed.settle()
    assert step == Recompute(came_to, f"it stands for version {came_to + 1} of its source, which has come to {came_to} only")
    assert followed.is_right()


def test_checkpoint_of_the_log_that_deltalake_writes_keeps_the_position(followed: Followed) -> None:
    followed.settle()
    followed.books.add({"event_id": "e1"})
    followed.settle()
    DeltaTable(followed.path).create_checkpoint()
    jvm: Any = followed.spark._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    assert followed.settle() == []
    followed.books.add({"event_id": "e2"})
    assert followed.settle() == [Apply(followed.version - 1, followed.version)]
    assert followed.is_right()


def test_measures_that_are_defined_otherwise_have_it_recomputed(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    followed.books.add({"event_id": "e1"})
    followed.settle()
    monkeypatch.setattr(by_key, "DEFINITION", "another")
    [step] = followed.settle()
    assert step == Recompute(followed.version, "version 1 holds the position of another source, or of measures defined otherwise")
    followed.books.add({"event_id": "e2"})
    assert followed.settle() == [Apply(followed.version - 1, followed.version)]
    assert followed.is_right()


def test_two_tables_follow_one_silver_each_at_its_own_position(followed: Followed) -> None:
    followed.books.add({"event_id": "e1"})
    followed.settle()
    path = str(Path(followed.path).with_name("other"))
    delta.ensure_table(followed.spark, BY_KEY_TABLE, path)
    other = ByKey(followed.silver, path, LIMITS)
    for number in range(3):
        followed.books.add({"event_id": f"f{number}"})
        (followed.table if number % 2 else other).follow(followed.spark)
    followed.settle()
    assert other.follow(followed.spark) == followed.version
    assert read(followed.spark.read.format("delta").load(path)) == followed.wanted() == followed.usage()


def test_second_writer_that_started_from_the_same_position_writes_nothing(followed: Followed) -> None:
    followed.settle()
    app_id, held = _position(followed)
    followed.books.add({"event_id": "e1"})
    rows = build_by_key(followed.spark.read.format("delta").load(followed.silver))

    def take() -> int | None:
        return delta.advance(rows, followed.path, app_id=app_id, expected=held, to=held + 1, metadata={})

    assert take() is not None
    assert take() is None
    assert followed.is_right()


class Overtaken(ByKey):
    """A writer that a rival overtakes once it has looked, before it writes."""

    def _apply(self, spark: SparkSession, step: Apply, move: Move) -> None:
        self._rival(spark, step.upto)
        super()._apply(spark, step, move)

    def _recompute(self, spark: SparkSession, step: Recompute, move: Move) -> None:
        self._rival(spark, step.version)
        super()._recompute(spark, step, move)

    def _rival(self, spark: SparkSession, to: int) -> None:
        assert not isinstance(ByKey(self.silver, self.path, self.limits).step(spark, to), Idle)


def test_rival_that_moves_the_position_during_a_merge_fails_its_commit(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed.settle()
    followed.books.add({"event_id": "e1"})
    before = DeltaTable(followed.path)
    followed.settle()
    app_id, to = _position(followed)
    changed = changed_usage(followed.spark, followed.silver, to - 1, to).toArrow()
    monkeypatch.setattr(merge_here, "open_writable", lambda _path: before)
    with pytest.raises(DeltaError, match=r"[Cc]oncurrent transaction"):
        merge_here.add(followed.path, changed, Move(app_id, to - 1, to, before.version()))
    assert followed.is_right()


def test_hours_beyond_what_sql_can_name_and_keys_of_nothing_are_taken_over(followed: Followed) -> None:
    followed.settle()
    followed.sql(
        "INSERT INTO {silver} (event_id, event_timestamp, _event_date, request_bytes) VALUES "
        "('e1', timestamp_seconds(253402300800), date_from_unix_date(2932897), 7), "
        "('e2', timestamp_seconds(-70000000000), date_from_unix_date(-810186), 8), ('e3', NULL, NULL, 9)"
    )
    assert followed.settle() == [Apply(followed.version - 1, followed.version)]
    assert followed.is_right()


@pytest.mark.parametrize("begins", ["applies", "recomputes"])
def test_step_that_a_rival_overtakes_takes_nothing_over_twice(followed: Followed, begins: str) -> None:
    followed.settle()
    followed.books.add({"event_id": "e1"})
    if begins == "recomputes":
        followed.settle()
        followed.sql("DELETE FROM {gold} WHERE true")
    before = DeltaTable(followed.path).version()

    Overtaken(followed.silver, followed.path, LIMITS).step(followed.spark, followed.version)

    # A recompute of the same version puts the same rows in the place of the rival's: it may be written again.
    assert begins == "recomputes" or DeltaTable(followed.path).version() == before + 1
    assert followed.is_right()


def _position(followed: Followed) -> tuple[str, int]:
    newest = next(newest_commits(followed.path, DeltaTable(followed.path).version()))
    ((app_id, held),) = newest.transactions.items()
    return app_id, held


class TableLife(RuleBasedStateMachine):
    """Random steps on real tables; after each, a table that was settled says what a recompute says."""

    make: ClassVar[Callable[[], Followed]]
    keys = st.sampled_from(["k1", "k2"])
    hours = st.integers(0, 3)

    @initialize()
    def begin(self) -> None:
        self.followed = type(self).make()
        self.events = 0
        self.is_settled = False

    def _changed(self) -> None:
        self.is_settled = False

    @rule(keys=st.lists(keys, min_size=1, max_size=3), hour=hours, size=st.integers(0, 9))
    def insert(self, keys: list[str], hour: int, size: int) -> None:
        self._changed()
        rows: list[dict[str, Any]] = [
            {"event_id": f"e{self.events + n}", "at": hour, "api_key_id": key, "request_bytes": size}
            for n, key in enumerate(keys)
        ]
        self.events += len(keys)
        self.followed.books.add(*rows)

    @rule(which=st.integers(0, 20), size=st.integers(0, 9), by_spark=st.booleans())
    def replace(self, which: int, size: int, by_spark: bool) -> None:
        self._changed()
        if by_spark:
            self.followed.sql(f"UPDATE {{silver}} SET request_bytes = {size} WHERE event_id = 'e{which}'")  # noqa: S608
        else:
            DeltaTable(self.followed.silver).update(updates={"request_bytes": str(size)}, predicate=f"event_id = 'e{which}'")

    @rule(which=st.integers(0, 20))
    def delete(self, which: int) -> None:
        self._changed()
        self.followed.sql(f"DELETE FROM {{silver}} WHERE event_id = 'e{which}'")  # noqa: S608

    @rule(table=st.sampled_from(["{silver}", "{gold}"]))
    def optimize(self, table: str) -> None:
        self.followed.sql(f"OPTIMIZE {table}")

    @rule()
    def compact_and_vacuum(self) -> None:
        self.followed.compact_and_vacuum()

    @rule(table=st.sampled_from(["silver", "path"]), back=st.integers(1, 3))
    def restore(self, table: str, back: int) -> None:
        found = DeltaTable(getattr(self.followed, table))
        if found.version():
            self._changed()
            with suppress(DeltaError):  # files of that version are gone
                found.restore(max(0, found.version() - back))

    @rule(hour=hours)
    def stranger_writes(self, hour: int) -> None:
        self._changed()
        self.followed.sql(f"UPDATE {{gold}} SET event_count = event_count + 1 WHERE hour(hour) = {hour}")  # noqa: S608

    @rule()
    def step(self) -> None:
        self.followed.step()

    @rule()
    def settle(self) -> None:
        self.followed.settle()
        self.is_settled = True

    @invariant()
    def usage_is_what_a_recompute_gives(self) -> None:
        if getattr(self, "is_settled", False):
            assert self.followed.is_right()


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_table_says_what_a_recompute_says(spark: SparkSession, tmp_path: Path, books: Books, fault_seed: int) -> None:
    made: list[Path] = []

    def make() -> Followed:
        folder = tmp_path / f"life{len(made)}"
        made.append(folder)
        shutil.copytree(books.settings.lake.root, folder / "lake")
        overrides = {"lake.root": str(folder / "lake"), "lake.state_dir": str(folder)}
        return Followed(Books(spark, load_settings(None, environ={}, overrides=overrides)))

    TableLife.make = staticmethod(make)
    run_random_steps(TableLife, fault_seed, runs=10, steps=20)
