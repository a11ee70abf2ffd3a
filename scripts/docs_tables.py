"""Writes docs/tables.md from the definitions of tables and views: `python -m scripts.docs_tables`."""

from __future__ import annotations

from collections.abc import Mapping

from lakehouse.operations.definitions import all_definitions
from pipelines.lake.contract.contract import (
    ALLOWED_FEATURES,
    COMMON_PROPERTIES,
    CONTRACTS,
    LEFT_BEHIND,
    LISTED,
    TRANSACTION_RETENTION,
)
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import TableDef
from pipelines.lake.views import ALL_VIEWS, ViewDef

PAGE = PROJECT / "docs" / "tables.md"

_INTRO = """\
# Tables

Written from the `schema.py` of each layer and from `pipelines/lake/views.py` by `python -m scripts.docs_tables`; a test fails
when they differ. [Views](#views) come last.

All tables are Delta tables at `<lake.root>/<layer>/<table>`. Times are UTC. Names that start with `_` are the pipeline's;
the others are the event's. No table is partitioned: file statistics prune (see decisions/0007).
"""

_VIEWS = """\
## Views

Queries that each session of the project, `lakehouse sql` among them, knows by name. No file stands for them.
"""


def tables_page() -> str:
    """Give the page as Markdown: a section for each table and view, a row for each column."""
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    common = _properties("Properties of all tables but the ledger, the circuit breaker and the archive's", COMMON_PROPERTIES)
    tables = [_table(table) for table in all_definitions(settings).values()]
    return "\n".join([_INTRO, f"{common}\n", _contract(), *tables, _VIEWS, *(_view(view) for view in ALL_VIEWS)])


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
    lines = [f"## {table.name}", "", table.comment, "", _facts(table), "", "| column | type | meaning |", "|---|---|---|"]
    lines += [f"| `{column.name}` | {column.type} | {column.doc.replace('|', chr(92) + '|')} |" for column in table.columns]
    if table.properties:
        lines += ["", _properties("Properties", table.properties)]
    return "\n".join(lines) + "\n"


def _view(view: ViewDef) -> str:
    reads = ", ".join(str(table) for table in view.reads.values())
    lines = [f"### {view.name}", "", view.comment, "", f"Reads {reads}; known where these are there."]
    lines += ["", "| column | type | meaning |", "|---|---|---|"]
    lines += [f"| `{column.name}` | {column.type} | {column.doc} |" for column in view.columns]
    return "\n".join([*lines, "", f"```sql\n{view.sql.strip()}\n```"]) + "\n"


def _facts(table: TableDef) -> str:
    source = f"can be made from {table.rebuilt_from} again" if table.rebuilt_from else "cannot be made again"
    return f"Key: {', '.join(f'`{name}`' for name in table.keys)}. Written by {table.writer}; {source}."


def _properties(title: str, properties: Mapping[str, str]) -> str:
    return f"{title}: " + "; ".join(f"`{key}` = `{value}`" for key, value in properties.items()) + "."


if __name__ == "__main__":
    PAGE.write_text(tables_page(), encoding="utf-8")
