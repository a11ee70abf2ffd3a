"""Runs a Python module as a process that permissions bind: root without the rights to read and write whatever it likes.

`python -m tests.without_rights MODULE ARGS`. For an ordinary user chmod alone is enough, and nothing is given up. Root loses
CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for good (Linux: prctl(2), capabilities(7)), so that its own files bar it as well; the
interpreter stays readable, which another user may not reach.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

_PR_CAPBSET_DROP = 24
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def command(module: str, *words: str) -> list[str]:
    """The command line that runs a module so."""
    return [sys.executable, "-m", "tests.without_rights", module, *words]


def main(words: Sequence[str]) -> None:
    """Give the rights up, then become the module's process: with exec, since other threads' rights would stay."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for right in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            if libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "root's rights cannot be given up here")
    os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606 - this interpreter


if __name__ == "__main__":
    main(sys.argv[1:])
