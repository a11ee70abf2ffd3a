"""What may be wrong between Kafka and Bronze: silence, another topic, offsets that are gone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from lakehouse.operations.checkpoints.findings import LostRange, cut_short, listed, lost_ranges
from lakehouse.operations.checkpoints.verify_source import next_offsets
from lakehouse.operations.doctor.facts import THE_BROKER, THE_CHECKPOINTS, THE_TOPIC_ID, Facts
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.streams import QUIET
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.settings import EMBEDDED

_OUTAGE = partial(Finding, severity="critical", confidence="certain", playbook="kafka-outage")


def check_source(facts: Facts) -> Iterator[Finding]:
    """Compare Kafka with what Bronze and its checkpoint hold."""
    if facts.lacks(THE_BROKER):
        return
    if facts.topic is None:
        yield _topic_missing(facts) if facts.topic_is_missing else _silent(facts)
        return
    if facts.lacks(THE_TOPIC_ID):  # whether it is the same topic is not known
        return
    if facts.bronze_topic_id is not None and facts.bronze_topic_id != facts.topic.topic_id:
        # The offsets of the new topic mean other records: nothing else can be said of them.
        yield _made_anew(facts, facts.topic)
        return
    if short := cut_short(_read_ends(facts), facts.topic.end):
        yield _log_lost(facts, short)
    checkpoint = facts.checkpoints.get("bronze")
    if facts.lacks(THE_CHECKPOINTS) or (checkpoint is not None and checkpoint.unread):  # where Bronze reads next is not known
        return
    if lost := lost_ranges(_wanted(facts), facts.topic.start):
        yield _retention_overrun(facts, lost)
    if held := _held_back(facts.topic):
        yield _open_transaction(facts, held)


def _read_ends(facts: Facts) -> dict[int, int]:
    """For each partition the end (exclusive) of what Bronze has read, as the ledger says."""
    return {part.partition: part.bronze_end for part in facts.status.partitions if part.bronze_end is not None}


def _wanted(facts: Facts) -> dict[int, int]:
    """Next offset of each partition: what the checkpoint says, for an accepted loss lies before it; otherwise Bronze's end."""
    checkpoint = facts.checkpoints.get("bronze")
    planned = next_offsets(checkpoint.state) if checkpoint is not None and checkpoint.state is not None else None
    return planned or _read_ends(facts)


def _held_back(topic: TopicState) -> dict[int, tuple[int, int]]:
    """For each partition with an open transaction its last stable offset, and how many offsets lie behind it."""
    return {part: (end, topic.end[part] - end) for part, end in topic.readable.items() if end < topic.end[part]}


def _open_transaction(facts: Facts, held: dict[int, tuple[int, int]]) -> Finding:
    ends = _read_ends(facts)
    # Bronze has come to it, and stands there: one that lasts is an open transaction that nobody ends.
    rows = facts.rows.get("bronze", [])
    stands = (
        bool(rows)
        and facts.now - rows[-1].committed_at > QUIET
        and all(ends.get(part, 0) >= at for part, (at, _) in held.items())
    )
    places = "; ".join(
        f"partition {part}: last stable offset {at:,}, {more:,} behind it" for part, (at, more) in sorted(held.items())
    )
    return Finding(
        id="open-transaction",
        severity="warning" if stands else "info",
        title="A producer's transaction is open",
        evidence=f"Kafka gives committed records alone, up to the last stable offset: {places}.",
        confidence="certain",
        at_stake=(
            f"{sum(more for _, more in held.values()):,} offsets wait for its producer to end the transaction, or for Kafka to "
            "do so after its transaction.timeout.ms; Bronze reads on by itself then. Nothing is lost."
        ),
        playbook="kafka-outage",
        commands=(facts.commands.lakehouse("status"),),
    )


def _silent(facts: Facts) -> Finding:
    is_embedded = facts.settings.kafka.bootstrap_servers == EMBEDDED
    again = facts.commands.lakehouse("kafka", "start") if is_embedded else facts.commands.lakehouse("status")
    return _OUTAGE(
        id="kafka-silent",
        title="Kafka does not answer",
        evidence=facts.kafka_problem or "It gave no offsets.",
        at_stake="Nothing is lost as long as Kafka keeps its log; no new event reaches the lake, and how many wait is unknown.",
        commands=(*((facts.commands.lakehouse("kafka", "status"),) if is_embedded else ()), again),
    )


def _topic_missing(facts: Facts) -> Finding:
    has = sum(_read_ends(facts).values())
    return _OUTAGE(
        id="topic-missing",
        title=f"Kafka has no topic {facts.settings.kafka.topic}",
        evidence=facts.kafka_problem or "The broker answers and does not know it.",
        at_stake=f"Bronze keeps what it has read (up to {has:,} offsets); what it had not read is gone if the topic was deleted.",
        commands=(facts.commands.lakehouse("status"),),
    )


def _made_anew(facts: Facts, topic: TopicState) -> Finding:
    waiting = sum(topic.end[partition] - first for partition, first in topic.start.items())
    return _OUTAGE(
        id="topic-made-anew",
        title=f"Topic {topic.topic} was made anew",
        evidence=f"Bronze holds the topic with id {facts.bronze_topic_id}, Kafka's has id {topic.topic_id}.",
        at_stake=(
            f"{waiting:,} records of the new topic wait; their offsets mean other records than those in Bronze, so they need "
            "a lake of their own (`lake.root`, `lake.checkpoints`)."
        ),
        commands=(facts.commands.lakehouse("status"), facts.commands.lakehouse("verify")),
    )


def _log_lost(facts: Facts, short: list[str]) -> Finding:
    ends = facts.topic.end if facts.topic is not None else {}
    gone = sum(max(0, end - ends.get(partition, 0)) for partition, end in _read_ends(facts).items())
    return _OUTAGE(
        id="log-lost",
        title="Kafka has lost the end of its log",
        evidence=f"Bronze has read further than Kafka goes: {listed(short)}.",
        at_stake=(
            f"Bronze has the {gone:,} offsets that Kafka lost; new records get the same offsets, and Bronze would take them for "
            "known ones and drop them."
        ),
        commands=(facts.commands.lakehouse("status"), facts.commands.lakehouse("checkpoint", "list")),
    )


def _retention_overrun(facts: Facts, lost: tuple[LostRange, ...]) -> Finding:
    checkpoint = facts.checkpoints.get("bronze")
    target = (checkpoint.next_path,) if checkpoint is not None else ()
    rebuild = ("checkpoint", "rebuild", "bronze", *target, "--accept-loss")
    return Finding(
        id="retention-overrun",
        severity="critical",
        title="Kafka deleted records before Bronze had read them",
        evidence=f"Its first offsets lie after those that Bronze reads next; missing is {listed(lost)}.",
        confidence="certain",
        at_stake=(
            f"At most {sum(one.count for one in lost):,} records in {len(lost)} partitions are in no table and on no bill; "
            "ask the producers for them before the loss is accepted."
        ),
        playbook="retention-overrun",
        commands=(
            facts.commands.lakehouse(*rebuild, "--dry-run"),
            facts.commands.lakehouse(*rebuild),
            facts.commands.start("bronze", checkpoint.next_path if checkpoint is not None else None),
            facts.commands.lakehouse("repair", "bronze"),
        ),
    )
