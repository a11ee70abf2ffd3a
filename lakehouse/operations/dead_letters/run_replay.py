"""A replay from the command line: what is chosen is said first, then it is tried, then written."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lakehouse.operations.dead_letters.decide import Selection, select_for_replay
from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.dead_letters.letters import open_letters, unfinished_replays
from pipelines.lake.ledger_row import Kind
from pipelines.lake.settings import Settings
from pipelines.runtime.failures import named_error
from pipelines.runtime.session import build_session
from pipelines.silver.dead_letters.letter_replay import Trial

Say = Callable[[str], None]


def run_replay(
    settings: Settings, chosen: LetterFilter, *, force: bool, dry_run: bool, say: Say, spark: SparkSession | None = None
) -> dict[str, Any]:
    """Replay the open letters among `chosen`; returns what was found and done.

    Replays that died are completed first. Raises UsageError where discarded letters were asked for. Without `spark` a
    session is built, once there is something to do.
    """
    table = open_letters(settings)
    selection = select_for_replay(table, chosen, max_attempts=settings.dlq.max_attempts, force=force)
    found: dict[str, Any] = {
        "dry_run": dry_run,
        "selected": selection.rows.num_rows,
        "left_out": selection.exhausted,
        "unfinished": selection.claimed,
    }
    _say_selection(settings, selection, say)
    died = unfinished_replays(table)
    if not selection.rows.num_rows and (dry_run or not died):
        return found
    if spark is None:
        spark = build_session(settings, "dlq replay")
    return found | _replay(spark, settings, selection, died, dry_run=dry_run, say=say)


def _replay(
    spark: SparkSession, settings: Settings, selection: Selection, died: list[str], *, dry_run: bool, say: Say
) -> dict[str, Any]:
    try:
        return _run(spark, settings, selection, died, dry_run=dry_run, say=say)
    except (PySparkException, Py4JJavaError) as error:
        raise named_error(error) from error


def _run(
    spark: SparkSession, settings: Settings, selection: Selection, died: list[str], *, dry_run: bool, say: Say
) -> dict[str, Any]:
    from pipelines.silver.dead_letters import letter_replay  # noqa: PLC0415

    if not dry_run:
        letter_replay.prepare(spark, settings)
        for replay_id in died:
            done = letter_replay.finish(spark, settings, replay_id)
            say(f"Replay {replay_id}, which had died, is complete: {done.replayed:,} replayed, {done.left_open:,} left open.")
    trials = letter_replay.try_letters(spark, settings, selection.coordinates) if selection.rows.num_rows else []
    _say_trials(trials, say)
    passing = sum(trial.passing for trial in trials)
    by_rule = [{"rules": list(trial.rules), "letters": trial.letters, "passing": trial.passing} for trial in trials]
    found: dict[str, Any] = {"would_pass": passing, "by_rules": by_rule}
    if dry_run or not trials:
        return found
    replay_id = f"{Kind.REPLAY.prefix}{uuid.uuid4().hex[:12]}"
    outcome = letter_replay.replay(spark, settings, selection.coordinates, replay_id)
    say(f"Replay {replay_id}: {outcome.replayed:,} replayed, {outcome.left_open:,} left open.")
    return found | {"replay_id": replay_id, "replayed": outcome.replayed, "left_open": outcome.left_open}


def _say_selection(settings: Settings, selection: Selection, say: Say) -> None:
    say(f"{selection.rows.num_rows:,} open dead letters match.")
    if selection.exhausted:
        limit = settings.dlq.max_attempts
        say(f"{selection.exhausted:,} more were tried {limit} times or more and are left out; --force takes them too.")
    if selection.claimed:
        say(f"{selection.claimed:,} more belong to a replay that died; the next replay completes it first.")


def _say_trials(trials: list[Trial], say: Say) -> None:
    for trial in trials:
        say(f"  {' '.join(trial.rules) or 'no rule'}: {trial.passing:,} of {trial.letters:,} pass now")
