"""Moves old days of Bronze to the archive, puts them back for a replay, and deletes them there after their years."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pyarrow as pa
from deltalake.exceptions import DeltaError

from pipelines.archive.archiving import ArchivePlan, archive, plan_archive
from pipelines.archive.hot import new_run
from pipelines.archive.restoring import due_units, expire, plan_restore, restore
from pipelines.lake.days import parse_optional_day
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.process import run_process
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import as_unreadable
from pipelines.runtime import jobs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--before", help="first UTC day that stays in Bronze (default: today less retention.bronze_days)")
    parser.add_argument("--restore", action="store_true", help="put days back into Bronze, so that they can be read again")
    parser.add_argument("--from-date", help="with --restore: first UTC day")
    parser.add_argument("--to-date", help="with --restore: last UTC day (default: the first)")
    parser.add_argument("--expire", action="store_true", help="delete from the archive what need not be kept any longer")
    parser.add_argument("--dry-run", action="store_true", help="say how much would be moved or deleted, and do nothing")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _archive(settings: Settings, before: date | None, *, dry_run: bool) -> None:
    now = datetime.now(UTC)
    plan = plan_archive(settings, before, now)
    _say_plan(plan)
    if dry_run:
        _say("Nothing was changed (--dry-run).")
        return
    done = archive(settings, plan, new_run(), now, _say)
    _say(f"{sum(done.copied.values()):,} rows were copied and verified, {sum(done.removed.values()):,} removed from Bronze.")
    if done.changed:
        _say(f"{len(done.changed)} days changed meanwhile (first {done.changed[0]}): they stay in Bronze until the next run.")


def _say_plan(plan: ArchivePlan) -> None:
    ready = plan.ready
    _say(f"{sum(ready.values()):,} rows of {len(ready)} days before {plan.before} are to move from Bronze to the archive.")
    for day, unread in plan.unread.items():
        if unread:
            _say(f"{day} stays: Silver has not read {unread:,} of its {plan.rows[day]:,} rows.")
    if plan.leftovers:
        _say(f"{len(plan.leftovers)} unfinished copies of a run that died are to be removed.")
    if plan.lost:
        _say(f"{len(plan.lost)} copies on record have no manifest (first {plan.lost[0]}): see playbooks/bronze-archive.md.")
    if plan.foreign:
        _say(f"{len(plan.foreign)} files in the archive are not of its making and stay (first {plan.foreign[0]}).")


def _restore(settings: Settings, first: date | None, last: date | None, *, dry_run: bool) -> None:
    if first is None:
        msg = "--restore needs to know which days, and --from-date is missing; give it, such as 2026-01-28."
        raise UsageError(msg)
    if last is not None and last < first:
        msg = f"--from-date {first} is after --to-date {last}; correct them."
        raise UsageError(msg)
    plan = plan_restore(settings, first, last or first)
    days = len({unit.day for unit in plan.units})
    _say(f"{plan.rows:,} rows of {days} days are in the archive, {plan.present:,} of them in Bronze already.")
    if dry_run:
        _say(f"{plan.rows - plan.present:,} rows would be put back; nothing was changed (--dry-run).")
        return
    _say(f"{restore(settings, plan, new_run()):,} rows were put back; the next archive run takes them out again.")


def _expire(settings: Settings, *, dry_run: bool) -> None:
    now = datetime.now(UTC)
    units = due_units(settings, now)
    rows = sum(unit.rows for unit in units)
    _say(f"{rows:,} rows in {len(units)} units of the archive have been kept long enough.")
    if dry_run:
        for unit in units:
            _say(f"{unit.day}: {unit.rows:,} rows, to be kept until {unit.keep_until}")
        _say("Nothing was changed (--dry-run).")
        return
    expire(settings, units, new_run(), now, _say)
    _say(f"{rows:,} rows were deleted from the archive.")


def _do(args: argparse.Namespace, settings: Settings, before: date | None, first: date | None, last: date | None) -> None:
    if args.restore:
        _restore(settings, first, last, dry_run=args.dry_run)
    elif args.expire:
        _expire(settings, dry_run=args.dry_run)
    else:
        _archive(settings, before, dry_run=args.dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the batch from the command line; it needs no Spark."""

    def job(args: argparse.Namespace, settings: Settings) -> None:
        before = parse_optional_day(args.before, "--before")
        first, last = parse_optional_day(args.from_date, "--from-date"), parse_optional_day(args.to_date, "--to-date")
        asked = [flag for flag, is_given in (("--restore", args.restore), ("--expire", args.expire)) if is_given]
        if len(asked) > 1 or (asked and before):
            msg = f"{' and '.join([*asked, *(['--before'] if before else [])])} do not go together; give one of them."
            raise UsageError(msg)
        if (first or last) and not args.restore:
            msg = "--from-date and --to-date are for --restore; to archive, give --before."
            raise UsageError(msg)
        try:
            _do(args, settings, before, first, last)
        except (pa.ArrowException, OSError, DeltaError) as error:
            unseen = as_unreadable(error, "a file", "open to this user")
            if unseen is not None:
                raise unseen from None
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            msg = (
                f"A file or table cannot be read or written ({reason}); no row left Bronze unverified: mend that and run again "
                "(playbooks/bronze-archive.md)."
            )
            raise LakehouseError(msg) from error

    return jobs.run_job(job, _parser(), argv)


if __name__ == "__main__":
    run_process(main)
