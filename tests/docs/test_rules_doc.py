"""docs/rules.md lists the rules that pipelines/silver/rules.py has: read off its source, because columns need a session."""

from __future__ import annotations

import ast
import re

import pytest

from pipelines.lake.resources import PROJECT

RULE_ID = re.compile(r"SLV-\d{3}")


def rules_in_code() -> list[tuple[str, str, str]]:
    """Id, name and title of each rule, in order."""
    tree = ast.parse((PROJECT / "pipelines/silver/rules.py").read_text(encoding="utf-8"))
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        texts = [argument.value for argument in call.args[:3] if isinstance(argument, ast.Constant)]
        if len(texts) == 3 and isinstance(texts[0], str) and RULE_ID.fullmatch(texts[0]):
            found.append((texts[0], str(texts[1]), str(texts[2])))
    return sorted(found)


def rules_in_page() -> list[tuple[str, str, str]]:
    page = (PROJECT / "docs/rules.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| SLV-")]
    return sorted((row[0], row[1].strip("`"), row[2]) for row in rows)


def test_page_lists_the_rules_of_the_code() -> None:
    assert rules_in_page() == rules_in_code()


@pytest.mark.parametrize("rule_id", ["SLV-001", "SLV-008", "SLV-101", "SLV-103"])
def test_rules_are_found_in_the_code(rule_id: str) -> None:
    assert rule_id in {found[0] for found in rules_in_code()}
