"""What follows the playbooks must itself be able to go red."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.lake.resources import PROJECT
from tests.playbooks import pages
from tests.playbooks.commands import commands_of, complaint
from tests.playbooks.pages import Page, read_page
from tests.playbooks.runner import follow

TEXT = """# A page

```sh
export NAME="${NAME:-nobody}" # whose
```

## Meaning
## Impact
## Diagnosis

```sh exits 3
echo "hello $NAME"
(exit 3)
```

## Mitigation

```sh shown
exit 1
```

## Verify

```sh
LINE | cat
```
"""


def _page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Page:
    (tmp_path / "page.md").write_text(text)
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    return read_page("page")


def test_blocks_run_as_written_with_the_variables_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = _page(tmp_path, monkeypatch, TEXT.replace("LINE", "pwd"))

    followed = follow(page, {"NAME": "you"})

    assert "hello you" in followed.output
    assert str(PROJECT) in followed.output
    assert followed.recovery == followed.diagnosis + followed.mitigation


def test_command_that_fails_in_a_pipe_is_red_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = _page(tmp_path, monkeypatch, TEXT.replace("LINE", "lakehouse no-such-command"))

    with pytest.raises(AssertionError, match=r"page\.md, line 24 \(Verify\) ended with 2"):
        follow(page, {})


def test_variable_that_the_page_does_not_declare_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="declares no variable OTHER"):
        follow(_page(tmp_path, monkeypatch, TEXT), {"OTHER": "1"})


@pytest.mark.parametrize("words", ["exits", "exits one", "often"])
def test_mark_that_means_nothing_is_refused(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a block is marked"):
        _page(tmp_path, monkeypatch, TEXT.replace("exits 3", words))


@pytest.mark.parametrize(
    ("command", "complains"),
    [
        ("lakehouse checkpoint verify X --json", None),
        ("lakehouse up --trigger available-now", None),
        ("lakehouse up --path X", "takes no --path"),
        ("lakehouse checkpoint mend X", "no command `lakehouse checkpoint mend`"),
        ("lakehouse undo", "no command `lakehouse undo`"),
        ("python batch/reconcile_gold.py --date X --config Y", None),
        ("python batch/reconcile_gold.py --day X", "takes no --day"),
        ("python pipelines/silver/silver_processing.py --on-conflict update --from-date X", None),
        ("python batch/none.py", "no script batch/none.py"),
    ],
)
def test_command_is_looked_up_in_the_cli(command: str, complains: str | None) -> None:
    found = complaint(command.split())
    assert found is None if complains is None else complains in str(found)


def test_loops_conditions_and_quotes_are_taken_apart() -> None:
    code = (
        'for JOB in $JOBS; do\n  if [ -e "$X/$JOB" ]; then mv a b; fi\n  lakehouse status \\\n    --json | grep "a; b"\ndone\n'
        'export A=1\nlakehouse sql "SELECT 1;\n  SELECT 2" --csv || test $? -eq 3 # why\n'
    )
    words = list(commands_of(code))
    assert ["mv", "a", "b"] in words
    assert ["lakehouse", "status", "--json"] in words
    assert ["grep", "a; b"] in words
    assert ["lakehouse", "sql", "SELECT 1;\n  SELECT 2", "--csv"] in words
