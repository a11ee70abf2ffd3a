"""CPU seconds decide comparisons: nothing that a command starts may be left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.measure import Measured
from pipelines.lake.errors import LakehouseError

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"
ORPHAN = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {burn!r}])
"""


def test_cpu_of_an_orphan_is_counted_and_waited_for(tmp_path: Path) -> None:
    program = ORPHAN.format(burn=BURN.format(seconds=0.7))

    with Measured("orphan", [sys.executable, "-c", program], tmp_path) as process:
        usage = process.wait()

    assert usage.exit_code == 0
    assert usage.cpu_seconds >= 0.7
    assert usage.seconds >= 0.7


def test_memory_of_the_whole_tree_is_sampled(tmp_path: Path) -> None:
    program = "import time; block = b'x' * 200_000_000; time.sleep(1.5)"

    with Measured("memory", [sys.executable, "-c", program], tmp_path) as process:
        usage = process.wait()

    assert 190 < usage.peak_rss_mib < 400
    assert usage.heap_mib == 0


def test_heap_limit_of_a_jvm_is_read_from_its_command_line(tmp_path: Path) -> None:
    with Measured("heap", ["sh", "-c", "sh -c 'sleep 1.2; :' -Xmx96m; :"], tmp_path) as process:
        usage = process.wait()

    assert usage.heap_mib == 96


def test_failed_command_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    program = "import sys; print('first'); sys.exit('the table is gone')"

    with (
        Measured("broken", [sys.executable, "-c", program], tmp_path) as process,
        pytest.raises(LakehouseError, match=r"code 1 \(the table is gone\)"),
    ):
        process.wait()


def test_stop_ends_the_command_by_its_signal_handler(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    with Measured("stream", [sys.executable, "-c", program], tmp_path) as process:
        while not (tmp_path / "ready").exists():
            assert not process.has_ended()
        usage = process.stop()

    assert usage.exit_code == 0
    assert usage.seconds < 30
