"""`lakehouse up` on real Spark streams: one that fails is started again alone, and gives up with a named error."""

from __future__ import annotations

import errno
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from lakehouse.operations import streams
from lakehouse.operations.streams import run_live, run_to_end
from pipelines.lake.checkpoint.failures import NAME
from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.errors import EXIT_HELD, BreakerOpenError, DataLossError, StreamFailedError, TransientError
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime.stream_life import set_trigger
from pipelines.silver.breaker.breaker import Tally
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition

BATCHES = 5
Fails = Callable[[int, int], Exception | None]
"""The error of a batch at its n-th attempt (from 1), None where it succeeds."""


def _never(_batch: int, _attempt: int) -> Exception | None:
    return None


@dataclass
class Stream:
    """A stream of five batches, one file each; its sink fails as it is told to."""

    name: str
    folder: Path
    fails: Fails = _never
    starts: int = 0
    start_fails: dict[int, Exception] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    done: list[int] = field(default_factory=list)
    finished: threading.Event = field(default_factory=threading.Event)

    def run(self, spark: SparkSession, settings: Settings, *, trigger: str = "50 milliseconds") -> StreamingQuery:
        self.starts += 1
        if self.starts in self.start_fails:
            raise self.start_fails[self.starts]
        path = checkpoint_path_of(settings, self.name, None)
        open_checkpoint(path, job=self.name, source="files", target="none").lock.release()
        rows = spark.readStream.schema("value string").option("maxFilesPerTrigger", 1).text(str(self.folder))
        writer = rows.writeStream.option("checkpointLocation", path).foreachBatch(self.write)
        return set_trigger(writer, trigger).start()

    def write(self, _batch: DataFrame, batch_id: int) -> None:
        self.attempts[batch_id] += 1
        error = self.fails(batch_id, self.attempts[batch_id])
        if error is not None:
            raise error
        self.done.append(batch_id)
        if len(self.done) == BATCHES:
            self.finished.set()


@dataclass
class Driver:
    """What `lakehouse up` has: settings and streams `a` and `b`."""

    spark: SparkSession
    settings: Settings
    a: Stream
    b: Stream
    stop: threading.Event = field(default_factory=threading.Event)

    def live(self) -> None:
        """Run both until both are finished, or one has given up."""
        waiter = threading.Thread(target=self._stop_when_finished, daemon=True)
        waiter.start()
        try:
            run_live(self.spark, self.settings, ["a", "b"], self.stop)
        finally:
            self.a.finished.set()
            self.b.finished.set()
            waiter.join()
        assert not self.spark.streams.active

    def _stop_when_finished(self) -> None:
        self.a.finished.wait(60)
        self.b.finished.wait(60)
        self.stop.set()


@pytest.fixture
def driver(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(BATCHES):
        (source / f"{number}.txt").write_text("row")
    overrides = {
        "lake.root": str(tmp_path / "lake"),
        "lake.checkpoints": str(tmp_path / "checkpoints"),
        "retries.attempts": 3,
        "retries.first_wait_seconds": 0.05,
        "breaker.cool_down_seconds": 3600,
    }
    a, b = Stream("a", source), Stream("b", source)
    monkeypatch.setattr(streams, "STREAMS", {"a": a.run, "b": b.run})
    return Driver(spark, load_settings(None, environ={}, overrides=overrides), a, b)


def test_stream_that_fails_is_started_again_alone_and_each_batch_counts_for_itself(driver: Driver) -> None:
    def fails(batch: int, attempt: int) -> Exception | None:
        return ConnectionResetError("x") if batch in (1, 3) and attempt <= 2 else None

    driver.a.fails = fails
    driver.live()

    assert (driver.a.done, driver.b.done) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    assert (driver.a.starts, driver.b.starts) == (5, 1)
    record = json.loads(Path(f"{driver.settings.lake.checkpoints}/a/g1/{NAME}").read_text())
    assert (record["batch"], record["count"]) == (3, 2)


def test_batch_that_fails_too_often_ends_all_with_a_named_error(driver: Driver) -> None:
    driver.a.fails = lambda batch, _attempt: ConnectionResetError("x") if batch == 1 else None

    with pytest.raises(
        StreamFailedError, match=r"Stream a failed 3 times in a row in batch 1 with ConnectionResetError .*playbooks/"
    ):
        driver.live()

    assert (driver.a.starts, driver.b.starts) == (3, 1)
    assert driver.b.attempts.total() == len(driver.b.done)  # drained, not cut


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (PermissionError(13, "no"), StreamFailedError, r"Stream a failed in batch 1 with \w+ \(permanent: access is refused\)"),
        (DataLossError("Offsets 5 to 9 are gone."), DataLossError, r"^Offsets 5 to 9 are gone\.$"),
    ],
)
def test_permanent_error_ends_all_at_once(driver: Driver, error: Exception, kind: type[Exception], said: str) -> None:
    driver.a.fails = lambda batch, _attempt: error if batch == 1 else None

    with pytest.raises(kind, match=said):
        driver.live()

    assert driver.a.starts == 1


