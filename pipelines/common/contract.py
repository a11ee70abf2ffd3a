"""Contract of the lake's tables: properties, features and retention that hold whoever writes to them; data and pure checks.

Others may act on a table: OPTIMIZE, VACUUM, commits with metadata of their own, properties that the contract does not name.
A difference of the kind `harmless` is set back by the start of a job, any other one is named with the command that mends it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines.common.tables import (
    ADJUSTMENTS,
    ALL_TABLES,
    BRONZE,
    BRONZE_ARCHIVE,
    CIRCUIT_BREAKER,
    LEDGER,
    SILVER,
    TableName,
)

Kind = Literal["harmless", "wrong", "short", "feature"]
"""`harmless`: set back by the start of a job. `wrong`: a job stops. `short`: goes on for now. `feature`: not read or written."""

APPEND_ONLY, CHANGE_FEED = "delta.appendOnly", "delta.enableChangeDataFeed"
DELETION_VECTORS, COLUMN_MAPPING = "delta.enableDeletionVectors", "delta.columnMapping.mode"
LOG_RETENTION, FILE_RETENTION = "delta.logRetentionDuration", "delta.deletedFileRetentionDuration"
_TRANSACTION_RETENTION = "delta.setTransactionRetentionDuration"

COMMON_PROPERTIES = {
    # Readers without a JVM (status, verify, other engines) read the plain format.
    DELETION_VECTORS: "false",
    # A log of many small commits stays quick to load, and a checkpoint is no work on every tenth live batch.
    "delta.checkpointInterval": "200",
}
"""Properties that a table gets when Spark makes it."""

ALLOWED_FEATURES = frozenset(
    {
        "appendOnly",
        "invariants",
        "changeDataFeed",
        "checkConstraints",
        "generatedColumns",
        "vacuumProtocolCheck",
        "domainMetadata",
    }
)
"""Table features that each reader and writer of the project was tried with."""
"""Others' constraints and generated columns are among them: Delta lists both when any feature is switched on."""


@dataclass(frozen=True)
class Contract:
    """What holds for one table.

    `fixed`: properties and the value that they have or lack (Delta's default), where another one makes a stream stop or lie.
    `least`: shortest retention, in days, for readers that are behind.
    """

    table: TableName
    fixed: Mapping[str, str] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=lambda: {FILE_RETENTION: 7, LOG_RETENTION: 7})


_OFF = {DELETION_VECTORS: "false", COLUMN_MAPPING: "none", _TRANSACTION_RETENTION: ""}
"""For every table; an empty value: the property is not set at all."""
_DEFAULTS = {
    APPEND_ONLY: "false",
    CHANGE_FEED: "false",
    DELETION_VECTORS: "false",
    COLUMN_MAPPING: "none",
    _TRANSACTION_RETENTION: "",
}
_APPEND_ONLY_TABLES = (BRONZE, ADJUSTMENTS)
_FREE = (LEDGER, CIRCUIT_BREAKER, BRONZE_ARCHIVE)

CONTRACTS: Mapping[TableName, Contract] = {
    name: Contract(
        name,
        {
            APPEND_ONLY: "true" if name in _APPEND_ONLY_TABLES else "false",
            **({CHANGE_FEED: "true"} if name == SILVER else {}),
            **_OFF,
        },
    )
    for name in ALL_TABLES
}
"""The contract of each table."""

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_INTERVAL = re.compile(r"(-?\d+)\s*(second|minute|hour|day|week)s?", re.IGNORECASE)
