"""The tables: logs that cannot be read, and holes in the offsets that nobody has explained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from lakehouse.operations.doctor.facts import NEWEST_ROWS, THE_GAPS, THE_TABLES, Facts
from lakehouse.operations.doctor.findings import Finding
from pipelines.lake.causes.pages import page_for_words
from pipelines.lake.ledger.ranges import Ranges, covered_by, subtract
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.playbooks import MADE_FROM, STORE

_SHOWN = 5


def check_tables(facts: Facts) -> Iterator[Finding]:
    """Look at the logs, at the ledger's offsets, and say what could not be read."""
    for table in facts.status.tables:
        if table.problem and table.kind == "not understood":
            yield _not_understood(facts, table.name, table.problem)
        elif table.problem and table.kind != "not readable" and not _is_derived(facts, table.name):
            yield _broken_log(facts, table.name, table.problem)
    if not facts.lacks(THE_GAPS):
        yield from _check_holes(facts)
    unread: dict[str, list[str]] = {}
    for what, why in facts.unread.items():
        unread.setdefault(why, []).append(what)
    for why, names in unread.items():
        what, is_all = _listed(names), names == [THE_TABLES]
        yield Finding(
            id="store-unreachable" if is_all else "not-examined",
            severity="critical" if is_all else "warning",
            title=f"Could not look at {what}",
            evidence=why,
            confidence="certain",
            at_stake=f"What may be wrong with {what} is unknown.",
            playbook=page_for_words(why, otherwise=STORE if is_all else None),
            commands=(facts.commands.lakehouse("status"),),
        )


def _is_derived(facts: Facts, name: str) -> bool:
    """Whether a damaged derived file is why the log cannot be read, which is a finding already: the commits are all there."""
    return any(str(table) == name and not damage.is_lost for table, damage in facts.neighbours.damage.items())


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _not_understood(facts: Facts, name: str, problem: str) -> Finding:
    return Finding(
        id="table-not-understood",
        severity="warning",
        title=f"The readers without Spark do not understand {name}",
        evidence=problem,
        confidence="certain",
        at_stake=(
            f"No row is lost. What may be wrong in {name} is unknown, and a stream that looks rows up in it without Spark stops."
        ),
        playbook="table-contract",
        commands=(facts.commands.lakehouse("status"),),
    )


def _broken_log(facts: Facts, name: str, problem: str) -> Finding:
    layer, _, table = name.partition(".")
    path = f"{facts.settings.lake.root.rstrip('/')}/{layer}/{table}"
    _, source = MADE_FROM.get(name, ("", None))
    from_where = f" It can be made again from {source}." if source else ""
    return Finding(
        id="table-unreadable",
        severity="critical",
        title=f"The log of {name} is damaged",
        evidence=problem,
        confidence="certain",
        at_stake=f"Nothing can read or write {name}, so its stream and all after it stand still.{from_where}",
        playbook=page_for_words(problem, name),
        commands=(f"ls -l {path}/_delta_log", facts.commands.lakehouse("status")),
    )


def _check_holes(facts: Facts) -> Iterator[Finding]:
    """Holes between the ranges that Bronze's batches read, and holes inside them that Silver found."""
    rows = facts.rows.get("bronze", [])
    read = covered_by(rows)
    between = subtract(gaps(_from_oldest(read, rows)), facts.known_gaps)
    inside = subtract(_seen_by_silver(facts, read), facts.known_gaps)
    repair = (facts.commands.lakehouse("repair", "bronze", "--dry-run"), facts.commands.lakehouse("repair", "bronze"))
    if between:
        yield Finding(
            id="offset-holes",
            severity="critical",
            title="Bronze's batches leave offsets out",
            evidence=f"Between the ranges of its ledger lie {named(between)}, and ops.known_gaps does not explain them.",
            confidence="likely",
            at_stake=f"Up to {count(between):,} records are in no table and on no bill; the repair takes what Kafka still has.",
            playbook="offset-gap",
            commands=repair,
        )
    if inside:
        yield Finding(
            id="offset-holes-inside",
            severity="info",
            title="Bronze's batches have offsets without a record",
            evidence=f"Silver found no record at {named(inside)}, and ops.known_gaps does not explain it.",
            # Transactional producers and compaction leave such holes all the time.
            confidence="possible",
            at_stake=f"Transaction markers or compacted records, as a rule; if not, up to {count(inside):,} records are missing.",
            playbook="offset-gap",
            commands=repair,
        )


def gaps(ranges: Ranges) -> dict[int, list[tuple[int, int]]]:
    """What lies between the ranges of each partition."""
    found = {part: [(left[1], right[0]) for left, right in pairwise(spans)] for part, spans in ranges.items()}
    return {part: spans for part, spans in found.items() if spans}


def _from_oldest(read: Ranges, rows: list[LedgerRow]) -> Ranges:
    """Leave out what lies before the oldest row of the newest generation, where rows of before it were not read."""
    if len(rows) < NEWEST_ROWS:  # all that the ledger has
        return read
    oldest = next(row for row in rows if row.generation == rows[-1].generation)
    low = {part: start for part, (start, _) in oldest.spans.items()}
    cut = {
        part: [(max(start, low.get(part, 0)), stop) for start, stop in spans if stop >= low.get(part, 0)]
        for part, spans in read.items()
    }
    return {part: spans for part, spans in cut.items() if spans}


def _seen_by_silver(facts: Facts, read: Ranges) -> dict[int, list[tuple[int, int]]]:
    """Offsets that Bronze has read and of which no batch of Silver saw a record, though it read on both sides."""
    rows = facts.rows.get("silver", [])
    holes: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        for part, spans in row.holes.items():
            holes.setdefault(int(part), []).extend((start, stop) for start, stop in spans)
    outside = subtract(holes, covered_by(rows))
    return subtract(outside, gaps(read))


def count(ranges: Ranges) -> int:
    """Offsets in ranges [start, end)."""
    return sum(stop - start for spans in ranges.values() for start, stop in spans)


def named(ranges: Ranges) -> str:
    """The first few ranges for a sentence."""
    spans = [(part, start, stop - 1) for part, found in sorted(ranges.items()) for start, stop in found]
    text = "; ".join(f"partition {part}: {start} to {last}" for part, start, last in spans[:_SHOWN])
    return f"{text} and {len(spans) - _SHOWN} more ranges" if len(spans) > _SHOWN else text
