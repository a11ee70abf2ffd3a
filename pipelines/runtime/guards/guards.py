"""Lists the guards of every start, in the order in which they look."""

from __future__ import annotations

from pipelines.runtime.guards import checkpoint, source, tables
from pipelines.runtime.guards.start import Guard, Moment, Start

GUARDS = (
    Guard(
        "source-exists",
        Moment.SOURCE,
        ("source",),
        "the table that the job reads is there",
        source.refuse_absent_source,
    ),
    Guard(
        "contract-holds",
        Moment.TABLES,
        ("source", "tables"),
        "tables have the properties, features and column types of their contract",
        tables.refuse_broken_contract,
    ),
    Guard(
        "topic-is-the-same",
        Moment.TABLES,
        ("source", "tables"),
        "Kafka's topic is the one whose records Bronze has",
        source.refuse_other_topic,
    ),
    Guard(
        "log-reaches-back",
        Moment.TABLES,
        ("source", "checkpoint"),
        "a new checkpoint begins at a version that the source's log still has",
        source.refuse_short_log,
    ),
    Guard(
        "archive-is-read",
        Moment.TABLES,
        ("source", "ledger"),
        "no record that Silver has not read is in Bronze's archive alone",
        source.refuse_unread_archive,
    ),
    Guard(
        "source-keeps-what-is-next",
        Moment.CHECKPOINT,
        ("source", "checkpoint"),
        "the source has the files and changes that the checkpoint reads next",
        source.refuse_lost_source,
    ),
    Guard(
        "commits-are-there",
        Moment.CHECKPOINT,
        ("tables", "ledger", "checkpoint"),
        "the log of each written table reaches as far as the checkpoint has written",
        checkpoint.refuse_lost_commits,
    ),
    Guard(
        "tables-are-not-restored",
        Moment.CHECKPOINT,
        ("tables", "ledger", "checkpoint"),
        "no table with transaction ids was restored after the checkpoint had written to it",
        checkpoint.refuse_restored,
    ),
    Guard(
        "checkpoint-is-no-old-copy",
        Moment.CHECKPOINT,
        ("tables", "ledger", "checkpoint"),
        "no batch after the last one that the checkpoint has planned was written",
        checkpoint.refuse_old_copy,
    ),
    Guard(
        "kafka-keeps-what-is-unread",
        Moment.CHECKPOINT,
        ("source", "tables", "ledger", "checkpoint"),
        "a new checkpoint does not begin behind offsets that Kafka deleted unread, unless that loss is on record",
        source.refuse_passed_offsets,
    ),
)


def refuse(start: Start, moment: Moment) -> None:
    """Let the guards of a moment look; raises the first one's sentence, a LakehouseError, and changes nothing."""
    for guard in GUARDS:
        if guard.moment is moment:
            guard.refuse(start)
