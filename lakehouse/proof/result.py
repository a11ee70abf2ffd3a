"""What a check of one invariant found, ready to be shown or written as JSON."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lakehouse.proof.database import Database

Verdict = Literal["holds", "violated", "not checked"]

FIRST = 5
"""How many offenders a finding names."""


@dataclass(frozen=True)
class Finding:
    """One way in which an invariant is broken: how often, and the first places (coordinates, never payload)."""

    problem: str
    count: int
    first: tuple[str, ...] = ()


@dataclass
class Invariant:
    """One invariant with what was counted, what was found and remarks that are no violation."""

    id: str
    title: str
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: str | None = None

    @property
    def verdict(self) -> Verdict:
        """`violated` outweighs `not checked`: a part that could not be checked hides no finding."""
        if self.findings:
            return "violated"
        return "not checked" if self.skipped else "holds"

    def count(self, db: Database, label: str, sql: str) -> int:
        """Record under `label` the number that `sql` returns."""
        self.counts[label] = db.number(sql)
        return self.counts[label]

    def expect_none(self, db: Database, problem: str, sql: str) -> int:
        """Add a finding if `sql` returns rows; columns `topic, p, o` are shown as coordinates, others as name=value."""
        db.run(f"CREATE OR REPLACE TEMP TABLE offenders AS {sql}")
        if db.has_expired and {"topic", "p", "o"} <= {row[0] for row in db.rows("DESCRIBE offenders")}:
            db.run("""DELETE FROM offenders WHERE EXISTS (FROM expired e WHERE e.topic = offenders.topic AND e.p = offenders.p
                AND offenders.o BETWEEN e.first_offset AND e.last_offset)""")
        total = db.number("SELECT count(*) FROM offenders")
        if total:
            first = db.named_rows(f"SELECT * FROM offenders ORDER BY ALL LIMIT {FIRST}")
            self.findings.append(Finding(problem, total, tuple(_place(row) for row in first)))
        return total

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "verdict": self.verdict,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "skipped": self.skipped,
        }


def _place(row: dict[str, Any]) -> str:
    parts = []
    if {"topic", "p", "o"} <= row.keys():
        parts.append(f"{row.pop('topic')}/{row.pop('p')}@{row.pop('o')}")
    parts += [f"{name}={value}" for name, value in row.items()]
    return " ".join(parts)
