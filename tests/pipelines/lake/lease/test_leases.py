"""Leases: one writer at a time, gone with its holder, and noticed by the next."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.lake.errors import LeaseHeldError, UsageError
from pipelines.lake.lease.leases import CHECKPOINT_LOCK, held_by, lease_of, leases_held, release_checkpoint, take_checkpoint
from pipelines.lake.settings import Settings, load_settings

_HOLD = """
import sys, time
from pipelines.lake.lease.leases import lease_of, take_checkpoint
from pipelines.lake.settings import load_settings
settings = load_settings(None, environ={}, overrides={"lake.root": sys.argv[1]})
take_checkpoint(sys.argv[1], job="silver", run="other")
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
            take_checkpoint(str(tmp_path), job="silver", run="me")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)

    assert leases_held(settings) == {}
    take_checkpoint(str(tmp_path), job="silver", run="me")
    with lease_of(settings, "silver", job="silver", run="me").hold() as others_wrote:
        assert others_wrote


def test_checkpoint_is_free_when_its_last_run_gave_it_back(tmp_path: Path) -> None:
    take_checkpoint(str(tmp_path), job="silver", run="a")
    take_checkpoint(str(tmp_path), job="silver", run="b")
    release_checkpoint(str(tmp_path))
    assert held_by(tmp_path / CHECKPOINT_LOCK) is not None

    release_checkpoint(str(tmp_path))
    assert held_by(tmp_path / CHECKPOINT_LOCK) is None


def test_lock_whose_holder_cannot_be_noted_is_given_back(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_LOCK).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|Invalid argument") as caught:
        take_checkpoint(str(tmp_path), job="silver", run="a")

    # The error is still held, and with it the frame that had the file open.
    assert caught.value.__traceback__ is not None
    assert held_by(tmp_path / CHECKPOINT_LOCK) is None


def test_block_inside_a_block_holds_the_lease_too(settings: Settings) -> None:
    lease = lease_of(settings, "silver", job="silver", run="a")
    with lease.hold(), lease.hold():
        pass
    assert leases_held(settings) == {}


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
        take_checkpoint(str(tmp_path), job="silver", run="a")
        timer.join()

    assert held_by(lock) is not None
    release_checkpoint(str(tmp_path))
