"""What users give the jobs: offsets and triggers that are understood, and one sentence for those that are not."""

from __future__ import annotations

import argparse
import errno
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
from pyspark.errors import AnalysisException, StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming import StreamingQuery

from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.errors import CheckpointError, DataLossError, TransientError, UsageError
from pipelines.lake.lease.checkpoints import CheckpointLock, checkpoint_holder
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime import jobs
from pipelines.runtime.failures import named_error
from pipelines.runtime.flags import job_parser, parse_offsets
from pipelines.runtime.stream_life import BatchFunction, await_query, drain, set_trigger, start_stream


def test_offsets_are_read_by_partition() -> None:
    assert parse_offsets('{"0": 123456, "1": 0}') == {0: 123456, 1: 0}
    assert parse_offsets(None) is None


@pytest.mark.parametrize(
    "text",
    ["", "x", "{", "[]", "5", "null", "{}", '{"0": -1}', '{"0": 1.5}', '{"0": "5"}', '{"0": true}', '{"a": 1}', '{"0": null}'],
)
def test_offsets_that_are_none_are_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"--starting-offsets .*expected JSON such as") as caught:
        parse_offsets(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "now", "availableNow", "1", "1 parsec", "-1 second", "1 second; 2", "1.5 minutes"])
def test_trigger_that_is_not_known_is_one_sentence(spark: SparkSession, text: str) -> None:
    writer = spark.readStream.format("rate").load().writeStream

    with pytest.raises(UsageError, match="give `available-now` or an interval"):
        set_trigger(writer, text)


@pytest.mark.parametrize("text", ["available-now", "1 second", "500 milliseconds", " 2 hours ", "10 seconds"])
def test_triggers_that_are_known_are_taken(spark: SparkSession, text: str) -> None:
    writer = spark.readStream.format("rate").load().writeStream

    assert set_trigger(writer, text) is writer


def test_checkpoint_path_is_the_given_one_or_the_first_generation(tmp_path: Path) -> None:
    settings = load_settings(None, environ={}, overrides={"lake.checkpoints": f"{tmp_path}/points/"})

    assert checkpoint_path_of(settings, "silver", None) == f"{tmp_path}/points/silver/g1"
    assert checkpoint_path_of(settings, "silver", "/x/y/") == "/x/y"
    # As a plain path, so that a second driver on it is refused.
    assert checkpoint_path_of(settings, "silver", "file:///x/y") == "/x/y"


