"""A process ends with the code that it chose, also where a library would abort it on its way out."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pipelines.lake.resources import PROJECT

ABORTS = "import ctypes; libc = ctypes.CDLL(None); libc.__cxa_atexit(libc.abort, None, None)\n"
"""What Arrow's threads do now and then: C++'s own end of the process aborts it."""


def _ended(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ABORTS + program]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)


def test_process_would_be_aborted_without_it() -> None:
    assert _ended("print('done')").returncode == -signal.SIGABRT


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 3", 3, ""),
        ("return None", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('one sentence')", 1, "one sentence"),
        ("raise ValueError('why')", 1, "ValueError: why"),
    ],
)
def test_code_is_the_one_that_was_chosen_and_all_that_was_said_is_written(body: str, code: int, said: str) -> None:
    ended = _ended(
        "import atexit, sys\n"
        "from pipelines.lake.process import run_process\n"
        "def main():\n"
        "    atexit.register(lambda: print('handler'))\n"
        "    print('work')\n"
        f"    {body}\n"
        "run_process(main)\n"
    )
    assert (ended.returncode, ended.stdout) == (code, "work\nhandler\n")
    assert said in ended.stderr


def test_reader_that_has_gone_is_no_crash() -> None:
    program = "from pipelines.lake.process import run_process; run_process(lambda: print('x' * 100_000) or 0)"
    command = [sys.executable, "-c", ABORTS + program]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.close()
    assert process.returncode in (0, 1)


def test_nothing_is_logged_after_the_last_sentence() -> None:
    ended = _ended(
        "import logging, sys, threading\n"
        "from pipelines.lake.process import run_process, say_last\n"
        "def late():\n"
        "    said.wait()\n"
        "    logging.getLogger('py4j.clientserver').exception('after')\n"
        "    logging.exception('after')\n"
        "def main():\n"
        "    other = threading.Thread(target=late)\n"
        "    other.start()\n"
        "    logging.getLogger('py4j.clientserver').error('before')\n"
        "    say_last('one sentence')\n"
        "    said.set()\n"
        "    other.join()\n"
        "    return 1\n"
        "logging.basicConfig()\n"
        "said = threading.Event()\n"
        "run_process(main)\n"
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["ERROR:py4j.clientserver:before", "one sentence"]


def test_streams_that_were_closed_at_the_start_are_no_error() -> None:
    program = "from pipelines.lake.process import run_process, say_last; run_process(lambda: say_last('why') or 3)"
    for closed in ("1", "2"):
        shell = f'exec "{sys.executable}" -c "{program}" {closed}>&-'
        ended = subprocess.run(["sh", "-c", shell], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 3
        assert ended.stderr == ("why\n" if closed == "1" else "")
