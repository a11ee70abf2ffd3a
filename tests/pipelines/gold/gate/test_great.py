"""Suites are evaluated on Spark: counts and figures come back, never a value of a row, and nothing is sent or kept."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.gold.gate.gate import _library
from pipelines.gold.gate.results import Audit, Gate, Result
from pipelines.gold.gate.suites import Expectation, Suite
from pipelines.lake.settings_sources import load_settings

VALUE = "value-that-nobody-may-read"


def _expect(name: str, kind: str, severity: Any = "blocks", **kwargs: Any) -> Expectation:
    return Expectation(id=name, type=kind, kwargs=kwargs, severity=severity, says=f"About {name}.", playbook="null-keys")


def _suite(name: str, *expectations: Expectation) -> Suite:
    return Suite(name=name, audits=name, expectations=expectations)


SILVER = _suite(
    "silver",
    _expect("present", "expect_column_values_to_not_be_null", column="who"),
    _expect("unique", "expect_column_values_to_be_unique", column="id"),
    _expect("known", "expect_column_values_to_be_in_set", column="who", value_set=["a"], severity="warns"),
    _expect("bytes", "expect_column_max_to_be_between", column="bytes", max_value=5),
    # A text is no number: the library raises, and the sentence that Spark has for it quotes the text.
    _expect("raises", "expect_column_values_to_be_between", column="who", min_value=1, max_value=3),
)
DAY = _suite("day", _expect("share", "expect_column_values_to_be_between", column="share", max_value=0.5))


def _evaluate(spark: SparkSession) -> tuple[dict[str, Result], Any]:
    great, _ = _library()
    who = F.when(F.col("id") >= 3, VALUE).alias("who")
    rows = spark.range(10).select("id", who, (F.col("id") * 1.5).alias("bytes"))
    results, validations = great.evaluate(
        [SILVER, DAY], {"silver": rows, "day": spark.sql("SELECT CAST(NULL AS double) AS share")}, {"day": {"share": None}}
    )
    return {one.expectation: one for one in results}, validations


def test_counts_and_figures_come_back_and_no_value(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    found, validations = _evaluate(spark)

    said = {name: (one.success, one.observed) for name, one in found.items()}
    assert said["present"] == (False, "3 of 10 rows are otherwise")
    assert said["unique"] == (True, "0 of 10 rows are otherwise")
    assert said["known"] == (False, "7 of 10 rows are otherwise")
    assert said["bytes"] == (False, "13.5")
    assert said["share"] == (True, "nothing to compare with")
    assert said["raises"][0] is None
    assert said["raises"][1].startswith("not evaluated (")
    assert found["raises"].blocks
    assert found["known"].failed
    assert not found["known"].blocks

    audit = Audit("run1", date(2026, 1, 28), datetime(2026, 1, 29, tzinfo=UTC), Gate.REFUSED, tuple(found.values()), 3)
    settings = load_settings(None, environ={}, overrides={"lake.root": str(tmp_path), "quality.docs": str(tmp_path / "docs")})
    _, pages = _library()
    written = pages.write_pages(settings, audit, validations)
    files = sorted(path.name for path in Path(str(written.docs)).parent.iterdir())
    assert files == ["day.html", "index.html", "silver.html"]
    texts = [path.read_text(encoding="utf-8") for path in Path(str(written.docs)).parent.iterdir()]
    seen = "".join([*texts, caplog.text, *capfd.readouterr(), *(str(one) for one in found.values())])
    assert VALUE not in seen
    assert all(elsewhere not in "".join(texts) for elsewhere in ("http:", "https:", "<script", "<link", "<img"))
    assert "About present." in "".join(texts)


def test_two_suites_that_run_side_by_side_see_their_own_rows(spark: SparkSession) -> None:
    great, _ = _library()
    names = [f"s{number}" for number in range(6)]
    suites = [_suite(name, _expect(f"rows-{name}", "expect_table_row_count_to_be_between", min_value=0)) for name in names]
    frames = {name: spark.range(number * 10) for number, name in enumerate(names)}

    results, _ = great.evaluate(suites, frames, {})

    assert [one.observed for one in results] == [str(number * 10) for number in range(6)]


def test_the_library_gets_no_home_and_sends_nothing(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "GX_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    great, _ = _library()

    assert great._config().analytics_enabled is False
    great.evaluate([DAY], {"day": spark.sql("SELECT 0.1D AS share")}, {"day": {"share": 0.1}})
    assert list(tmp_path.iterdir()) == []
