"""Takes the permission on one path of a lake away, runs each command that only looks, and gives the permission back.

A process of its own (`tests.without_rights`), which runs the commands one after the other in itself: a process for each would
cost a second. Prints one JSON object: for each path and command the exit code and what was said.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from batch import archive_bronze, dlq_retention
from lakehouse.commands.cli import main as lakehouse

COMMANDS: dict[str, list[str]] = {
    "status": ["status", "--json"],
    "status for people": ["status"],
    "doctor": ["doctor", "--json"],
    "verify": ["verify", "--json"],
    "checkpoint list": ["checkpoint", "list", "--json"],
    "checkpoint show": ["checkpoint", "show", "{checkpoints}/silver/g1", "--json"],
    "checkpoint show a job's": ["checkpoint", "show", "bronze", "--json"],
    "checkpoint verify": ["checkpoint", "verify", "{checkpoints}/silver/g1", "--json"],
    "checkpoint verify a job's": ["checkpoint", "verify", "bronze", "--json"],
    "checkpoint rebuild": ["checkpoint", "rebuild", "silver", "--dry-run"],
    "checkpoint copy": ["checkpoint", "copy", "{checkpoints}/silver/g1", "{checkpoints}/silver/g9", "--dry-run"],
    "dlq list": ["dlq", "list", "--json"],
    "dlq stats": ["dlq", "stats", "--json"],
    "dlq show": ["dlq", "show", "0:5", "--json"],
    "dlq discard": ["dlq", "discard", "--all", "--reason", "tried", "--dry-run"],
    "archive list": ["archive", "list", "--json"],
    "archive verify": ["archive", "verify", "--json"],
    "archive run": ["batch/archive_bronze.py", "--dry-run"],
    "dead letters' retention": ["batch/dlq_retention.py", "--dry-run"],
    "breaker show": ["breaker", "show", "--json"],
    "quality show": ["quality", "show", "--json"],
    "schema check": ["schema", "check", "--json"],
    "kafka status": ["kafka", "status", "--json"],
    "rollback": ["rollback", "silver.api_usage_events", "--to", "0", "--dry-run"],
}
"""Commands that change nothing and start no JVM."""
_JOBS: dict[str, Callable[[list[str]], int]] = {
    "batch/archive_bronze.py": archive_bronze.main,
    "batch/dlq_retention.py": dlq_retention.main,
}
_CHANGES = re.compile(
    r'generation \w{12}|"age_seconds": [\d.]+|\b\d+ days?, [\d:]+|\b\d+:\d\d:\d\d\b|[\d,.]+ (?:of [\d,.]+ )?GiB[^"]*'
)
"""What differs between two runs on the same lake: ids, ages, free space."""


def run(words: list[str]) -> tuple[int, str]:
    """Run one command in this process; its exit code and all that it said."""
    said, code = io.StringIO(), 0
    with redirect_stdout(said), redirect_stderr(said):
        try:
            if words[0] in _JOBS:
                code = _JOBS[words[0]](words[1:])
            else:
                lakehouse(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # what a process would end with: a trace, which is looked for
            code = 1
            said.write(traceback.format_exc())
    return code, _CHANGES.sub("~", said.getvalue())


def main(folder: Path) -> None:
    """Run all commands with all paths as they are, then with each path barred.

    `paths.json` names path, mode and the commands that are left out.
    """
    config, paths = str(folder / "conf.yaml"), json.loads((folder / "paths.json").read_text(encoding="utf-8"))
    words = {
        name: [*(word.format(checkpoints=folder / "checkpoints") for word in command), "--config", config]
        for name, command in COMMANDS.items()
    }
    found = {"": {name: run(command) for name, command in words.items()}}
    for kind, (path, mode, without) in paths.items():
        before = os.stat(path).st_mode
        os.chmod(path, mode)
        try:
            found[kind] = {name: run(command) for name, command in words.items() if name not in without}
        finally:
            os.chmod(path, before)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