def test_checkpoint_path_is_the_newest_generation_of_the_job(tmp_path: Path) -> None:
    for name in ("g1", "g2", "g10", "repair-1", "gold"):
        (tmp_path / "silver" / name).mkdir(parents=True)
    settings = load_settings(None, environ={}, overrides={"lake.checkpoints": str(tmp_path)})

    assert checkpoint_path_of(settings, "silver", None) == f"{tmp_path}/silver/g10"
    assert checkpoint_path_of(settings, "bronze", None) == f"{tmp_path}/bronze/g1"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("Found a."), 2),
        (CheckpointError("Found b."), 2),
        (TransientError("Found c."), 1),
        (DataLossError("Found d."), 1),
    ],
)
def test_own_errors_end_a_job_with_their_sentence_and_code(
    error: Exception, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")

    def main(_args: argparse.Namespace, _settings: Settings) -> None:
        raise error

    assert jobs.run_job(main, job_parser("A job."), ["--config", str(tmp_path / "empty.yaml")]) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_missing_settings_file_is_one_sentence_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def main(_args: argparse.Namespace, _settings: Settings) -> None:
        raise AssertionError

    assert jobs.run_job(main, job_parser("A job."), ["--config", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_own_sentence_inside_sparks_error_wins() -> None:
    text = "Py4JException: trace\n  File x\npipelines.lake.errors.DataLossError: Bronze says so.\n at java"
    named = named_error(RuntimeError(text))

    assert (type(named), str(named)) == (DataLossError, "Bronze says so.")


def test_sparks_error_is_one_sentence_with_its_condition(spark: SparkSession) -> None:
    with pytest.raises(AnalysisException) as caught:
        spark.sql("SELECT nothing FROM nowhere")
    named = named_error(caught.value)

    assert "TABLE_OR_VIEW_NOT_FOUND" in str(named)
    assert "\n" not in str(named)
    assert named.exit_code == 1


def test_mistake_of_the_project_is_one_sentence_and_its_trace_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.yaml").write_text(f"lake: {{state_dir: {tmp_path}}}\n")

    def main(_args: argparse.Namespace, _settings: Settings) -> None:
        known: dict[str, int] = {}
        known["cust-4711"] += 1

    assert jobs.run_job(main, job_parser("A job."), ["--config", str(tmp_path / "s.yaml")]) == 1
    said = capsys.readouterr().err
    (trace,) = (tmp_path / "errors").iterdir()
    assert said == (
        "error: It stopped with KeyError (unknown: nobody has foreseen this error); see its trace in "
        f"{trace}, then playbooks/unknown-error.md.\n"
    )
    assert f"{__file__}:" in trace.read_text()
    assert "cust-4711" not in trace.read_text()


def test_words_of_spark_are_shown_unless_a_record_may_have_them(spark: SparkSession) -> None:
    with pytest.raises(Exception, match="maxColumns") as of_the_driver:
        spark.read.format("csv").option("maxColumns", "zz").load(__file__).collect()
    with pytest.raises(Exception, match="cust-4711") as of_a_task:
        spark.range(1).select(F.raise_error(F.concat(F.lit("cust-4711"), F.col("id").cast("string")))).collect()

    assert "maxColumns should be an integer. Found zz.; see its trace in" in str(named_error(of_the_driver.value))
    assert "cust-4711" not in str(named_error(of_a_task.value))


def test_what_the_batch_function_raised_is_the_cause_of_the_streams_failure(spark: SparkSession, tmp_path: Path) -> None:
    def fail(_batch: DataFrame, _id: int) -> None:
        raise KeyError(0)

    writer = spark.readStream.format("rate").load().writeStream.option("checkpointLocation", str(tmp_path))
    query = start_stream(writer, fail, "1 second", CheckpointLock())
    with pytest.raises(StreamingQueryException) as caught:
        await_query(query, threading.Event())

    assert isinstance(caught.value.__cause__, KeyError)


def test_checkpoint_is_free_when_its_stream_has_ended_however_it_ended(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "g1")

    def fail(_batch: DataFrame, _id: int) -> None:
        assert checkpoint_holder(path) is not None
        raise KeyError(0)

    def start(write: BatchFunction, trigger: str, location: str = path) -> StreamingQuery:
        writer = spark.readStream.format("rate").load().writeStream.option("checkpointLocation", location)
        return start_stream(writer, write, trigger, open_checkpoint(path, job="j", source="s", target="t").lock)

    for _ in range(2):  # a supervisor starts it again in the same process
        with pytest.raises(StreamingQueryException):
            await_query(start(fail, "1 second"), threading.Event())
        assert checkpoint_holder(path) is None
    with pytest.raises(UsageError, match="give `available-now` or an interval") as kept:
        start(fail, "now")
    assert checkpoint_holder(path) is None
    stop = threading.Event()
    stop.set()
    query = start(lambda _batch, _id: None, "1 hour", str(tmp_path / "g2"))
    assert checkpoint_holder(path) is not None
    await_query(query, stop)
    assert checkpoint_holder(path) is None
    assert kept.value.__traceback__ is not None


def test_file_system_that_refuses_is_one_sentence_with_its_playbook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.yaml").write_text("")

    def main(_args: argparse.Namespace, _settings: Settings) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/lake/lakehouse.lock")

    assert jobs.run_job(main, job_parser("A job."), ["--config", str(tmp_path / "empty.yaml")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: It stopped with EROFS (permanent: access is refused): ")
    assert said.endswith("see the log, then playbooks/object-store-outage.md.\n")
    assert said.count("\n") == 1


def test_dry_run_of_a_start_without_an_end_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.yaml").write_text("")
    monkeypatch.setattr(jobs, "stop_on_signals", threading.Event)  # the signals are pytest's

    def never(*_args: object, **_options: object) -> NoReturn:
        raise AssertionError

    argv = ["--config", str(tmp_path / "empty.yaml"), "--starting-offsets", '{"0":1}', "--dry-run"]
    assert jobs.run_stream(never, never, "silver", job_parser("A job."), argv) == 2
    said = capsys.readouterr().err
    assert "what it would read up to now, give --ending-offsets" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("trigger", "seconds"), [("1 hour", 0.0), ("300 milliseconds", 0.6)], ids=["at rest", "always behind"])
def test_stream_is_drained_when_its_batch_has_ended(spark: SparkSession, tmp_path: Path, trigger: str, seconds: float) -> None:
    begun: list[int] = []
    done: list[int] = []

    def batch(rows: DataFrame, batch_id: int) -> None:
        begun.append(batch_id)
        rows.count()
        time.sleep(seconds)
        done.append(batch_id)

    rows = spark.readStream.format("rate").option("rowsPerSecond", 100).load()
    writer = rows.writeStream.option("checkpointLocation", str(tmp_path)).foreachBatch(batch)
    query = writer.trigger(processingTime=trigger).start()
    while not done or (seconds and len(begun) == len(done)):
        time.sleep(0.01)
    running = begun[-1]
    drain(query, rest_seconds=0)

    assert running in done
    # Of one that is behind the next has begun, and may have been cut; no other has.
    assert max(begun) <= running + 1
    assert not query.isActive
    assert query.exception() is None
    assert (tmp_path / "commits" / str(running)).exists()
