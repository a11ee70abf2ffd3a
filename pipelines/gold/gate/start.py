"""Starts Spark for a run that audits, and checks the suites meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import SparkSession

from pipelines.gold.gate.gate import check_suites
from pipelines.gold.gate.suites import Suite
from pipelines.lake.settings import Settings
from pipelines.runtime.session import build_session


def start_with_suites(settings: Settings, app_name: str, suites: Sequence[Suite]) -> SparkSession:
    """Build the session, and check `suites` side by side, as both take seconds; raises SettingsError with one sentence."""
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(check_suites, suites) if suites else None
        spark = build_session(settings, app_name)
        if checked is not None:
            checked.result()
    return spark
