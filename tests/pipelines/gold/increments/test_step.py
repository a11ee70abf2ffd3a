"""The pure step: a table of examples, and a model of Gold that lives through whatever may happen to its tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipelines.gold.increments.position import Position, Void, find_position, position_id, position_note
from pipelines.gold.increments.step import Apply, Idle, Limits, Recompute, Step, next_step
from pipelines.lake.contract.contract import CHANGE_FEED
from pipelines.lake.delta_log.commit import Commit
from pipelines.lake.delta_log.marks import LOST_FILES

ID = position_id("by-key", "silver-1", "sum of bytes")
LIMITS = Limits(step_bytes=100, recompute_bytes=1000)


def append(version: int, size: int = 10) -> Commit:
    return Commit(version, {"operation": "WRITE"}, appends=("a",), changed_bytes=size)


def quiet(version: int, **others: Any) -> Commit:
    return Commit(version, {"operation": "OPTIMIZE"}, **others)


def restore(version: int) -> Commit:
    return Commit(version, {"operation": "RESTORE"}, appends=("a",), changed_bytes=10)


def rebuilt(version: int, lost: bool) -> Commit:
    note = json.dumps({"rebuild": {"run": "r", LOST_FILES: lost}})
    return Commit(version, {"operation": "WRITE", "userMetadata": note}, appends=("b",), removes=("a",), changed_bytes=10)


def moved(version: int, to: int, looked_at: int | None, app_id: str = ID) -> Commit:
    note = json.dumps(position_note(looked_at)) if looked_at is not None else "{}"
    return Commit(version, {"operation": "WRITE", "userMetadata": note}, {app_id: to}, appends=("a",))


@pytest.mark.parametrize(
    ("newest_first", "found"),
    [
        ([moved(4, 9, 3), append(3)], Position(9, 3)),
        ([quiet(6), quiet(5), moved(4, 9, 3)], Position(9, 3)),
        # What others did before the writer looked is known to it.
        ([moved(4, 9, 3), append(3), append(2)], Position(9, 3)),
        ([moved(4, 9, 1), quiet(3), quiet(2)], Position(9, 1)),
        ([], Void("its log holds no position")),
        (
            [quiet(1), moved(0, 9, None, "lakehouse-another")],
            Void("version 0 holds the position of another source, or of measures defined otherwise"),
        ),
        ([append(5), moved(4, 9, 3)], Void("version 5 (WRITE) was written by somebody else")),
        ([restore(5), moved(4, 9, 3)], Void("version 5 (RESTORE) was written by somebody else")),
        # A stranger between the look and the commit.
        ([moved(5, 9, 3), append(4)], Void("version 4 (WRITE) was written by somebody else")),
        ([moved(5, 9, 3)], Void("its log does not reach back to what was looked at")),
        ([moved(5, 9, None), quiet(4)], Void("version 5 does not say what its writer had looked at")),
        ([moved(5, 9, 5), quiet(4)], Void("version 5 does not say what its writer had looked at")),
        # An older position that the newest one was made from is of no matter.
        ([moved(6, 9, 4), moved(5, 8, 4), append(4)], Position(9, 4)),
    ],
)
def test_position_is_what_the_log_says_unless_a_stranger_wrote(newest_first: list[Commit], found: Position | Void) -> None:
    assert find_position(newest_first, ID) == found


def test_position_reads_no_more_of_the_log_than_it_needs() -> None:
    def log() -> Iterator[Commit]:
        yield moved(9, 4, 8)
        raise AssertionError

    assert find_position(log(), ID) == Position(4, 8)


@pytest.mark.parametrize(
    ("log", "current", "step"),
    [
        ([], 5, Idle()),
        ([quiet(6), quiet(7)], 7, Idle()),
        ([append(6)], 6, Apply(5, 6)),
        ([quiet(6), append(7), quiet(8)], 8, Apply(5, 7)),
        # By size, and whole versions: one that is larger alone goes alone.
        ([append(6, 60), append(7, 40), append(8, 1)], 8, Apply(5, 7)),
        ([append(6, 500), append(7, 1)], 7, Apply(5, 6)),
        ([append(6, 1), append(7, 500)], 7, Apply(5, 6)),
        # What the log got after the look is for the next step.
        ([append(6), append(7)], 6, Apply(5, 6)),
        ([append(6), restore(7)], 7, Apply(5, 6)),
        ([restore(6), append(7)], 7, Recompute(7, "version 6 of its source is a RESTORE")),
        ([rebuilt(6, lost=False)], 6, Apply(5, 6)),
        ([rebuilt(6, lost=True)], 6, Recompute(6, "version 6 of its source took the place of files that cannot be read")),
        ([append(6, 1001)], 6, Recompute(6, "version 6 of its source changed 1,001 bytes")),
        ([append(6), append(7, 1001)], 7, Apply(5, 6)),
        ([append(7)], 7, Recompute(7, "the log of its source has no version 6 any more")),
        ([quiet(6), append(8)], 8, Recompute(8, "the log of its source has no version 7 any more")),
        ([append(6), append(8)], 8, Apply(5, 6)),
        ([], 4, Recompute(4, "it stands for version 5 of its source, which has come to 4 only")),
        ([quiet(6, configuration={CHANGE_FEED: "true", "x": "1"})], 6, Idle()),
        ([quiet(6, configuration={})], 6, Recompute(6, "version 6 of its source switched the change feed off")),
    ],
)
def test_step_takes_whole_versions_or_recomputes(log: list[Commit], current: int, step: Step) -> None:
    assert next_step(Position(5, 0), log, current, LIMITS) == step


def test_no_position_recomputes_and_says_why() -> None:
    assert next_step(Void("its log holds no position"), [], 3, LIMITS) == Recompute(3, "its log holds no position")


Key = tuple[int, str, str, str]
"""Day, customer, endpoint, API key."""
Row = tuple[Key, int]
"""An event: whose it is, and its bytes."""
Usage = dict[Any, Counter[str]]


def total(rows: Any, of: Callable[[Key], Any]) -> Usage:
    """Events and bytes of `rows` by a part of their keys: what Gold has to say, computed anew."""
    found: Usage = {}
    for key, size in rows:
        found.setdefault(of(key), Counter()).update(events=1, bytes=size)
    return found


@dataclass
class Table:
    """A table with its log: what each version held, and what it changed."""

    name: str
    rows: dict[Any, Any] = field(default_factory=dict)
    log: list[Commit] = field(default_factory=lambda: [Commit(0, {"operation": "CREATE TABLE"})])
    held: list[dict[Any, Any]] = field(default_factory=lambda: [{}])
    oldest: int = 0

    @property
    def version(self) -> int:
        return len(self.log) - 1

    def commit(self, rows: dict[Any, Any], operation: str = "WRITE", **others: Any) -> None:
        changed = rows != self.rows
        if changed:
            others = {"appends": ("a",), "changed_bytes": 10, **others}
        self.rows = rows
        self.log.append(Commit(self.version + 1, {"operation": operation, **others.pop("info", {})}, **others))
        self.held.append(deepcopy(rows))

    def changed(self, after: int, upto: int) -> Iterator[tuple[Any, Any, Any]]:
        """The change feed: name of a row, what it was, what it is."""
        for version in range(after + 1, upto + 1):
            assert version >= self.oldest
            assert self.log[version].operation != "RESTORE"
            assert (self.log[version].configuration or {}).get(CHANGE_FEED) != "false"
            before, now = self.held[version - 1], self.held[version]
            for name in before.keys() | now.keys():
                if before.get(name) != now.get(name):
                    yield name, before.get(name), now.get(name)

    def since(self, position: Position | Void) -> list[Commit]:
        after = position.source_version if isinstance(position, Position) else self.version
        return [one for one in self.log[after + 1 :] if one.version >= self.oldest]


@dataclass
class Planned:
    """A step of a writer that has looked and not written yet."""

    step: Step
    expected: int | None
    looked_at: int
    rows: dict[Any, Any]
    to: int


class GoldLife(RuleBasedStateMachine):
    """Silver changes in any way, others write to Gold, writers die or sleep at any point: Gold is what a recompute gives."""

    LIMITS = Limits(step_bytes=25, recompute_bytes=1000)

    def __init__(self) -> None:
        super().__init__()
        self.silver, self.base = Table("silver"), Table("base")
        self.hourly, self.daily = Table("hourly"), Table("daily")
        self.final: dict[int, Usage] = {}
        self.events = 0
        self.sleeping: list[tuple[Table, Planned]] = []
        self.is_settled = False

    # What happens to Silver.

    keys = st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("kl"))
    sizes = st.integers(0, 5)

    @rule(rows=st.lists(st.tuples(keys, sizes), min_size=1, max_size=3))
    def insert(self, rows: list[Row]) -> None:
        first = self.events
        self.events += len(rows)
        self._write_silver(self.silver.rows | {first + n: row for n, row in enumerate(rows)})

    @rule(key=keys, size=sizes, which=st.integers(0, 10_000))
    def replace(self, key: Key, size: int, which: int) -> None:
        if self.silver.rows:
            name = sorted(self.silver.rows)[which % len(self.silver.rows)]
            self._write_silver(self.silver.rows | {name: (key, size)})

    @rule(which=st.integers(0, 10_000))
    def delete(self, which: int) -> None:
        if self.silver.rows:
            name = sorted(self.silver.rows)[which % len(self.silver.rows)]
            self._write_silver({one: row for one, row in self.silver.rows.items() if one != name})

    @rule(what=st.sampled_from(["swap", "roll back", "feed", "log"]), back=st.integers(1, 5), row=st.tuples(keys, sizes))
    def break_silvers_feed(self, what: str, back: int, row: Row) -> None:
        """One rule for all of these: after most steps the position is to be good."""
        if what == "swap":
            self._swap()
        elif what == "roll back":
            self._write_silver(dict(self.silver.held[max(0, self.silver.version - back)]), operation="RESTORE")
        elif what == "feed":
            self._switch_the_feed_off_and_on(row)
        else:
            for table in (self.silver, self.base):
                table.oldest = table.version

    def _swap(self) -> None:
        """All of it is written anew."""
        self._write_silver({name: (key, size + 1) for name, (key, size) in self.silver.rows.items()}, changed_bytes=2000)

    @rule(which=st.sampled_from(["silver", "base", "hourly", "daily"]))
    def optimize(self, which: str) -> None:
        table: Table = getattr(self, which)
        table.commit(table.rows, "OPTIMIZE")

    def _switch_the_feed_off_and_on(self, row: Row) -> None:
        self.silver.commit(self.silver.rows, "SET TBLPROPERTIES", configuration={CHANGE_FEED: "false"})
        self.insert([row])
        self.silver.commit(self.silver.rows, "SET TBLPROPERTIES", configuration={CHANGE_FEED: "true"})

    def _write_silver(self, rows: dict[Any, Any], operation: str = "WRITE", **others: Any) -> None:
        self.is_settled = False
        self.silver.commit(rows, operation, **others)

    # What others do to Gold.

    @rule(
        which=st.sampled_from(["base", "hourly", "daily"]),
        restores=st.booleans(),
        more=st.integers(1, 3),
        at=st.integers(0, 10_000),
    )
    def foreign_commit(self, which: str, restores: bool, more: int, at: int) -> None:
        table: Table = getattr(self, which)
        if restores and which != "daily":
            self.is_settled = False
            table.commit(dict(table.held[max(0, table.version - more)]), "RESTORE")
            return
        open_rows = [key for key in table.rows if which != "daily" or key[0] not in self.final]
        if open_rows:
            self.is_settled = False
            key = sorted(open_rows)[at % len(open_rows)]
            table.commit(table.rows | {key: table.rows[key] + Counter(events=more)})

    # What our writers do.

    @rule(which=st.sampled_from(["base", "hourly", "daily"]))
    def step(self, which: str) -> None:
        """One step of one table; a driver that dies before the next one leaves just that."""
        table: Table = getattr(self, which)
        self._write(table, self._plan(table))

    @rule(which=st.sampled_from(["base", "hourly", "daily"]), row=st.tuples(keys, sizes), more=st.integers(1, 3))
    def step_while_a_stranger_writes(self, which: str, row: Row, more: int) -> None:
        self.settle()
        self.insert([row])
        if which != "base":
            self.step("base")
        table: Table = getattr(self, which)
        planned = self._plan(table)
        self.foreign_commit(which, False, more, 0)
        self._write(table, planned)

    @rule(which=st.sampled_from(["base", "hourly", "daily"]), row=st.tuples(keys, sizes))
    def two_writers(self, which: str, row: Row) -> None:
        self.settle()
        self.insert([row])
        if which != "base":
            self.step("base")
        table: Table = getattr(self, which)
        first, second = self._plan(table), self._plan(table)
        assert self._write(table, first) == (not isinstance(first.step, Idle))
        self._write(table, second)

    @rule(which=st.sampled_from(["base", "hourly", "daily"]))
    def fall_asleep(self, which: str) -> None:
        table: Table = getattr(self, which)
        self.sleeping.append((table, self._plan(table)))

    @precondition(lambda self: self.sleeping)
    @rule()
    def wake_up(self) -> None:
        table, planned = self.sleeping.pop()
        self._write(table, planned)

    @rule()
    def settle(self) -> None:
        """The stream comes to the end, with the checkpoint that it has or with a new one: no step asks for it."""
        for table in (self.base, self.hourly, self.daily):
            for _ in range(100):
                planned = self._plan(table)
                if isinstance(planned.step, Idle):
                    break
                assert self._write(table, planned)
            else:
                raise AssertionError(planned)
        self.is_settled = True

    @rule(day=st.integers(0, 2))
    def close(self, day: int) -> None:
        """The daily batch: Gold comes to Silver's version, the day is compared with a recompute, and is final."""
        self.settle()
        rows = {key: row for key, row in self.daily.rows.items() if key[0] == day}
        if day not in self.final and rows:
            assert rows == {key: row for key, row in self._wanted(self.daily).items() if key[0] == day}
            self.final[day] = deepcopy(rows)

    def _plan(self, table: Table) -> Planned:
        source = self.silver if table is self.base else self.base
        app_id = position_id(table.name, source.name, "1")
        position = find_position(self._reachable(table), app_id)
        step = next_step(position, source.since(position), source.version, self.LIMITS)
        rows: dict[Any, Any] = dict(table.rows)
        to = source.version
        if isinstance(step, Apply):
            to = step.upto
            rows = self._applied(table, source, step)
        elif isinstance(step, Recompute):
            to = step.version
            rows = self._recomputed(table, source.held[step.version])
        return Planned(step, self._held(table, app_id), table.version, rows, to)

    @staticmethod
    def _held(table: Table, app_id: str) -> int | None:
        """The transaction's version, as any snapshot of the table has it, however long its log is."""
        return next((one.transactions[app_id] for one in reversed(table.log) if app_id in one.transactions), None)

    @staticmethod
    def _reachable(table: Table) -> Iterator[Commit]:
        return (one for one in reversed(table.log) if one.version >= table.oldest)

    def _write(self, table: Table, planned: Planned) -> bool:
        """Compare and set: refused where the position is not the one that the step started from."""
        source = self.silver if table is self.base else self.base
        app_id = position_id(table.name, source.name, "1")
        if isinstance(planned.step, Idle) or self._held(table, app_id) != planned.expected:
            return False
        # What was computed is put into the table as it is now: an addition to the base, rows set by key in the others.
        rows = dict(table.rows)
        before = table.held[planned.looked_at]
        for key in before.keys() | planned.rows.keys():
            was, now = before.get(key, Counter()), planned.rows.get(key)
            if (now or Counter()) == was:
                continue
            if table is self.base and isinstance(planned.step, Apply):
                now = Counter(rows.get(key, Counter()))
                now.update(planned.rows.get(key, Counter()))
                now.subtract(was)
            if now and any(now.values()):
                rows[key] = now
            else:
                rows.pop(key, None)
        table.commit(rows, info={"userMetadata": json.dumps(position_note(planned.looked_at))}, transactions={app_id: planned.to})
        return True

    def _applied(self, table: Table, source: Table, step: Apply) -> dict[Any, Any]:
        rows = dict(table.rows)
        if table is self.base:
            for _, was, now in source.changed(step.after, step.upto):
                for row, sign in ((was, -1), (now, 1)):
                    if row is not None:
                        key, size = row
                        counts: Counter[str] = Counter(rows.get(key))
                        counts.update(events=sign, bytes=sign * size)
                        rows[key] = counts
            return {key: counts for key, counts in rows.items() if any(counts.values())}
        wanted = self._summed(table, source.held[step.upto])
        for key, _, _ in source.changed(step.after, step.upto):
            name = self._name(table, key)
            if name in wanted:
                rows[name] = wanted[name]
            else:
                rows.pop(name, None)
        return self._kept(table, rows)

    def _recomputed(self, table: Table, source_rows: dict[Any, Any]) -> dict[Any, Any]:
        if table is self.base:
            return total(source_rows.values(), lambda key: key)
        return self._kept(table, self._summed(table, source_rows))

    def _kept(self, table: Table, rows: dict[Any, Any]) -> dict[Any, Any]:
        """Final rows stay as they were billed."""
        if table is not self.daily:
            return rows
        rows = {key: row for key, row in rows.items() if key[0] not in self.final}
        return rows | {key: row for day in self.final for key, row in self.final[day].items()}

    def _name(self, table: Table, key: Key) -> Any:
        return key[:3] if table is self.hourly else key[:2]

    def _summed(self, table: Table, base: dict[Any, Any]) -> Usage:
        found: Usage = {}
        for key, counts in base.items():
            found.setdefault(self._name(table, key), Counter()).update(counts)
        return found

    def _wanted(self, table: Table) -> Usage:
        of = {"base": lambda key: key, "hourly": lambda key: key[:3], "daily": lambda key: key[:2]}[table.name]
        return total(self.silver.rows.values(), of)

    @invariant()
    def gold_is_what_a_recompute_gives(self) -> None:
        if not self.is_settled:
            return
        for table in (self.base, self.hourly):
            assert table.rows == self._wanted(table), table.name
        assert self.daily.rows == self._kept(self.daily, self._wanted(self.daily))


TestGoldLife = GoldLife.TestCase
TestGoldLife.settings = hypothesis_settings(max_examples=200, stateful_step_count=50, deadline=None)
