"""Failures of one batch are counted in the checkpoint, so that a process that was started again knows of them."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from pipelines.lake.checkpoint.failures import NAME, BatchFailures
from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.errors import BreakerOpenError, DataLossError, LeaseHeldError, StreamFailedError, TransientError
from pipelines.lake.settings import Settings
from pipelines.runtime import jobs
from pipelines.runtime.flags import job_parser


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that has committed its first two batches."""
    path = tmp_path / "silver" / "g1"
    open_checkpoint(str(path), job="silver", source="a", target="b")
    (path / "commits").mkdir()
    for batch in (0, 1):
        (path / "commits" / str(batch)).write_text("v1\n{}")
    return path


def test_another_process_goes_on_counting_and_another_batch_begins_anew(checkpoint: Path) -> None:
    for count in (1, 2, 3):
        failure = BatchFailures("silver", str(checkpoint)).note(ConnectionResetError("x"))
        assert (failure.batch_id, failure.count, failure.is_final(3)) == (2, count, count == 3)
    assert BatchFailures("silver", str(checkpoint)).count(2) == 3
    (checkpoint / "commits" / "2").write_text("v1\n{}")
    assert BatchFailures("silver", str(checkpoint)).note(ConnectionResetError("x")).count == 1
    record = json.loads((checkpoint / NAME).read_text())
    assert (record["batch"], record["count"], record["cause"]) == (3, 1, "ConnectionResetError")


def test_start_by_hand_forgets(checkpoint: Path) -> None:
    failures = BatchFailures("silver", str(checkpoint))
    failures.note(ConnectionResetError("x"))
    failures.forget()
    assert not (checkpoint / NAME).exists()
    assert failures.note(ConnectionResetError("x")).count == 1


def test_file_that_was_cut_begins_anew(checkpoint: Path) -> None:
    (checkpoint / NAME).write_text('{"batch": 2, "cou')
    assert BatchFailures("silver", str(checkpoint)).note(ConnectionResetError("x")).count == 1


def test_folder_that_is_no_checkpoint_yet_is_left_alone(tmp_path: Path) -> None:
    failures = BatchFailures("bronze", str(tmp_path / "none"))
    assert [failures.note(TransientError("No broker.")).count for _ in range(2)] == [1, 2]
    assert not (tmp_path / "none").exists()


def test_checkpoint_that_cannot_be_read_counts_as_the_same_batch(spark: SparkSession) -> None:
    failures = BatchFailures("silver", "nowhere://bucket/checkpoint")
    assert [failures.note(ConnectionResetError("x")).count for _ in range(3)] == [1, 2, 3]
    assert "failed 4 times in a row in a batch with" in str(failures.note(ConnectionResetError("x")).error())


def test_error_names_stream_batch_cause_and_playbook(checkpoint: Path) -> None:
    failures = BatchFailures("silver", str(checkpoint))
    for _ in range(2):
        error = failures.note(ConnectionResetError("payload")).error()
    assert isinstance(error, StreamFailedError)
    assert str(error) == (
        "Stream silver failed 2 times in a row in batch 2 with ConnectionResetError (transient: the object store or the network "
        "does not answer); nothing is lost, its offsets did not advance: see playbooks/object-store-outage.md."
    )


def test_holder_of_a_lease_is_named_however_often_it_is_waited_for(checkpoint: Path) -> None:
    failures = BatchFailures("silver", str(checkpoint))
    held = LeaseHeldError("The lease was not free within 3 s, dlq (run b, pid 7) holds it; let that one end.")
    assert failures.note(held).error() is held
    again = str(failures.note(held).error())
    assert again.startswith("Stream silver failed 2 times in a row in batch 2 with LeaseHeldError (transient: another writer")
    assert again.endswith(f"see playbooks/spark-crash.md. The last time: {held}")


def test_sentence_of_the_project_stays_as_it_is(checkpoint: Path) -> None:
    failures = BatchFailures("silver", str(checkpoint))
    for error in (DataLossError("Gone for good."), BreakerOpenError("Held.")):
        assert failures.note(error).error() is error
    assert failures.count(2) == 1  # a breaker that is open is no failure


def _no_replay(*_args: Any, **_options: Any) -> None:
    pytest.fail("this is no replay")


def test_job_that_kubernetes_starts_again_says_how_often_the_batch_failed(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(yaml.safe_dump({"lake": {"checkpoints": str(tmp_path / "checkpoints")}}))
    source = spark.readStream.format("rate").load()

    def fail(_batch: DataFrame, _id: int) -> None:
        raise ConnectionResetError

    def run(session: SparkSession, _settings: Settings, *, checkpoint_path: str, **_options: Any) -> StreamingQuery:
        open_checkpoint(checkpoint_path, job="silver", source="a", target="b")
        return source.writeStream.option("checkpointLocation", checkpoint_path).foreachBatch(fail).start()

    monkeypatch.setattr(jobs, "stop_on_signals", threading.Event)  # the signals are pytest's
    said = []
    for _ in range(2):
        argv = ["--config", str(config), "--checkpoint-path", str(tmp_path / "checkpoint")]
        assert jobs.run_stream(run, _no_replay, "silver", job_parser("A job."), argv) == 1
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert said[0].startswith("error: Stream silver failed in batch 0 with ConnectionResetError")
    assert said[1].startswith("error: Stream silver failed 2 times in a row in batch 0 with ConnectionResetError")
