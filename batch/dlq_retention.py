"""Takes the bytes from dead letters that were closed long enough ago; what they were and became stays."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.lake.logging import Log
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.runtime import jobs
from pipelines.silver.dead_letters.retention import JOB, find_due, remove_due

_LOG = Log(JOB)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="only say how many letters and files are due")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the batch from the command line; it needs no Spark."""

    def job(args: argparse.Namespace, settings: Settings) -> None:
        due = find_due(settings, datetime.now(UTC))
        sys.stdout.write(
            f"{due.letters:,} dead letters were closed more than {settings.dlq.retention_days} days ago and still have their "
            f"bytes; {due.files:,} files of old versions are due to be deleted.\n"
        )
        if args.dry_run:
            return
        done = remove_due(settings, due)
        sys.stdout.write(f"{done.letters:,} lost their bytes; {done.files:,} files of old versions were deleted.\n")
        _LOG.info("retention done", letters=done.letters, files=done.files)

    return jobs.run_job(job, _parser(), argv)


if __name__ == "__main__":
    run_process(main)
