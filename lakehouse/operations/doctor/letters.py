"""Event schemas, dead letters and the circuit breaker: what Silver cannot read, could not take, and what it holds back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lakehouse.operations.doctor.facts import THE_LEASES, Facts
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.streams import silver_waits

if TYPE_CHECKING:
    from lakehouse.operations.status.facts import BreakerStatus

NO_SCHEMA = "SLV-005"
WORTH_A_WARNING = 0.01
"""Share of open dead letters among Bronze's records."""


def check_letters(facts: Facts) -> Iterator[Finding]:
    """Look at the event schemas, at the breaker's state and at the open dead letters."""
    if facts.schema_problem:
        yield _schema_wrong(facts, facts.schema_problem)
    breaker = facts.status.breaker
    if breaker is not None and breaker.state != "closed":
        yield _breaker(facts, breaker)
    letters = facts.letters
    if letters.now_known:
        yield _schema_came(facts)
    if letters.stuck:
        yield _replay_died(facts)
    if letters.open:
        yield _open(facts)


def _breaker(facts: Facts, breaker: BreakerStatus) -> Finding:
    is_open = breaker.state == "open"
    later = f"; the next try is at {breaker.retry_at:%H:%M:%S} UTC" if breaker.retry_at else ""
    dead = round(breaker.share * breaker.records)
    return Finding(
        id=f"breaker-{breaker.state.replace('_', '-')}",
        severity="critical" if is_open else "warning",
        title="The circuit breaker holds Silver back" if is_open else "The circuit breaker of Silver tries a batch",
        evidence=f"{breaker.state} since {breaker.since:%Y-%m-%d %H:%M:%S} UTC ({breaker.reason}){later}.",
        confidence="certain",
        at_stake=(
            f"{silver_waits(facts):,} records of Bronze wait for Silver; {dead:,} of the {breaker.records:,} that were judged "
            "would be dead letters. Bronze goes on landing, nothing is lost."
        ),
        playbook="poison-flood",
        commands=(
            facts.commands.lakehouse("breaker", "show"),
            facts.commands.lakehouse("dlq", "stats"),
            facts.commands.lakehouse("breaker", "reset", "--reason", "why these are accepted", "--dry-run"),
        ),
    )


def _schema_wrong(facts: Facts, problem: str) -> Finding:
    return Finding(
        id="event-schema-wrong",
        severity="critical",
        title="No job can start with the event schemas",
        evidence=problem,
        confidence="certain",
        at_stake="Nothing is lost. Streams that run go on with the files that they have read; one that ends stays down.",
        playbook="schema-change",
        commands=(facts.commands.lakehouse("schema", "check"),),
    )


def _schema_came(facts: Facts) -> Finding:
    versions = facts.letters.now_known
    files = ", ".join(f"{name} ({number:,} letters)" for name, number in versions.items())
    words = ("dlq", "replay", "--rule", NO_SCHEMA)
    return Finding(
        id="letters-schema-known",
        severity="warning",
        title="Dead letters wait for a schema that is there now",
        evidence=f"{facts.settings.schemas_dir} has the schema of {files}.",
        confidence="certain",
        at_stake=f"{sum(versions.values()):,} events are not in Silver and on no bill until they are replayed.",
        playbook="schema-change",
        commands=(
            facts.commands.lakehouse("schema", "check"),
            facts.commands.lakehouse(*words, "--dry-run"),
            facts.commands.lakehouse(*words),
        ),
    )


def _replay_died(facts: Facts) -> Finding:
    stuck = facts.letters.stuck
    return Finding(
        id="letters-replay-died",
        severity="warning",
        title="A replay of dead letters did not finish",
        evidence=f"Letters are still claimed by {', '.join(stuck)}.",
        confidence="possible" if "silver" in facts.leases or facts.lacks(THE_LEASES) else "likely",
        at_stake="These letters are left alone by other replays until the next one has completed it; nothing is doubled by that.",
        playbook="dead-letters",
        commands=(facts.commands.lakehouse("dlq", "replay", "--dry-run"), facts.commands.lakehouse("dlq", "replay")),
    )


def _open(facts: Facts) -> Finding:
    letters = facts.letters
    records = next((table.rows for table in facts.status.tables if table.name == "bronze.api_usage_events"), None)
    share = letters.open / records if records else None
    by_rule = sorted(((sum(days.values()), rule, days) for rule, days in letters.open_by.items()), reverse=True)
    most = by_rule[0][1] if by_rule else NO_SCHEMA
    days = sorted({day for _, _, found in by_rule for day in found})
    of = f", {share:.2%} of Bronze's records" if share is not None else ""
    span = f"{days[0]} to {days[-1]}" if len(days) > 1 else str(days[0]) if days else "no day"
    return Finding(
        id="letters-open",
        severity="warning" if share is not None and share >= WORTH_A_WARNING else "info",
        title=f"{letters.open:,} dead letters are open",
        evidence=f"By rule: {', '.join(f'{rule} {number:,}' for number, rule, _ in by_rule)}; Kafka days {span}{of}.",
        confidence="certain",
        at_stake=f"{letters.open:,} records on {len(days)} days are on no bill until they are replayed or discarded.",
        playbook="schema-change" if most == NO_SCHEMA else "dead-letters",
        commands=(
            facts.commands.lakehouse("dlq", "stats", "--status", "open"),
            *((facts.commands.lakehouse("schema", "check"),) if most == NO_SCHEMA else ()),
            facts.commands.lakehouse("dlq", "replay", "--rule", most, "--dry-run"),
        ),
    )
