"""docs/quality.md says what the audited columns, the suites and the view of the bill say."""

from __future__ import annotations

import re

from pipelines.gold.gate.audited import audited_columns
from pipelines.gold.gate.suites import read_suites
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from scripts.docs_quality import PAGE, quality_page

TEXT = PAGE.read_text(encoding="utf-8")


def test_page_is_what_code_and_suites_give() -> None:
    assert quality_page(TEXT) == TEXT, "run `python -m scripts.docs_quality`"


def test_page_has_every_column_and_every_expectation() -> None:
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    columns = audited_columns(settings)
    suites = read_suites(
        str(PROJECT / "conf/expectations"), {name: [one.name for one in known] for name, known in columns.items()}
    )
    for name, known in columns.items():
        section = TEXT.partition(f"### Rows of `{name}`\n")[2].partition("\n#")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [column.name for column in known]
    for suite in suites:
        section = TEXT.partition(f"### `{suite.name}.yaml`")[2].partition("\n#")[0]
        assert re.findall(r"^\| `([\w-]+)`", section, re.MULTILINE) == [one.id for one in suite.expectations]
        warns = {one.id for one in suite.expectations if one.severity == "warns"}
        assert set(re.findall(r"^\| `([\w-]+)` \(warns\) \|", section, re.MULTILINE)) == warns
        for one in suite.expectations:
            row = next(line for line in section.splitlines() if f"| `{one.id}`" in line)
            assert row.endswith(f"[{one.playbook}](../playbooks/{one.playbook}.md) |")


def test_a_part_that_was_changed_by_hand_is_written_anew() -> None:
    changed = TEXT.replace("| `silver-event-id-unique` |", "| `another` |")
    assert changed != TEXT
    assert quality_page(changed) == TEXT
