"""Describes a family of errors: they have one kind, one reason and one playbook."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from pipelines.lake.causes.cause import Kind


@dataclass(frozen=True)
class Family:
    """Errors with one way out; `in_a_task`: only where an executor's task failed that was computing on records."""

    kind: Kind
    reason: str
    playbook: str
    patterns: tuple[str, ...]
    in_a_task: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Compiled where there is an error to name: commands that have none need not wait for it."""
        return re.compile("|".join(self.patterns))
