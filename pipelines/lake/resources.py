"""Where the project's own files lie beside its code: schemas, SQL checks, scripts, docs, jars. An image ships the tree."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
"""Root of the project's tree."""
SPARK_JARS = PROJECT / "build" / "jars" / "spark"
BROKER_JARS = PROJECT / "build" / "jars" / "broker"
