"""All checks, one after the other, over the facts."""

from __future__ import annotations

from lakehouse.operations.doctor.billing import check_billing
from lakehouse.operations.doctor.checkpoints import check_checkpoints
from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.findings import Finding, by_severity
from lakehouse.operations.doctor.letters import check_letters
from lakehouse.operations.doctor.machine import check_machine
from lakehouse.operations.doctor.neighbours import check_neighbours
from lakehouse.operations.doctor.pace import check_pace
from lakehouse.operations.doctor.source import check_source
from lakehouse.operations.doctor.streams import check_streams
from lakehouse.operations.doctor.tables import check_tables

_CHECKS = (
    check_source,
    check_neighbours,
    check_checkpoints,
    check_tables,
    check_letters,
    check_machine,
    check_billing,
    check_streams,
    check_pace,
)
"""Causes before their effects: among equals the finding of the earlier check stands first."""


def diagnose(facts: Facts) -> list[Finding]:
    """Give the findings, the worst first; none where nothing is wrong."""
    return by_severity(finding for check in _CHECKS for finding in check(facts))


def examined(facts: Facts) -> str:
    """Name what was looked at, for a lake that is sound."""
    rows = sum(len(found) for found in facts.rows.values())
    parts = [
        f"Kafka ({counted(len(facts.topic.end), 'partition')})" if facts.topic is not None else "Kafka",
        counted(len(facts.status.tables), "table"),
        f"{counted(len(facts.checkpoints), 'checkpoint')} with transaction ids",
        f"{counted(rows, 'batch', 'batches')} of the ledger",
        counted(len(facts.leases), "lease") + " held",
        counted(facts.letters.total, "dead letter"),
        "the circuit breaker",
        counted(len(facts.disks), "disk"),
    ]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(number: int, one: str, more: str | None = None) -> str:
    """Say a number of things: `1 table`, `2 tables`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
