"""The bench says met or missed, never lets differing counts pass, and names no host."""

from __future__ import annotations

import re
import socket
from datetime import date
from pathlib import Path

import pytest

from benchmarks.consumer import ConsumerRate
from benchmarks.growth import GrowthPlan, GrowthResult
from benchmarks.machine import describe_machine
from benchmarks.measure import Usage
from benchmarks.pace import PacePlan, PaceResult
from benchmarks.report import markdown
from benchmarks.results import Results, targets
from benchmarks.run import main
from benchmarks.stages import CountsDifferError, Outcome, Rate, compare
from benchmarks.workload import Fates

FATES = Fates(rows=10, silver=6, duplicate=2, dead_letter=1, tombstone=1)
GOOD = Outcome(FATES, gold_hourly=3, gold_daily=2, gold_events=6)


def _rate(seconds: float, heap_mib: float = 3072) -> Rate:
    usage = Usage(exit_code=0, seconds=seconds, cpu_seconds=2 * seconds, peak_rss_mib=100, heap_mib=heap_mib)
    return Rate(events=1000, usage=usage, warm_seconds=seconds / 2, batches=1)


def _results() -> Results:
    rates = {"peer": _rate(6, 0), "bronze": _rate(4), "chain": _rate(10)}
    growth = GrowthResult(GrowthPlan(100, 10, 3), small_ms=[100, 90, 500], large_ms=[130, 110, 125], window_ms=[150, 150, 150])
    pace = PaceResult(PacePlan(100, 10, 3), small_ms=[1000, 900, 5000], large_ms=[1100, 1150, 4000])
    return Results(events=1000, rates=rates, consumer=ConsumerRate(1000, 1.0, 0.5), growth=growth, pace=pace, expected=FATES)


def test_each_target_is_met_or_missed_by_its_number() -> None:
    verdicts = {target.name: (target.found, target.met) for target in targets(_results())}

    assert verdicts["Chain in one driver / peer"] == ("0.60", True)
    assert verdicts["Bronze, cold / bare consumer"] == ("0.25", False)
    assert verdicts["Largest driver heap (-Xmx)"] == ("3,072 MiB", True)
    assert verdicts["Silver batch, ten times the rows / once"] == ("1.25", False)
    assert verdicts["Gold batch, thirty times the day's rows / once"] == ("1.15", True)


def test_page_holds_what_was_measured_and_no_host() -> None:
    page = markdown(_results(), describe_machine(), date(2026, 1, 28), "make bench")

    assert "| Chain in one driver | 100 | 50 | 200 |" in page
    assert "| Chain in one driver / peer | 0.60 | >= 0.6 | met |" in page
    assert "| 3,000 | 1,150 ms | 1,100 to 4,000 ms |" in page
    assert "2026-01-28" in page
    assert "Live" not in page
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", page)
    assert str(Path.home()) not in page


@pytest.mark.parametrize(
    "other",
    [
        Outcome(Fates(rows=10, silver=7, duplicate=1, dead_letter=1, tombstone=1), 3, 2, 7),
        Outcome(FATES, gold_hourly=3, gold_daily=2, gold_events=5),
        Outcome(FATES, gold_hourly=4, gold_daily=2, gold_events=6),
    ],
)
def test_differing_counts_are_an_error(other: Outcome) -> None:
    compare({"peer": GOOD, "chain": GOOD}, FATES)

    with pytest.raises(CountsDifferError):
        compare({"peer": GOOD, "chain": other}, FATES)


def test_unknown_part_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "peer,pear"]) == 2
    assert "--only names pear" in capsys.readouterr().err


def test_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()

    assert main(["--only", "consumer", "--events", "1", "--work", str(tmp_path)]) == 2
    assert (tmp_path / "precious").exists()
    assert "not the bench's" in capsys.readouterr().err
