"""A lease's token grows with each holder, whatever became of the one before, and older versions still read who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.lake.errors import LakehouseError
from pipelines.lake.lease.flock import FlockBackend
from pipelines.lake.lease.protocol import AlreadyHeldError, Holder, LeaseBackend, acquire_within

_HOLD = """
import sys, time
from pathlib import Path
from pipelines.lake.lease.flock import FlockBackend
from pipelines.lake.lease.protocol import Holder
held = FlockBackend(Path(sys.argv[1])).acquire(Holder("silver", "killed"))
print(held.token, flush=True)
time.sleep(60)
"""
_RACE = """
import sys
from pathlib import Path
from pipelines.lake.lease.flock import FlockBackend
from pipelines.lake.lease.protocol import Holder, acquire_within
backend, counter, held = FlockBackend(Path(sys.argv[1])), Path(sys.argv[2]), []
for turn in range(50):
    lease = acquire_within(backend, Holder("race", f"{sys.argv[3]}-{turn}"), 60)
    before = int(counter.read_text())
    counter.write_text(str(before + 1))
    held.append([lease.token, before])
    lease.release()
print(held)
"""
_DIES_BETWEEN = """
import os, sys
from pathlib import Path
from pipelines.lake.lease import flock
from pipelines.lake.lease.protocol import Holder
write = os.pwrite
def once(descriptor, content, at):
    if b"silver" in content:
        os.kill(os.getpid(), 9)
    return write(descriptor, content, at)
os.pwrite = once
flock.FlockBackend(Path(sys.argv[1])).acquire(Holder("silver", "dies"))
"""


@dataclass
class OldHolder:
    """The holder as versions knew it that had no token: a key more is a TypeError."""

    job: str
    run: str
    pid: int
    host: str
    since: str


def _old_look(path: Path) -> OldHolder | None:
    """Who holds the lease, as versions read it that had no token."""
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return OldHolder(**json.loads(file.read()))
            except (ValueError, TypeError):
                return None
    return None


def _old_hold(path: Path, run: str) -> None:
    """Hold the lease for a moment, as versions did that had no token."""
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(json.dumps({"job": "silver", "run": run, "pid": 1, "host": "h", "since": "2026-01-28T10:00:00+00:00"}))


def _process(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, text=True)


def _tokens(backend: LeaseBackend, runs: Sequence[str]) -> list[int]:
    tokens = []
    for run in runs:
        held = backend.acquire(Holder("silver", run))
        tokens.append(held.token)
        held.release()
    return tokens


@pytest.fixture
def backend(tmp_path: Path) -> FlockBackend:
    return FlockBackend(tmp_path / "_leases" / "silver.json")


def test_token_grows_by_one_with_each_holder_also_over_one_that_was_killed(backend: FlockBackend) -> None:
    assert _tokens(backend, ["a", "b", "a"]) == [1, 2, 3]
    with _process(_HOLD, backend.path) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "4\n"
        with pytest.raises(AlreadyHeldError) as caught:
            backend.acquire(Holder("silver", "me"))
        assert caught.value.holder == backend.look()
        assert caught.value.holder is not None
        assert (caught.value.holder.run, caught.value.holder.pid) == ("killed", killed.pid)
        killed.send_signal(signal.SIGKILL)
        killed.wait(10)

    assert backend.look() is None
    assert _tokens(backend, ["b"]) == [5]


def test_holder_that_died_before_it_was_noted_leaves_a_lease_whose_token_grows(backend: FlockBackend) -> None:
    mine = Holder("silver", "a")
    first = backend.acquire(mine)
    first.release()
    with _process(_DIES_BETWEEN, backend.path) as killed:
        assert killed.wait(10) == -signal.SIGKILL

    # It never had the lease, but who cannot know that takes it for somebody else.
    again = backend.acquire(mine, first.token)
    assert again.token > first.token
    again.release()


def test_same_holder_keeps_its_token_while_nobody_else_held_the_lease(backend: FlockBackend) -> None:
    mine, tokens = Holder("silver", "a"), [0]
    for other in (None, None, "b", None):
        if other:
            _tokens(backend, [other])
        held = backend.acquire(mine, tokens[-1])
        tokens.append(held.token)
        held.release()
    assert tokens == [0, 1, 1, 3, 3]


def test_two_processes_that_race_hold_the_lease_one_at_a_time(backend: FlockBackend, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    with _process(_RACE, backend.path, counter, "one") as one, _process(_RACE, backend.path, counter, "two") as two:
        held = [pair for process in (one, two) for pair in json.loads(process.communicate(timeout=60)[0])]

    # In the order of their tokens each found what the one before had left.
    assert sorted(held) == [[number + 1, number] for number in range(100)]


def test_lease_is_waited_for(backend: FlockBackend) -> None:
    held = backend.acquire(Holder("silver", "a"))
    with pytest.raises(AlreadyHeldError, match=r"silver \(run a, pid"):
        acquire_within(backend, Holder("silver", "b"), 0.1)
    held.release()
    acquire_within(backend, Holder("silver", "b"), 0.1).release()


def test_file_without_a_token_counts_as_0_and_older_versions_in_between_leave_the_token(backend: FlockBackend) -> None:
    backend.path.parent.mkdir()
    _old_hold(backend.path, "old")
    mine = Holder("silver", "a")
    first = backend.acquire(mine)
    first.release()
    assert first.token == 1
    _old_hold(backend.path, "a")

    again = backend.acquire(mine, first.token)
    assert again.token == 2  # the old version held it, and wrote no token
    again.release()


@pytest.mark.parametrize("before", ["", "a run whose name is longer than that of the next one"])
def test_older_version_names_the_holder_of_a_new_file(backend: FlockBackend, before: str) -> None:
    if before:
        _tokens(backend, [before])
    held = backend.acquire(Holder("silver", "new"))
    found = _old_look(backend.path)
    assert found is not None
    assert (found.job, found.run, found.pid) == ("silver", "new", os.getpid())
    # It lists the leases by this pattern.
    assert [path.name for path in backend.path.parent.glob("*.json")] == ["silver.json"]
    held.release()
    assert _old_look(backend.path) is None


def test_damaged_token_is_one_sentence_and_the_lease_is_free(backend: FlockBackend) -> None:
    _tokens(backend, ["a"])
    token = backend.path.with_name("silver.token")
    token.write_text("x7")
    with pytest.raises(LakehouseError, match=r"silver\.token is damaged, expected a number.*start again") as caught:
        backend.acquire(Holder("silver", "b"))
    assert "\n" not in str(caught.value)
    assert backend.look() is None

    token.write_bytes(b"\0" * 21)  # a machine that lost power when it was first made
    assert _tokens(backend, ["b"]) == [1]
