"""Writes the parts of docs/quality.md that code and suites say: `python -m scripts.docs_quality`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.gold.gate.audited import audited_columns
from pipelines.gold.gate.suites import Expectation, Suite, read_suites
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import Column
from pipelines.lake.views import BILL

PAGE = PROJECT / "docs" / "quality.md"

_LONGEST_LIST = 8
"""Values of an argument that are shown; of a longer list the number stands there, and the file has it."""
_PART = re.compile(r"(<!-- written: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def quality_page(page: str) -> str:
    """Give `page` with each part between `<!-- written: NAME -->` and `<!-- end -->` written anew; the rest stays."""
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    columns = audited_columns(settings)
    names = {name: [column.name for column in known] for name, known in columns.items()}
    suites = read_suites(str(PROJECT / "conf/expectations"), names)
    parts = {"columns": _columns(columns), "expectations": _expectations(suites), "bill": _bill()}
    return _PART.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n{found[3]}", page)


def _columns(columns: Mapping[str, Sequence[Column]]) -> str:
    sections = []
    for name, known in columns.items():
        rows = [f"| `{column.name}` | {column.type} | {_cell(column.doc)} |" for column in known]
        sections.append("\n".join([f"### Rows of `{name}`", "", "| column | type | meaning |", "|---|---|---|", *rows, ""]))
    return "\n".join(sections)


def _expectations(suites: Sequence[Suite]) -> str:
    sections = []
    for suite in suites:
        head = [f"### `{suite.name}.yaml`, on the rows of `{suite.audits}`", "", "| id | expects | what it is for | playbook |"]
        sections.append("\n".join([*head, "|---|---|---|---|", *(_row(one) for one in suite.expectations), ""]))
    return "\n".join(sections)


def _row(one: Expectation) -> str:
    arguments = "; ".join(f"{name}: {_value(value)}" for name, value in one.kwargs.items())
    expects = f"`{one.type}`{f' ({arguments})' if arguments else ''}"
    warns = " (warns)" if one.severity == "warns" else ""
    return f"| `{one.id}`{warns} | {_cell(expects)} | {_cell(one.says)} | [{one.playbook}](../playbooks/{one.playbook}.md) |"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > _LONGEST_LIST else ", ".join(map(str, value))
    return str(value)


def _bill() -> str:
    tables = {placeholder: f"delta.`<lake.root>/{table.layer}/{table.table}`" for placeholder, table in BILL.reads.items()}
    return f"```sql{BILL.query.format(**tables).rstrip()}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(quality_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
