"""Remember what one run of Silver knows between its batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.lake.tables import DLQ, SILVER
from pipelines.silver.dedup.lookup import DeadLetterLookup, SilverLookup
from pipelines.silver.judge import History, Judged


@dataclass
class Progress:
    """All that a run remembers; the only part of the sink that changes.

    `seen`: table versions, by name, up to which the run checked for a RESTORE; empty before the first check.
    `lookup_version`: version of Silver that the lookup's memory stands for. `history`: what other runs read; None: read it
    anew. `has_begun`: whether a batch with records has come.
    """

    lookup: SilverLookup
    dead_letters: DeadLetterLookup
    seen: dict[str, int] = field(default_factory=dict)
    lookup_version: int | None = None
    history: History | None = None
    has_begun: bool = False

    def forget(self) -> None:
        """Read the tables and the ledger anew for the next batch: somebody else may have written to them."""
        self.lookup_version, self.history = None, None
        self.dead_letters.forget()

    def start_over(self) -> None:
        """Take the next batch for the first: a try of it failed and may have written something."""
        self.forget()
        self.has_begun = False

    def wrote(self, judged: Judged, versions: Mapping[str, int]) -> None:
        """Remember what a batch wrote: the rows, and the tables' `versions` after it."""
        self.dead_letters.remember(judged.dead_letters)
        self.lookup.remember(judged.fates.insert)
        self.lookup.remember(judged.fates.replace)
        if (oldest := judged.batch.facts.oldest_kafka_ms()) is not None:
            self.lookup.forget(oldest)
        own_commits = {
            str(SILVER): bool(len(judged.fates.rewritten)) + bool(len(judged.fates.insert)),
            str(DLQ): bool(len(judged.dead_letters)),
        }
        for name, version in versions.items():
            # Otherwise somebody wrote in between without the lease, and the next batch looks at it anew.
            if version - self.seen[name] <= own_commits[name]:
                self.seen[name] = version
                if name == str(SILVER):
                    self.lookup_version = version
