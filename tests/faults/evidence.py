"""What a fault test has to say for docs/reliability.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lakehouse.local.demo_figures import Conservation


@dataclass(frozen=True)
class Evidence:
    """Notes of one test; `note(name, value)` keeps them with the test's report."""

    note: Callable[[str, Any], None]

    def fired(self, how: str) -> None:
        """Say how it is known that the fault happened, in a few words; call it after the assertion that shows it."""
        self.note("fired", how)

    @contextmanager
    def recovery(self) -> Iterator[None]:
        """Take the time from the end of the fault (enter) until no layer lags (leave): I9 holds."""
        started = time.monotonic()
        yield
        self.recovered(time.monotonic() - started)
        self.note("held", "I9")

    def recovered(self, seconds: float) -> None:
        """Say how many seconds recovery took."""
        self.note("recovery", seconds)

    def holds(self, verdicts: Mapping[str, str], *, but: Collection[str] = ()) -> None:
        """Assert that every invariant that was checked holds, except those in `but`, which the fault breaks lawfully."""
        broken = {id_ for id_, verdict in verdicts.items() if verdict not in ("holds", "not checked")}
        assert broken == set(but), verdicts
        assert verdicts["I1"] != "not checked", verdicts
        self.note("held", " ".join(id_ for id_, verdict in verdicts.items() if verdict == "holds"))

    def conserves(self, counts: Conservation) -> None:
        """Assert that every acknowledged record has one fate, and say how many have which."""
        assert counts.holds, counts
        self.note("conservation", {**asdict(counts), "fates": counts.fates})

    def loud(self, how: str) -> None:
        """Say how the fault was told to the operator (I10); call it after the assertion that shows it."""
        self.note("held", "I10")
        self.note("fired", how)

    def red(self, verdicts: Mapping[str, str], *ids: str) -> None:
        """Assert that the checker caught a mutant by these invariants."""
        broken = {id_ for id_, verdict in verdicts.items() if verdict == "violated"}
        assert set(ids) <= broken, verdicts
        self.note("red", " ".join(sorted(broken)))
