"""The playbooks: listed, complete, with commands that exist; every playbook that a check or an error names is there."""

from __future__ import annotations

import ast
import re

import pytest

from lakehouse.operations.checkpoints import findings
from lakehouse.proof.checks import load_checks
from pipelines.lake import playbooks
from pipelines.lake.causes.families.order import FAMILIES
from pipelines.lake.causes.families.os_errors import ERRNO
from pipelines.lake.resources import PROJECT
from tests.playbooks.commands import commands_of, complaint
from tests.playbooks.pages import FOLDER, NOT_PLAYBOOKS, SECTIONS, Page, all_pages

PAGES = all_pages()
NAMES = {page.name for page in PAGES}


def _by_name(page: Page) -> str:
    return page.name


def test_index_lists_each_playbook_with_its_checks() -> None:
    named: dict[str, set[str]] = {name: set() for name in NAMES}
    for check in load_checks():
        named.setdefault(check.playbook, set()).add(check.id)
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[([\w-]+)\]\(\1\.md\) \| [^|]+ \| (.*)\|$", index, re.MULTILINE)
    assert {playbook: set(re.findall(r"`(\w+)`", checks)) for playbook, checks in rows} == named
    assert [playbook for playbook, _ in rows] == sorted(NAMES)


def test_every_playbook_is_followed_by_a_test() -> None:
    tests = (PROJECT / "tests" / "playbooks").glob("test_followed*.py")
    assert {name for path in tests for name in re.findall(r'follow\("([\w-]+)"', path.read_text(encoding="utf-8"))} == NAMES


def test_every_playbook_that_the_code_names_is_there() -> None:
    files = [path for folder in ("lakehouse", "pipelines", "batch", "sql") for path in (PROJECT / folder).rglob("*")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix in (".py", ".sql")]
    named = {name for text in texts for name in re.findall(r"playbooks/([\w-]+)\.md", text)}
    named |= {family.playbook for family in FAMILIES} | {playbook for _, _, playbook in ERRNO.values()}
    named |= {playbook for playbook, _ in playbooks.MADE_FROM.values()} | set(playbooks.SHARED)
    named |= {findings.BROKEN, findings.RETENTION, findings.KAFKA, findings.ROLLBACK, findings.CONTRACT}
    assert named <= NAMES | set(NOT_PLAYBOOKS)


def test_every_playbook_of_a_finding_of_the_doctor_is_there() -> None:
    doctor = PROJECT / "lakehouse" / "operations" / "doctor"
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in doctor.glob("*.py")]
    given = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "playbook"]
    literal = [
        {one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str)} for value in given
    ]
    # What is given by a name alone comes from these two.
    elsewhere = {ast.unparse(value) for value, found in zip(given, literal, strict=True) if not found}
    asked = {one for one in elsewhere if one.startswith("page_for_words(")}
    assert elsewhere - asked == {"found.playbook or BROKEN"}
    assert len(given) > 20
    assert set().union(*literal) <= NAMES


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_playbook_has_all_sections_and_is_short(page: Page) -> None:
    assert tuple(page.sections)[1:] == SECTIONS
    assert all(page.sections[name].strip() or page.of(name) for name in SECTIONS)
    assert page.of("Diagnosis")
    assert page.of("Verify")
    assert len(page.path.read_text(encoding="utf-8").splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_commands_exist_and_use_the_settings_that_were_named(page: Page) -> None:
    for block in page.blocks:
        for words in commands_of(block.code):
            assert complaint(words) is None, f"{page.path.name}, line {block.line}: {complaint(words)}"
            if words[0] in ("lakehouse", "python"):
                assert words[words.index("--config") + 1] == "$CONFIG", f"{page.path.name}, line {block.line}"
    checks = {check.id for check in load_checks()}
    asked = [words for block in page.blocks for words in commands_of(block.code) if words[:2] == ["lakehouse", "check"]]
    assert {word for words in asked for word in words[2:] if re.fullmatch(r"\w+", word)} <= checks


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_commands_in_sentences_exist(page: Page) -> None:
    for text in page.sections.values():
        for code in re.findall(r"`(lakehouse [^`]+)`", text):
            words = next(iter(commands_of(code)))
            assert complaint(words) is None, f"{page.path.name}: {complaint(words)}"


@pytest.mark.parametrize("page", PAGES, ids=_by_name)
def test_variables_are_declared_and_used(page: Page) -> None:
    code = "\n".join(block.code for block in page.blocks if block.section)
    own = set(re.findall(r"for (\w+) in", code))
    used = set(re.findall(r"\$\{?([A-Z_]+)", code)) - own
    assert used == set(page.variables)
    assert "CONFIG" in page.variables


def test_failure_matrix_names_playbooks_that_are_there() -> None:
    matrix = (FOLDER / "failure-matrix.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([\w-]+)\.md\)", matrix))
    assert named <= NAMES | set(NOT_PLAYBOOKS)
    assert NAMES - named == set()
