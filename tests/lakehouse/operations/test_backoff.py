"""How long a stream waits before it is started again."""

from __future__ import annotations

from lakehouse.operations.supervisor import backoff_seconds
from pipelines.lake.settings import RetrySettings


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    settings = RetrySettings(first_wait_seconds=2.0, longest_wait_seconds=20.0)
    for failures, least, most in [(1, 2, 4), (2, 4, 6), (3, 8, 10), (4, 16, 18), (5, 20, 20), (5000, 20, 20)]:
        waits = [backoff_seconds(settings, failures) for _ in range(20)]
        assert all(least <= wait <= most for wait in waits), (failures, waits)
    assert len({backoff_seconds(settings, 1) for _ in range(20)}) > 1
