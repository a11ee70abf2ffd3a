"""A rebuild in the test's own session: what `lakehouse rebuild LAYER --swap` does."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from pyspark.sql import SparkSession

from lakehouse.operations.rebuild.plan import plan_rebuild
from lakehouse.operations.rebuild.rebuild import build, compare, remove
from lakehouse.operations.rebuild.swap import Swapped, swap
from pipelines.lake.settings import Settings


def rebuild_and_swap(spark: SparkSession, settings: Settings, layer: str) -> Swapped:
    """Build a layer's tables from the layer before, and let them take the place of the live ones."""
    plan = plan_rebuild(settings, layer, None, swap=True)
    build(spark, settings, plan, lambda _: None, threading.Event())
    found = compare(spark, settings, plan, lambda _: None)
    swapped = swap(spark, settings, plan, found, run_id="test", now=datetime.now(UTC))
    remove(plan.folder)
    return swapped
