"""What others did to the tables: what differs from the contract, damaged derived files, rows changed by hand."""

from __future__ import annotations

from collections.abc import Iterator

from lakehouse.operations.doctor.facts import Facts, Foreign
from lakehouse.operations.doctor.findings import Finding, Severity
from pipelines.lake.contract.contract import CHANGE_FEED, Difference
from pipelines.lake.delta_log.derived_files import Damage
from pipelines.lake.tables import BRONZE, DLQ, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, REVERSIBLE, SILVER, TableName

_SHOWN = 5
_SEVERITIES: dict[str, Severity] = {"harmless": "info", "short": "warning"}
"""Of what is not critical."""
_AT_STAKE = {
    "harmless": "Nothing: the next start of its job sets it back.",
    "short": "A stream that is further behind than that loses what it reads next, and has to read the whole table.",
    "wrong": "Its jobs do not start, or the stream after it cannot read on. No row is lost.",
    "column": "The jobs that write the table do not start. What others wrote in its place is not what the source gives.",
    "feature": "The jobs do not start, as plain readers and writers would read rows wrongly or not at all. No row is lost.",
}

_FEED_OFF = (
    "Gold cannot read what changes in Silver until it is on again, and has to be recomputed then. The next start of Silver sets "
    "it back. No row is lost."
)


def check_neighbours(facts: Facts) -> Iterator[Finding]:
    """Look at what differs, table by table."""
    for one in facts.neighbours.differences:
        yield _difference(facts, one)
    for name, damage in facts.neighbours.damage.items():
        if not damage.is_lost:
            yield _damage(facts, name, damage)
    tables = dict.fromkeys(one.table for one in facts.neighbours.commits)
    for name in tables:
        yield _by_hand(facts, name, [one for one in facts.neighbours.commits if one.table == name])


def _difference(facts: Facts, one: Difference) -> Finding:
    is_feed = one.key == CHANGE_FEED
    return Finding(
        id=f"contract-{one.kind}",
        severity="warning" if is_feed else _SEVERITIES.get(one.kind, "critical"),
        title=f"{one.table} is not as its contract says",
        evidence=f"{one}.",
        confidence="certain",
        at_stake=_FEED_OFF if is_feed else _AT_STAKE[one.kind],
        playbook="table-contract",
        commands=_set_back(facts, one),
    )


def _set_back(facts: Facts, one: Difference) -> tuple[str, ...]:
    if one.kind != "column":
        return (facts.commands.lakehouse("contract", "restore", str(one.table)),)
    if one.sound is None or one.table not in REVERSIBLE:
        return ()
    return (facts.commands.lakehouse("rollback", str(one.table), "--to", str(one.sound), "--repair"),)


def _damage(facts: Facts, name: TableName, damage: Damage) -> Finding:
    is_broken = any(table.problem for table in facts.status.tables if table.name == str(name))
    return Finding(
        id="derived-file-damaged",
        severity="critical" if is_broken else "warning",
        title=f"A derived file in the log of {name} is damaged",
        evidence=f"{damage.why}. All commits are there.",
        confidence="certain",
        at_stake="No row is lost: Delta made the file from the commits. Until it is set aside, readers fail or take it for true.",
        playbook="table-contract",
        commands=(facts.commands.lakehouse("contract", "restore", str(name)),),
    )


def _by_hand(facts: Facts, name: TableName, found: list[Foreign]) -> Finding:
    shown = "; ".join(_said(one) for one in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Finding(
        id="rows-by-hand",
        severity="warning",
        title=f"Rows of {name} were changed by somebody else",
        evidence=f"Of its newest commits these changed rows and are none of the project's: {shown}{more}.",
        confidence="certain" if any(one.confidence == "certain" for one in found) else "likely",
        at_stake=f"What {name} holds may no longer be what its source gives; the commands compare, and then put it right.",
        playbook="table-contract",
        commands=_commands(facts, name),
    )


def _said(one: Foreign) -> str:
    commit = one.commit
    at = f" at {commit.at:%Y-%m-%d %H:%M:%S} UTC" if commit.at is not None else ""
    return f"version {commit.version}, {commit.operation[:40] or 'unnamed'} by {commit.writer[:60]}{at} ({_rows(one)})"


_METRICS = {
    "inserted": ("numTargetRowsInserted", "num_target_rows_inserted"),
    "updated": ("numTargetRowsUpdated", "numUpdatedRows", "num_target_rows_updated", "num_updated_rows"),
    "deleted": ("numTargetRowsDeleted", "numDeletedRows", "num_target_rows_deleted", "num_deleted_rows"),
}
"""Where Spark and deltalake say how many rows a statement changed."""


def _rows(one: Foreign) -> str:
    """How many rows, as the commit says; otherwise by the statistics of its files."""
    counts = (
        (verb, next((n for key in keys if (n := one.commit.metric(key)) is not None), 0)) for verb, keys in _METRICS.items()
    )
    if said := ", ".join(f"{count:,} rows {verb}" for verb, count in counts if count):
        return said
    added, removed = one.commit.added_rows, one.commit.removed_rows
    if added is None or removed is None:
        return "number of rows unknown"
    if added == removed:
        return f"among {added:,} rows" if added else "rows changed"
    return f"{added - removed:,} rows more" if added > removed else f"{removed - added:,} rows fewer"


def _commands(facts: Facts, name: TableName) -> tuple[str, ...]:
    lakehouse = facts.commands.lakehouse
    if name == BRONZE:
        return (lakehouse("repair", "bronze", "--dry-run"), lakehouse("repair", "bronze"), lakehouse("verify"))
    layer = {SILVER: "silver", DLQ: "silver", GOLD_BY_KEY: "gold", GOLD_HOURLY: "gold", GOLD_DAILY: "gold"}.get(name)
    if layer is None:
        return (lakehouse("check"), lakehouse("verify"))
    return (lakehouse("rebuild", layer), lakehouse("rebuild", layer, "--swap"))
