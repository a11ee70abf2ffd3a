"""A finding of the doctor: one thing that is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]
Confidence = Literal["certain", "likely", "possible"]

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
_CONFIDENCES: tuple[Confidence, ...] = ("certain", "likely", "possible")
EXIT_CODES: dict[Severity, int] = {"critical": 3, "warning": 1, "info": 0}
"""2 stays the code of a wrong flag or setting, as for all commands."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    `critical`: data does not flow, or going on loses some; `warning`: it flows, and somebody has to act; `info`: good to know.
    `evidence` is what was seen, `at_stake` what it costs, in counts; `commands` run as they stand, in this order.
    """

    id: str
    severity: Severity
    title: str
    evidence: str
    confidence: Confidence
    at_stake: str
    playbook: str
    commands: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "playbook": self.playbook_file, "commands": list(self.commands)}

    @property
    def playbook_file(self) -> str:
        """The playbook's path in the project."""
        return f"playbooks/{self.playbook}.md"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Sort: the worst first, of these the surest."""
    return sorted(findings, key=lambda one: (SEVERITIES.index(one.severity), _CONFIDENCES.index(one.confidence)))


def exit_code(findings: Iterable[Finding]) -> int:
    """3 where one is critical, 1 where one is a warning, otherwise 0."""
    return max((EXIT_CODES[finding.severity] for finding in findings), default=0)
