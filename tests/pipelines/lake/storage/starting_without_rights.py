"""Starts each job on a lake that bars it, one path after the other, and says how it ended; run by `tests.without_rights`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from batch import reconcile_gold
from lakehouse.commands.cli import main as lakehouse
from pipelines.bronze import bronze_ingestion
from pipelines.gold import gold_aggregation
from pipelines.silver import silver_processing


def _command(words: list[str]) -> int:
    try:
        lakehouse(words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


STARTS: dict[str, Callable[[list[str]], int]] = {
    "bronze": bronze_ingestion.main,
    "silver": silver_processing.main,
    "gold": gold_aggregation.main,
    "reconcile": lambda config: reconcile_gold.main([*config, "--date", "2026-01-28"]),
    "up": lambda config: _command(["up", *config]),
}


def main(folder: Path) -> None:
    """For each line of `barred.json` (job, path, mode): bar the path, start the job, print exit code and what it said."""
    found = []
    for job, path, mode in json.loads((folder / "barred.json").read_text(encoding="utf-8")):
        before, said = os.stat(path).st_mode, io.StringIO()
        os.chmod(path, mode)
        try:
            with redirect_stderr(said):
                code = STARTS[job](["--config", str(folder / "conf.json")])
        finally:
            os.chmod(path, before)
        found.append((code, said.getvalue()))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