def test_restart_that_fails_counts_like_the_batch(driver: Driver) -> None:
    driver.a.fails = lambda batch, attempt: ConnectionResetError("x") if (batch, attempt) == (1, 1) else None
    driver.a.start_fails = {2: TransientError("No broker.")}
    driver.live()
    assert (driver.a.starts, driver.a.done) == (3, [0, 1, 2, 3, 4])


def test_first_start_that_fails_is_raised_and_the_other_stream_is_drained(driver: Driver) -> None:
    driver.b.start_fails = {1: TransientError("No broker.")}
    with pytest.raises(TransientError, match="No broker"):
        driver.live()
    assert driver.b.starts == 1


def test_disk_that_keeps_a_stream_from_starting_is_named(driver: Driver) -> None:
    driver.b.start_fails = {1: PermissionError(errno.EACCES, "Permission denied")}
    with pytest.raises(StreamFailedError, match=r"Stream b failed in batch 0 with EACCES \(permanent: access is refused\)"):
        driver.live()
    assert driver.b.starts == 1


def _open_breaker(driver: Driver) -> BreakerStore:
    store = BreakerStore(driver.settings)
    store.append(Transition(datetime.now(UTC), "closed", "open", Tally(10, 10), "test"))
    return store


def test_held_stream_waits_for_the_reset_while_the_other_goes_on(driver: Driver) -> None:
    store = _open_breaker(driver)

    def fails(batch: int, _attempt: int) -> Exception | None:
        last = store.last()
        return BreakerOpenError("Held.") if batch == 1 and last is not None and last.to_state == "open" else None

    def reset() -> None:
        driver.b.finished.wait(60)
        store.append(Transition(datetime.now(UTC) + timedelta(seconds=1), "open", "closed", Tally(), "reset: test"))

    driver.a.fails = fails
    operator = threading.Thread(target=reset)
    operator.start()
    driver.live()
    operator.join()

    assert driver.a.done == [0, 1, 2, 3, 4]
    assert (driver.a.starts, driver.b.starts) == (2, 1)
    assert not Path(f"{driver.settings.lake.checkpoints}/a/g1/{NAME}").exists()  # no failure


def test_run_to_the_end_tries_again_but_waits_for_no_breaker(driver: Driver) -> None:
    driver.a.fails = lambda batch, attempt: ConnectionResetError("x") if batch == 2 and attempt == 1 else None
    driver.b.fails = lambda _batch, _attempt: BreakerOpenError("Held.")

    with pytest.raises(BreakerOpenError) as caught:
        run_to_end(driver.spark, driver.settings, ["a", "b"], driver.stop)

    assert caught.value.exit_code == EXIT_HELD
    assert (driver.a.starts, driver.a.done) == (2, [0, 1, 2, 3, 4])
    assert driver.b.starts == 1
