"""Contract of the lake's tables: properties, table features and retention that hold whoever writes to them.

Others may act on a table: commit with metadata of their own, OPTIMIZE, VACUUM with the default retention, set properties that the
contract does not name. This module holds the contract as data and a pure check; `table_facts` reads what a table's log says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from deltalake import DeltaTable

from pipelines.common.opening import COLUMN_MAPPING, maps_columns, open_table, reader_features
from pipelines.common.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE,
    BRONZE_ARCHIVE,
    CIRCUIT_BREAKER,
    DLQ,
    GOLD_DAILY,
    GOLD_HOURLY,
    KNOWN_GAPS,
    LEDGER,
    RECONCILIATION,
    SILVER,
    TableName,
)

Kind = Literal["harmless", "wrong", "short", "feature"]
"""`harmless`: the start of a job sets it back. `wrong`: a job refuses to start. `short`: goes on, until a reader is that far
behind. `feature`: switched on for good, and not read or written rightly here; a job refuses to start."""

APPEND_ONLY, CHANGE_FEED = "delta.appendOnly", "delta.enableChangeDataFeed"
DELETION_VECTORS = "delta.enableDeletionVectors"
LOG_RETENTION, FILE_RETENTION = "delta.logRetentionDuration", "delta.deletedFileRetentionDuration"
TRANSACTION_RETENTION = "delta.setTransactionRetentionDuration"
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

Column mapping is in use only where its property says so, which the contract holds; the others need a column of their kind.
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


_ONLY_ADDED_TO = (LEDGER, RECONCILIATION, KNOWN_GAPS, CIRCUIT_BREAKER)
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

WRITTEN_BY: Mapping[str, tuple[TableName, ...]] = {
    "bronze": (BRONZE,),
    "silver": (SILVER, DLQ),
    "gold": (GOLD_HOURLY, GOLD_DAILY),
}
"""Tables that the stream of a layer writes, without the ledger, which all write."""


def lease_layer(name: TableName) -> str:
    """Layer whose lease a writer of the table holds: Silver's batches write its dead letters, too."""
    return "silver" if name == DLQ else name.layer


@dataclass(frozen=True)
class TableFacts:
    """What the log says of a table now: its properties, and the table features that its readers and writers need to know."""

    properties: Mapping[str, str]
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Difference:
    """One thing that differs from the contract: `found` instead of `expected`; `key`: a property, or the name of a feature."""

    table: TableName
    kind: Kind
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        if self.kind == "feature":
            return f"{self.table} has the table feature {self.key}, which the jobs and plain readers do not know"
        least = "at least " if self.kind == "short" else ""
        return f"{self.table} has {self.key} = {self.found}, expected {least}{self.expected}"


def table_facts(table: DeltaTable) -> TableFacts:
    """Read the facts of a table that is open."""
    properties = {str(key): str(value) for key, value in table.metadata().configuration.items()}
    return TableFacts(properties, frozenset({*reader_features(table), *(table.protocol().writer_features or ())}))


def differences_at(name: TableName, path: str) -> list[Difference]:
    """Compare the table at `path` with its contract; a table that is not there has no difference. Raises as `open_table`."""
    table = open_table(path)
    return [] if table is None else list(differences(name, table_facts(table)))


def differences(name: TableName, facts: TableFacts) -> Iterator[Difference]:
    """Compare a table with its contract."""
    contract = CONTRACTS[name]
    not_in_use = LISTED - {"columnMapping"} if maps_columns(facts.properties) else LISTED
    for feature in sorted(facts.features - not_in_use - contract.features):
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
