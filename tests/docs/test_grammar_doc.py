"""docs/grammar.md lists the codes that a dead letter's sentence is made from."""

from __future__ import annotations

import re

from pipelines.lake.resources import PROJECT
from pipelines.silver.rules import BOUNDS, MALFORMED

PAGE = (PROJECT / "docs/grammar.md").read_text(encoding="utf-8")


def _codes(text: str) -> set[str]:
    return {code.partition(":")[0] for code in re.findall(r"`([a-z0-9_]+(?::<[a-z ]+>)?)`", text)}


def test_page_lists_every_detail_and_no_other() -> None:
    table = PAGE.partition("| `detail` of SLV-004 |")[2].partition("\n\n")[0]
    codes = set().union(*(_codes(row.split("|")[1]) for row in table.splitlines() if row.startswith("| `")))

    assert codes == set(MALFORMED)


def test_page_names_every_bound() -> None:
    assert set(BOUNDS) <= _codes(PAGE.partition("`bounds` has what each field breaks")[2])
