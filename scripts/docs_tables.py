"""Writes docs/tables.md from the tables' definitions: `python -m scripts.docs_tables`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from batch import reconciliation
from lakehouse.operations.definitions import definitions
from pipelines.archive import records as archive
from pipelines.bronze import gaps
from pipelines.lake.contract.contract import (
    ALLOWED_FEATURES,
    COMMON_PROPERTIES,
    CONTRACTS,
    LEFT_BEHIND,
    LISTED,
    TRANSACTION_RETENTION,
)
from pipelines.lake.ledger.schema import SCHEMA as LEDGER_SCHEMA
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import load_settings
from pipelines.lake.tables import BRONZE_ARCHIVE, CIRCUIT_BREAKER, LEDGER, TableDef
from pipelines.silver import breaker_store

PAGE = PROJECT / "docs" / "tables.md"

_INTRO = """\
# Tables

Written from the `schema.py` of each layer by `python -m scripts.docs_tables`; a test fails when the two differ.

All tables are Delta tables at `<lake.root>/<layer>/<table>`. Times are UTC. Names that start with `_` are the pipeline's;
the others are the event's. No table is partitioned: file statistics prune (see decisions/0007).
"""

LEDGER_COLUMNS: Mapping[str, tuple[str, str]] = {
    "job": ("string", "bronze, silver or gold."),
    "generation": (
        "string",
        "Identity of the checkpoint; `void:` or `void-dlq:` and a generation: batches of it were taken back, counts are below 0; "
        "`part:` and a generation: what a batch of it left in the tables when it died, counted by another run.",
    ),
    "batch_id": ("bigint", "Spark's number of the batch; it starts at 0 in each generation."),
    "offsets": (
        "string",
        'JSON. Bronze and Silver: `{"<partition>": [first, end]}`, the end exclusive; '
        'a replay of dead letters reads no range: `{}`. Gold: `{"silver_version": [first, last]}`.',
    ),
    "rows_read": (
        "bigint",
        "Rows of the batch; Bronze, Silver: = inserted + replaced + duplicate + already_present + dead_lettered + tombstone.",
    ),
    "inserted": ("bigint", "Rows that are new in the table."),
    "replaced": ("bigint", "Silver: earlier copies that took the place of a later one. Gold: rows that were updated."),
    "duplicate": ("bigint", "Copies of an event that has its row."),
    "conflict": ("bigint", "Of the copies, those with another payload under the same event_id."),
    "already_present": ("bigint", "Records that had their fate from an earlier batch or generation."),
    "dead_lettered": ("bigint", "Records that became dead letters."),
    "tombstone": ("bigint", "Records with a NULL value."),
    "late": ("bigint", "Of the inserted and replacing rows, those that are late."),
    "holes": (
        "string",
        "JSON: ranges [first, end) inside `offsets` of which the batch saw no record; NULL where there are none.",
    ),
    "versions": ("string", "JSON: versions that the batch wrote; for Silver and Gold also the version that it read up to."),
    "started_at": ("timestamp", "When the batch began."),
    "committed_at": ("timestamp", "When the ledger row was written: after the tables."),
    "duration_ms": ("bigint", "committed_at - started_at."),
}
"""The ledger is written without Spark, so its documentation stands here; its names are tested against its schema."""

_LEDGER_COMMENT = "What each batch read and which fate each record had: one row for a batch."


def tables_page() -> str:
    """Give the page as Markdown: a section for each table, a row for each column."""
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    defined = [*definitions(settings).values(), reconciliation.TABLE, gaps.GAPS_TABLE]
    names = LEDGER_SCHEMA.names
    ledger = _section(str(LEDGER), _LEDGER_COMMENT, ((name, *LEDGER_COLUMNS[name]) for name in names), {})
    docs = breaker_store.COLUMN_DOCS
    columns = ((name, *docs[name]) for name in breaker_store.SCHEMA.names)
    breaker = _section(str(CIRCUIT_BREAKER), breaker_store.COMMENT, columns, {})
    columns = ((name, *archive.COLUMN_DOCS[name]) for name in archive.SCHEMA.names)
    archived = _section(str(BRONZE_ARCHIVE), archive.COMMENT, columns, {})
    common = _properties("Properties of all tables but the ledger, the circuit breaker and the archive's", COMMON_PROPERTIES)
    return "\n".join([_INTRO, f"{common}\n", _contract(), *(_table(table) for table in defined), ledger, breaker, archived])


def _contract() -> str:
    """What each table has to have, whoever works on it."""
    lines = [
        "## Contract",
        "",
        "What each table has to have, whoever works on it ([contract.md](contract.md)). A property that is not set has",
    ]
    lines += [
        "Delta's default. Properties in brackets are set back by the next start of the job that writes the table. No table has"
    ]
    lines += ["CHECK constraints; columns have the types below, and others may stand behind them.", ""]
    lines += ["| table | properties | retention of at least |", "|---|---|---|"]
    for name, contract in CONTRACTS.items():
        fixed = [
            f"[`{key}` = `{value}`]" if key in contract.harmless else f"`{key}` = `{value}`"
            for key, value in contract.fixed.items()
        ]
        least = "; ".join(f"`{key}`: {days} days" for key, days in contract.least.items())
        lines.append(f"| {name} | {'; '.join(fixed)}; `{TRANSACTION_RETENTION}` not set | {least} |")
    features = ", ".join(f"`{feature}`" for feature in sorted(ALLOWED_FEATURES))
    listed = ", ".join(f"`{feature}`" for feature in sorted(LISTED))
    said = f"Table features that a table may use: {features}; of those that Spark writes also `{LEFT_BEHIND}`."
    said += f" Listed, and not in use, may be: {listed}."
    return "\n".join([*lines, "", said, ""])


def _table(table: TableDef) -> str:
    rows = ((column.name, column.type, column.doc) for column in table.columns)
    return _section(str(table.name), table.comment, rows, table.properties)


def _section(name: str, comment: str, rows: Iterable[tuple[str, str, str]], properties: Mapping[str, str]) -> str:
    lines = [f"## {name}", "", comment, "", "| column | type | meaning |", "|---|---|---|"]
    lines += [f"| `{column}` | {kind} | {doc.replace('|', chr(92) + '|')} |" for column, kind, doc in rows]
    if properties:
        lines += ["", _properties("Properties", properties)]
    return "\n".join(lines) + "\n"


def _properties(title: str, properties: Mapping[str, str]) -> str:
    return f"{title}: " + "; ".join(f"`{key}` = `{value}`" for key, value in properties.items()) + "."


if __name__ == "__main__":
    PAGE.write_text(tables_page(), encoding="utf-8")
