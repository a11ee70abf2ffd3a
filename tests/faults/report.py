"""Pytest plugin of `make test-faults`: keeps what each case showed, and writes docs/reliability.md from it.

Results are kept by seed in docs/reliability, each with its commit and at once, so that runs with several seeds, runs of
some tests alone and runs that were stopped come together; `--missing` goes on with a run that was stopped.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.resources import PROJECT
from tests.faults.catalogue import FAULTS

PAGE = PROJECT / "docs" / "reliability.md"
RESULTS = PAGE.with_suffix("")
KINDS = ("case", "mutant", "control")
TIMES = ("playbook", "session")
SAID = ("fired", "held", "red", "recovery", "conservation")

Row = dict[str, Any]

_PASSED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep results where the tests are led from; a worker of pytest-xdist has its results kept there.

    What had passed when the run began is told to each worker: one that takes a dead one's place has to find the same tests.
    """
    told: dict[str, Any] | None = getattr(config, "workerinput", None)
    if told is None:
        kept = _kept_at(config)
        config.stash[_PASSED] = [test for test, row in _kept(kept).items() if row["outcome"] == "passed"]
        config.pluginmanager.register(Keeper(kept, PAGE, _state()))
    else:
        config.stash[_PASSED] = told["passed"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist what had passed."""
    node.workerinput["passed"] = node.config.stash[_PASSED]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seed N` and `--missing`."""
    parser.addoption("--seed", type=int, default=1, help="seed of the fault suite's events and random moments")
    parser.addoption("--missing", action="store_true", help="only tests that have not passed with this seed: a run goes on")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each test say which cases it shows: properties travel with its report, also from another process."""
    for item in items:
        for kind in KINDS:
            named = [name for mark in item.iter_markers(kind) for name in mark.args or ("",)]
            if unknown := [name for name in named if kind == "case" and name not in FAULTS]:
                msg = f"{item.nodeid} names the cases {unknown}, which tests/faults/catalogue.py has not."
                raise pytest.UsageError(msg)
            item.user_properties += [(kind, name) for name in named]
    if config.getoption("--missing"):
        before = config.stash[_PASSED]
        passed = [item for item in items if _name(item.nodeid) in before]
        items[:] = [item for item in items if item not in passed]
        config.hook.pytest_deselected(items=passed)


class Keeper:
    """Keeps each result in the file `kept` as it comes, with the `state` of the code, and writes `page` anew."""

    def __init__(self, kept: Path, page: Path, state: str) -> None:
        self.kept, self.page, self.state = kept, page, state

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a test's result, once: its call, or the set-up that kept it from being called."""
        said = [(name, value) for name, value in report.user_properties if name in (*KINDS, *TIMES, *SAID)]
        if not any(name in (*KINDS, *TIMES) for name, _ in said) or (report.when != "call" and not report.failed):
            return
        if os.environ.get("SPARK_SUBMIT_OPTS"):
            # Another JVM than the system has: what it shows holds, how long it took says nothing.
            said = [(name, value) for name, value in said if name not in (*TIMES, "recovery")]
        row: Row = {name: [value for found, value in said if found == name] for name, _ in said}
        row |= {"outcome": report.outcome, "seconds": round(report.duration, 1), "state": self.state}
        self._keep(_name(report.nodeid), row)

    def _keep(self, test: str, row: Row) -> None:
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.kept.with_suffix(".new")
        fresh.write_text(json.dumps({**_kept(self.kept), test: row}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(self.kept)
        seeds = {int(path.stem.removeprefix("seed-")): path for path in sorted(self.kept.parent.glob("seed-*.json"))}
        self.page.write_text(page({seed: _kept(path) for seed, path in seeds.items()}), encoding="utf-8")


def _name(test: str) -> str:
    """Name of a result: a run on a lake of another size stands beside the usual one."""
    events = os.environ.get("LAKEHOUSE_TEST_EVENTS")
    return f"{test} with {events} events" if events else test


def _kept_at(config: pytest.Config) -> Path:
    return RESULTS / f"seed-{config.getoption('--seed')}.json"


def _kept(path: Path) -> dict[str, Row]:
    rows: dict[str, Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return rows


def _state() -> str:
    """Commit and day of the code that is tested; "+" where it has changes that are in no commit."""

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs")
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{'+' if changed else ''} of {datetime.now(UTC):%F}"


_INTRO = """\
# Reliability

Written by `make test-faults` (knob `SEED`), never by hand: what each fault did, and what held after it, by the independent
checker (`lakehouse verify`). *Fired* says how it is known that the fault happened. *Recovery* is the time in seconds from
the fault's end until no layer lags, the start of a driver included, for each seed whose run took it (not with `QUICK=1`, nor
where nothing has to recover). *Result* counts the runs of each seed. A case without a result says so, and so does one whose
invariants were not all asked for.

{seeds}

| case | fault | has to hold | fired | held | recovery, s | result |
|---|---|---|---|---|---|---|
"""
_CONTROLS = """
## Controls and mutants

In a control nothing happens, and the checker has to be green. A mutant is the system broken on purpose: the checker has to
be red, and the invariants that it named are given.

| what | checker | result |
|---|---|---|
"""
_CONSERVATION = """
## Ten kills at random moments, under load

Where every record went: those that Kafka acknowledged are in Bronze, and each of them has one fate.

| acknowledged | Bronze | Silver | duplicates | dead letters | tombstones | together |
|---|---|---|---|---|---|---|
"""
_PLAYBOOKS = """
## Playbooks, followed as they are written

Seconds from the end of the fault until Diagnosis and Mitigation had ended and no layer lagged, every start of Spark included
(10 to 20 s each), then until Verify had. Several numbers: several faults, or seeds.

| playbook | records in Bronze | recovered, s | of it diagnosis, s | verified in, s more |
|---|---|---|---|---|
"""
_SESSIONS = """
## An operator's sessions

Something breaks, `lakehouse doctor` names it, what it prints is typed, `lakehouse check` is green.

| what broke | from the first look to green checks, s |
|---|---|
"""


def page(seeds: dict[int, dict[str, Row]]) -> str:
    """The page for {seed: {test: its row}}."""
    text = _INTRO.format(seeds="\n".join(f"- Seed {seed}: {_ran(list(rows.values()))}" for seed, rows in seeds.items()))
    for id_, fault in FAULTS.items():
        text += f"| {id_} | {fault.what} | {fault.proof} | {' | '.join(_cells(id_, seeds))} |\n"
    text += _CONTROLS
    rows = [row for of_seed in seeds.values() for row in of_seed.values()]
    for kind in ("control", "mutant"):
        for name in dict.fromkeys(name for row in rows for name in row.get(kind, [])):
            by_seed = _of(kind, name, seeds)
            shown = [row for of_seed in by_seed for row in of_seed]
            checker = f"green. {_fired(shown)}" if kind == "control" else f"red: {_words(shown, 'red')}"
            text += f"| {kind}: {name} | {checker} | {_result(by_seed)} |\n"
    return text + _conservation(rows) + _times(rows)


def _ran(rows: list[Row]) -> str:
    failed = sum(row["outcome"] != "passed" for row in rows)
    return f"{len(rows)} runs, {failed} failed; commit {', '.join(sorted({row['state'] for row in rows}))}"


def _conservation(rows: list[Row]) -> str:
    sides = ("acknowledged", "bronze", "silver", "duplicates", "dead_letters", "tombstones", "fates")
    shown = (counts for row in rows for counts in row.get("conservation", []))
    return _CONSERVATION + "".join(f"| {' | '.join(f'{counts[side]:,}' for side in sides)} |\n" for counts in shown)


def _times(rows: list[Row]) -> str:
    followed: dict[tuple[str, int], list[list[float]]] = {}
    for page_name, records, *seconds in (one for row in rows for one in row.get("playbook", [])):
        followed.setdefault((page_name, records), []).append(seconds)
    sessions: dict[str, list[float]] = {}
    for fault, took in (one for row in rows for one in row.get("session", [])):
        sessions.setdefault(fault, []).append(took)
    text = _PLAYBOOKS
    for (page_name, records), each in sorted(followed.items()):
        cells = " | ".join(" / ".join(f"{one:.0f}" for one in column) for column in zip(*each, strict=True))
        text += f"| [{page_name}](../playbooks/{page_name}.md) | {records:,} | {cells} |\n"
    text += _SESSIONS
    for fault, times in sorted(sessions.items()):
        text += f"| {fault} | {' / '.join(f'{one:.0f}' for one in times)} |\n"
    return text


def _cells(id_: str, seeds: dict[int, dict[str, Row]]) -> list[str]:
    by_seed = _of("case", id_, seeds)
    shown = [row for rows in by_seed for row in rows]
    if not shown:
        return ["-", "-", "-", "with the object store, not yet" if "object store" in FAULTS[id_].what else "not run"]
    slowest = [max((float(one) for row in rows for one in row.get("recovery", [])), default=None) for rows in by_seed if rows]
    recovery = " / ".join("-" if one is None else f"{one:.0f}" for one in slowest)
    held = _words(shown, "held")
    result, missing = _result(by_seed), _missing(FAULTS[id_].proof, held)
    if missing and "FAILED" not in result:
        result += f"; not asked: {missing}"
    return [_fired(shown) or "not shown", held or "-", recovery, result]


def _of(kind: str, name: str, seeds: dict[int, dict[str, Row]]) -> list[list[Row]]:
    """Of each seed the rows of one case, mutant or control."""
    return [[row for row in rows.values() if name in row.get(kind, [])] for rows in seeds.values()]


def _missing(proof: str, held: str) -> str:
    """What of `I1-I3 I9` is not among the invariants that held."""
    wanted: list[str] = []
    for word in proof.split():
        first, _, last = word.replace("I", "").partition("-")
        wanted += [f"I{number}" for number in range(int(first), int(last or first) + 1)]
    return " ".join(id_ for id_ in wanted if id_ not in held.split())


def _fired(rows: list[Row]) -> str:
    return "; ".join(dict.fromkeys(one for row in rows for one in row.get("fired", [])))


def _words(rows: list[Row], name: str) -> str:
    return " ".join(dict.fromkeys(word for row in rows for text in row.get(name, []) for word in text.split()))


def _result(by_seed: list[list[Row]]) -> str:
    """By seed, so that a seed whose run left tests of a case out does not look whole."""
    failed = [sum(row["outcome"] != "passed" for row in rows) for rows in by_seed]
    ran = " / ".join(str(len(rows)) for rows in by_seed)
    return f"{' / '.join(map(str, failed))} of {ran} runs FAILED" if any(failed) else f"{ran} runs passed"
