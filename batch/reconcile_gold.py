"""Recomputes a day of Gold from Silver, says what differed and why, audits it, repairs it, and closes the day for billing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime

from rich.console import Console
from rich.table import Table

from pipelines.gold.gate.gate import open_suites, read_override
from pipelines.gold.gate.results import Audit, Gate
from pipelines.gold.gate.start import start_with_suites
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.closing import grace_has_passed
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import JOB, reconcile
from pipelines.gold.schema import ADJUSTMENTS_TABLE, CANDIDATES_TABLE, DAILY_TABLE, HOURLY_TABLE
from pipelines.lake.access import require_access
from pipelines.lake.days import parse_day
from pipelines.lake.errors import EXIT_REFUSED, UsageError
from pipelines.lake.logging import Log
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.tables import SILVER
from pipelines.runtime import jobs
from pipelines.runtime.guards.start import Start
from pipelines.runtime.start_up import look_at_source, look_at_tables

EXIT_WAS_OFF = 3
"""Exit code where Gold was off by more than the tolerance; it is repaired all the same (unless the day is final)."""

_LOG = Log(JOB)


def print_findings(outcome: Outcome) -> None:
    """Show in one line what was found, at once: it stands there before anything is written."""
    sys.stdout.write(f"{outcome}\n")
    sys.stdout.flush()


def print_outcome(outcome: Outcome) -> None:
    """Show a run as a table on standard output."""
    run = "dry run, nothing is written" if outcome.dry_run else f"run {outcome.run_id}"
    table = Table(title=f"Reconciliation of {outcome.day} ({run}, Silver version {outcome.silver_version})")
    for name in ("", "value"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("events in Gold before", f"{outcome.events_before:,}")
    table.add_row("events in Silver", f"{outcome.events_after:,}")
    table.add_row("events that Gold was off by", f"{outcome.events_off:,}")
    for (grain, cause), count in sorted(outcome.differences.items()):
        table.add_row(f"{grain} differences, {cause}", f"{count:,}")
    if outcome.was_final:
        table.add_row(f"adjustments {'to add' if outcome.dry_run else 'added'} to the bill", f"{outcome.adjusted:,}")
    was_closed = " (was closed: adjusted, not rewritten)" if outcome.was_final else ""
    if outcome.audit is not None:
        table.add_row("audit", outcome.audit.in_words)
    status = "not closed: the day has no event" if outcome.has_no_events else f"{outcome.status}{was_closed}"
    table.add_row(f"billing status{' after a run' if outcome.dry_run else ''}", status)
    Console().print(table)


def print_audit(audit: Audit) -> None:
    """Say on standard error what does not hold, one expectation a line, and what became of the day."""
    for one in audit.failures:
        sys.stderr.write(f"{'blocks' if one.blocks else 'warns'}: {one}\n")
    if audit.gate is Gate.REFUSED:
        sys.stderr.write(
            f"error: The gate refused {audit.day}: {len(audit.blocking)} expectations that block do not hold, and nothing was "
            "published; mend what they name and run the batch again, or publish the day with --override REASON "
            f"(playbooks/quality-gate.md{f', {audit.docs}' if audit.docs else ''}).\n"
        )
    if audit.override is not None:
        needed = audit.gate is Gate.OVERRIDDEN
        what = "was published against its audit" if needed else "passed its audit; --override was not needed"
        sys.stderr.write(f"{audit.day} {what}.\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--date", required=True, help="the day to reconcile, YYYY-MM-DD (UTC)")
    parser.add_argument("--silver-path", help="path of the Silver table (default: the settings' lake)")
    parser.add_argument("--gold-path", help="folder of the Gold tables (default: the settings' lake)")
    parser.add_argument("--override", metavar="REASON", help="publish the day whatever its audit says; who and why is recorded")
    parser.add_argument("--dry-run", action="store_true", help="say what differs and would be done, and write nothing")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the batch from the command line; exit code 3: Gold was off by more than the tolerance, 5: the gate refused."""

    def job(args: argparse.Namespace, settings: Settings) -> int:
        day = parse_day(args.date, "--date")
        if day == date.max:  # Its end could not be named.
            msg = f"--date is {day}, the calendar's last day, which never ends; give a day that has events."
            raise UsageError(msg)
        override = read_override(args.override)
        if override and args.dry_run:
            msg = "--override and --dry-run exclude one another, as a dry run publishes nothing; leave one of them out."
            raise UsageError(msg)
        now = datetime.now(UTC)
        suites = open_suites(settings)
        paths = Paths.of(settings, silver=args.silver_path, gold=args.gold_path)
        if not (args.dry_run or args.silver_path or args.gold_path):
            require_access(settings, JOB)
        bills = not args.dry_run and grace_has_passed(day, now, settings.reconcile.grace_hours)
        spark = start_with_suites(settings, JOB, suites if bills else [])
        if args.gold_path is None:
            writes = (HOURLY_TABLE, DAILY_TABLE, ADJUSTMENTS_TABLE, CANDIDATES_TABLE)
            start = Start(spark=spark, settings=settings, job=JOB, reads=(SILVER,), writes=writes)
            look_at_source(start)
            look_at_tables(start)
        outcome = reconcile(
            spark, settings, paths, day, now, dry_run=args.dry_run, suites=suites, override=override, say=print_findings
        )
        print_outcome(outcome)
        if outcome.audit is not None:
            print_audit(outcome.audit)
        if not args.dry_run:
            _LOG.info("day reconciled", day=day, off=outcome.events_off, status=outcome.status, adjusted=outcome.adjusted)
        if outcome.is_refused:
            return EXIT_REFUSED
        return EXIT_WAS_OFF if outcome.events_off > settings.reconcile.tolerance_events else 0

    return jobs.run_job(job, _parser(), argv)


if __name__ == "__main__":
    run_process(main)
