"""Audits a day as the gate before the bill would, and publishes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import date

from pipelines.gold.gate.gate import open_suites
from pipelines.gold.gate.results import Audit
from pipelines.gold.gate.start import start_with_suites
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import audit
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import UnknownFeatureError, UsageError
from pipelines.lake.settings import Settings


def audit_now(settings: Settings, day: date, progress: Callable[[str], None]) -> Audit:
    """Audit `day` with the suites of the settings; only its results and pages are written.

    Raises UsageError, before Spark starts, where a table or a suite is missing or the day never ends.
    """
    if day == date.max:
        msg = f"--date is {day}, the calendar's last day, which never ends; give a day that has events."
        raise UsageError(msg)
    suites, paths = open_suites(settings), Paths.of(settings)
    for path in (paths.silver, paths.hourly, paths.daily):
        with suppress(UnknownFeatureError):  # Spark may know the feature.
            existing_table(path)
    spark = start_with_suites(settings, "quality", suites)
    progress(f"auditing {day}")
    return audit(spark, settings, paths, day, suites)
