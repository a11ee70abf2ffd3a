"""Leases: one writer at a time, gone with its holder, and noticed by the next."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.lake.errors import LeaseHeldError, UsageError
from pipelines.lake.lease.checkpoints import CHECKPOINT_LOCK, checkpoint_holder, lock_checkpoint
from pipelines.lake.lease.layers import lease_of, leases_held
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings

_HOLD = """
import sys, time
from pipelines.lake.lease.checkpoints import lock_checkpoint
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.settings_sources import load_settings
settings = load_settings(None, environ={}, overrides={"lake.root": sys.argv[1]})
lock = lock_checkpoint(sys.argv[1], job="silver", run="other")
with lease_of(settings, "silver", job="silver", run="other").hold():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, environ={}, overrides={"lake.root": str(tmp_path), "leases.wait_seconds": 0.2})


def test_holder_is_told_whether_somebody_else_wrote_in_between(settings: Settings) -> None:
    mine = lease_of(settings, "silver", job="silver", run="a")
    other = lease_of(settings, "silver", job="dlq", run="b")
    told = []
    for lease in (mine, mine, other, mine, mine):
        with lease.hold() as others_wrote:
            told.append(others_wrote)

    assert told == [True, False, True, True, False]


def test_second_writer_waits_and_then_names_the_holder(settings: Settings) -> None:
    with lease_of(settings, "silver", job="silver", run="a").hold():
        assert leases_held(settings)["silver"].run == "a"
        with (
            pytest.raises(LeaseHeldError, match=r"silver \(run a, pid \d+ on .+\) holds it"),
            lease_of(settings, "silver", job="dlq", run="b").hold(),
        ):
            pass
        with lease_of(settings, "gold", job="gold", run="c").hold():
            assert set(leases_held(settings)) == {"gold", "silver"}

    assert leases_held(settings) == {}


def test_lease_and_checkpoint_are_free_when_their_holder_is_killed(settings: Settings, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert leases_held(settings)["silver"].pid == holder.pid
        with pytest.raises(UsageError, match=rf"in use by silver \(run other, pid {holder.pid} on"):
            lock_checkpoint(str(tmp_path), job="silver", run="me")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)

    assert leases_held(settings) == {}
    lock_checkpoint(str(tmp_path), job="silver", run="me").release()
    with lease_of(settings, "silver", job="silver", run="me").hold() as others_wrote:
        assert others_wrote


def test_checkpoint_is_free_when_its_run_gave_it_back_or_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path)
    lock = lock_checkpoint(path, job="silver", run="a")
    with pytest.raises(UsageError, match=rf"in use by silver \(run a, pid {os.getpid()} on"):
        lock_checkpoint(path, job="silver", run="b")
    assert checkpoint_holder(path) is not None
    lock.release()
    assert checkpoint_holder(path) is None
    with lock_checkpoint(path, job="silver", run="b"):
        lock.release()  # given back before: it is not given back again for another
        assert checkpoint_holder(path) is not None
    lock = lock_checkpoint(path, job="silver", run="c")
    del lock
    assert checkpoint_holder(path) is None


def test_lock_whose_holder_cannot_be_noted_is_given_back(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_LOCK).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|Invalid argument") as caught:
        lock_checkpoint(str(tmp_path), job="silver", run="a")

    # The error is still held, and with it the frame that had the file open.
    assert caught.value.__traceback__ is not None
    assert checkpoint_holder(str(tmp_path)) is None


def test_block_inside_a_block_holds_the_lease_too(settings: Settings) -> None:
    lease = lease_of(settings, "silver", job="silver", run="a")
    with lease.hold(), lease.hold():
        pass
    assert leases_held(settings) == {}


def test_run_whose_block_failed_is_told_again_that_somebody_else_wrote(settings: Settings) -> None:
    mine = lease_of(settings, "silver", job="silver", run="a")
    with mine.hold():
        pass
    with lease_of(settings, "silver", job="dlq", run="b").hold():
        pass

    def hold(*, fails: bool) -> None:
        with mine.hold() as others_wrote:
            told.append(others_wrote)
            if fails:
                raise KeyError

    told = list[bool]()
    with pytest.raises(KeyError):
        hold(fails=True)
    hold(fails=False)
    hold(fails=False)
    assert told == [True, True, False]


def test_lake_on_an_object_store_is_not_guarded_yet() -> None:
    settings = load_settings(None, environ={}, overrides={"lake.root": "s3a://bucket/lake"})
    mine = lease_of(settings, "silver", job="silver", run="a")
    with mine.hold() as first, lease_of(settings, "silver", job="dlq", run="b").hold():
        assert first
    with mine.hold() as again:
        assert not again
    assert leases_held(settings) == {}
    with lock_checkpoint("s3a://bucket/points/silver/g1", job="silver", run="a"):
        assert checkpoint_holder("s3a://bucket/points/silver/g1") is None


@pytest.mark.parametrize("scheme", ["file:", "file://"])
def test_lake_named_by_a_file_uri_is_guarded_as_any_on_this_disk(scheme: str, tmp_path: Path) -> None:
    overrides = {"lake.root": f"{scheme}{tmp_path}", "leases.wait_seconds": 0.2}
    settings = load_settings(None, environ={}, overrides=overrides)
    with lease_of(settings, "silver", job="silver", run="a").hold():
        assert leases_held(settings)["silver"].run == "a"
        with pytest.raises(LeaseHeldError), lease_of(settings, "silver", job="dlq", run="b").hold():
            pass


def test_look_at_a_checkpoint_is_not_taken_for_its_user(tmp_path: Path) -> None:
    lock = tmp_path / CHECKPOINT_LOCK
    lock.touch()
    with lock.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        timer = threading.Timer(0.3, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
        timer.start()
        taken = lock_checkpoint(str(tmp_path), job="silver", run="a")
        timer.join()

    assert checkpoint_holder(str(tmp_path)) is not None
    taken.release()
