"""Names the playbook of each cause, in one place: errors and the doctor's findings take it from here."""

from __future__ import annotations

import re

from pipelines.lake.tables import ALL_TABLES, BRONZE, DLQ, GOLD_BY_KEY, GOLD_DAILY, GOLD_HOURLY, SILVER

BILLS = "billing"
CHECKPOINTS = "checkpoint-lost"
DISK = "disk-full"
ENVIRONMENT = "environment"
KAFKA = "kafka-outage"
LOST_OFFSETS = "retention-overrun"
OFFSET_HOLES = "offset-gap"
PERMISSION = "permission"
PROCESS = "spark-crash"
RECORDS = "poison-flood"
STORE = "object-store-outage"
TABLE = "table-contract"
TABLE_FILES = "full-rebuild"
UNKNOWN = "unknown-error"

SHARED = (
    CHECKPOINTS,
    DISK,
    ENVIRONMENT,
    KAFKA,
    LOST_OFFSETS,
    PERMISSION,
    PROCESS,
    RECORDS,
    STORE,
    TABLE,
    TABLE_FILES,
    UNKNOWN,
)
"""The pages that errors from outside are routed to."""

ARCHIVE = "the archive of Bronze"
MADE_FROM = {
    str(BRONZE): ("bronze-corruption", "Kafka, as far as it still holds the records"),
    str(DLQ): (TABLE_FILES, "Bronze, but for what was decided about its letters"),
    str(SILVER): (TABLE_FILES, "Bronze"),
    str(GOLD_BY_KEY): (TABLE_FILES, "Silver"),
    str(GOLD_HOURLY): (TABLE_FILES, "Silver"),
    str(GOLD_DAILY): (TABLE_FILES, "Silver, but for issued bills"),
    ARCHIVE: ("bronze-archive", "Kafka, as far as it still holds the records"),
}
"""Playbook of a table whose files cannot be read, and what it can be made again from; the other tables have nothing."""

_PATH = re.compile(r"/(?P<layer>bronze|silver|gold|ops)/(?P<table>\w+)(?:/|\b)")
_NAMES = {str(name) for name in ALL_TABLES}


def path_of(page: str) -> str:
    """The page's path in the project."""
    return f"playbooks/{page}.md"


def page_for_files_of(table: str) -> str:
    """The page for a table `layer.table` whose files are missing or cut."""
    return MADE_FROM.get(table, (TABLE_FILES, ""))[0]


def table_in(line: str) -> str | None:
    """The lake's table whose path stands in a line, as `layer.table`; the first one."""
    for found in _PATH.finditer(line):
        name = f"{found['layer']}.{found['table']}"
        if name in _NAMES:
            return name
    return None
