"""Contract of the lake's tables: properties, table features, columns and retention that hold whoever writes to them.

Others may act on a table: commit with metadata of their own, OPTIMIZE, VACUUM with the default retention, add columns, set
properties that the contract does not name. This module holds the contract as data and a pure check; contract_facts.py
reads what a table's log says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines.lake.delta_log.opening import COLUMN_MAPPING, maps_columns
from pipelines.lake.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE,
    BRONZE_ARCHIVE,
    CIRCUIT_BREAKER,
    DLQ,
    KNOWN_GAPS,
    LEDGER,
    QUALITY_RESULTS,
    RECONCILIATION,
    SILVER,
    TableDef,
    TableName,
)

Kind = Literal["harmless", "wrong", "short", "feature", "column"]
"""`harmless`: the start of a job sets it back. `wrong`: a job refuses to start. `short`: goes on, until a reader is that far
behind. `feature`: switched on for good, and not read or written rightly here; a job refuses to start. `column`: of another type
than the jobs write; a job refuses to start."""

APPEND_ONLY, CHANGE_FEED = "delta.appendOnly", "delta.enableChangeDataFeed"
DELETION_VECTORS = "delta.enableDeletionVectors"
LOG_RETENTION, FILE_RETENTION = "delta.logRetentionDuration", "delta.deletedFileRetentionDuration"
TRANSACTION_RETENTION = "delta.setTransactionRetentionDuration"
CONSTRAINTS = "delta.constraints."
"""How properties begin that hold CHECK constraints: a row that breaks one stops the writer."""
NOTHING = "nothing"
"""What is expected of a property that must not be set."""
FOR_EVER = "interval 36500 days"
"""Of transaction ids: Delta that forgets one takes the batch a second time. Delta's own default is never."""

COMMON_PROPERTIES = {
    # Readers without a JVM (status, verify, other engines) read the plain format.
    DELETION_VECTORS: "false",
    # A log of many small commits stays quick to load, and a checkpoint is no work on every tenth live batch.
    "delta.checkpointInterval": "200",
}
"""Properties that a table gets when Spark makes it."""
_DEFAULTS = {APPEND_ONLY: "false", CHANGE_FEED: "false", DELETION_VECTORS: "false", COLUMN_MAPPING: "none"}
"""What Delta takes where a property is not set."""

ALLOWED_FEATURES = frozenset(
    {
        "appendOnly",
        "invariants",
        "changeDataFeed",
        # Delta lists these with any feature that is switched on; nobody has to use them.
        "checkConstraints",
        "generatedColumns",
    }
)
"""Table features that each reader and writer of the project was tried with."""
LISTED = frozenset({"columnMapping", "identityColumns", "timestampNtz", "variantType"})
"""Table features that a writer lists when it moves a table to the protocol with features, though the table does not use them.

Column mapping is in use only where its property says so, which the contract holds, variants only where a column is one. The
others change nothing for who reads or adds rows.
"""
LEFT_BEHIND = "checkpointProtection"
"""What Delta puts in the place of a feature that was dropped, as long as the table's history has traces of it.

All readers pass it over; Spark writes such a table, deltalake does not."""


@dataclass(frozen=True)
class Contract:
    """What holds for one table.

    `fixed`: properties with the value that they have (where not set, Delta's default); `harmless`: those of them that the start
    of a job sets back by itself, as that alters no row and stops no reader. `least`: shortest retention in days, for readers that
    are behind. `features`: table features that it may use.
    """

    fixed: Mapping[str, str]
    harmless: frozenset[str] = frozenset()
    least: Mapping[str, int] = field(default_factory=lambda: {FILE_RETENTION: 7, LOG_RETENTION: 7})
    features: frozenset[str] = ALLOWED_FEATURES | {LEFT_BEHIND}


_ONLY_ADDED_TO = (LEDGER, RECONCILIATION, KNOWN_GAPS, CIRCUIT_BREAKER, QUALITY_RESULTS)
"""Tables to which rows are only added, and of which nobody relies on it."""


