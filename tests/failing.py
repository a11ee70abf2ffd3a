"""Death at a failpoint within the test's own process, for what need not be killed to be cut short."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipelines.lake import failpoints


@contextmanager
def dies_at(monkeypatch: pytest.MonkeyPatch, point: str) -> Iterator[None]:
    """Within the block, who reaches the failpoint `point` raises InterruptedError."""
    assert point in failpoints.POINTS

    def reach(reached: str) -> None:
        if reached == point:
            raise InterruptedError(point)

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", reach)
        yield
