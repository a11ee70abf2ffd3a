"""playbooks/README.md lists each playbook that a SQL check names."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_index_lists_each_playbook_with_its_checks() -> None:
    named: dict[str, set[str]] = {}
    for path in (PROJECT / "sql" / "checks").glob("*.sql"):
        header = re.search(r"^-- playbook: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert header, f"{path.name} names no playbook"
        named.setdefault(header[1], set()).add(path.stem)
    rows = re.findall(
        r"^\| `([\w-]+)` \| (.+) \|$", (PROJECT / "playbooks" / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {playbook: set(re.findall(r"`(\w+)`", checks)) for playbook, checks in rows} == named