def _contract(name: TableName) -> Contract:
    fixed = {DELETION_VECTORS: "false", COLUMN_MAPPING: "none"}
    if name in _ONLY_ADDED_TO:
        return Contract(fixed, features=ALLOWED_FEATURES if name != RECONCILIATION else ALLOWED_FEATURES | {LEFT_BEHIND})
    if name == BRONZE_ARCHIVE:
        return Contract({**fixed, APPEND_ONLY: "false"}, features=ALLOWED_FEATURES)
    fixed[APPEND_ONLY] = "false"
    if name in (BRONZE, ADJUSTMENTS):
        # A guard against others' deletes: to set it again needs nobody's decision.
        return Contract({**fixed, APPEND_ONLY: "true"}, frozenset({APPEND_ONLY}))
    if name == SILVER:
        # Switched on again it misses the versions in between, which Gold's start looks for.
        return Contract({**fixed, CHANGE_FEED: "true"}, frozenset({CHANGE_FEED}))
    return Contract(fixed)


CONTRACTS: Mapping[TableName, Contract] = {name: _contract(name) for name in ALL_TABLES}
"""The contract of each table."""


def lease_layer(name: TableName) -> str:
    """Layer whose lease a writer of the table holds: Silver's batches write its dead letters, too."""
    return "silver" if name == DLQ else name.layer


@dataclass(frozen=True)
class TableFacts:
    """What the log says of a table now: properties, table features that readers and writers need to know, columns' types."""

    properties: Mapping[str, str]
    features: frozenset[str] = frozenset()
    columns: Mapping[str, str] = field(default_factory=dict)
    """Spark types by name."""
    has_variants: bool = False


@dataclass(frozen=True)
class Difference:
    """One thing that differs from the contract: `found` instead of `expected`; `key`: a property, a feature, or a column."""

    table: TableName
    kind: Kind
    key: str
    found: str
    expected: str
    sound: int | None = None
    """Newest version in which the columns were as expected, where there is one that the log still tells."""

    def __str__(self) -> str:
        if self.kind == "feature":
            return f"{self.table} has the table feature {self.key}, which the jobs and plain readers do not know"
        if self.kind == "column":
            return f"Column {self.key} of {self.table} has the type {self.found}, expected {self.expected}"
        least = "at least " if self.kind == "short" else ""
        return f"{self.table} has {self.key} = {self.found}, expected {least}{self.expected}"


def differing_columns(facts: TableFacts, defined: TableDef) -> Iterator[Difference]:
    """Compare the types of the columns that a table has with its definition."""
    for column in defined.columns:
        if (kind := facts.columns.get(column.name, column.type)) != column.type:
            yield Difference(defined.name, "column", column.name, kind, column.type)


def differences(name: TableName, facts: TableFacts, defined: TableDef | None = None) -> Iterator[Difference]:
    """Compare a table with its contract, and with `defined` the types of its columns.

    A column that is missing is no difference: the start of a job adds those of a newer version.
    """
    contract = CONTRACTS[name]
    if defined is not None:
        yield from differing_columns(facts, defined)
    for key in sorted(facts.properties):
        if key.startswith(CONSTRAINTS):
            yield Difference(name, "wrong", key, facts.properties[key], NOTHING)
    in_use = {"columnMapping"} if maps_columns(facts.properties) else set()
    in_use |= {"variantType"} if facts.has_variants else set()
    for feature in sorted(facts.features - (LISTED - in_use) - contract.features):
        yield Difference(name, "feature", feature, "on", "off")
    for key, expected in contract.fixed.items():
        found = facts.properties.get(key, _DEFAULTS[key])
        if found.lower() != expected:
            yield Difference(name, "harmless" if key in contract.harmless else "wrong", key, found, expected)
    kept = facts.properties.get(TRANSACTION_RETENTION)
    if kept is not None and (interval_days(kept) or 0) < (interval_days(FOR_EVER) or 0):
        yield Difference(name, "wrong", TRANSACTION_RETENTION, kept, FOR_EVER)
    for key, days in contract.least.items():
        duration = facts.properties.get(key)
        found_days = None if duration is None else interval_days(duration)
        if found_days is not None and found_days < days:
            yield Difference(name, "short", key, str(duration), f"interval {days} days")


_INTERVAL = re.compile(r"(\d+(?:\.\d+)?)\s*(millisecond|second|minute|hour|day|week)s?", re.IGNORECASE)
_DAYS = {"millisecond": 1 / 86_400_000, "second": 1 / 86_400, "minute": 1 / 1440, "hour": 1 / 24, "day": 1.0, "week": 7.0}


def interval_days(text: str) -> float | None:
    """Days of an interval as Delta writes it (`interval 1 week`); None where it is not understood."""
    found = _INTERVAL.findall(text)
    return sum(float(number) * _DAYS[unit.lower()] for number, unit in found) if found else None
