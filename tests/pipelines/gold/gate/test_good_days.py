"""Ten days of different shape, one after the other, each compared with those before it: the gate lets all of them pass."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.gold.gate.results import Gate
from tests.audited_days import DAY, AuditedDays


def _share(percent: int, then: Any, otherwise: Any) -> Column:
    return F.when(F.pmod(F.xxhash64("id"), F.lit(100)) < percent, then).otherwise(otherwise)


def _at_noon(day: date) -> Column:
    begin = F.unix_timestamp(F.lit(str(day)).cast("timestamp"))
    return F.timestamp_seconds(begin + F.lit(43_200) + F.pmod(F.xxhash64("id", F.lit("noon")), F.lit(3600)))


def _shapes(first: date) -> dict[str, dict[str, Any]]:
    return {
        "as usual": {},
        "a fifth more": {"events": 1080},
        "twice as many": {"events": 1900},
        "a quiet day": {"events": 660},
        "all of it at noon": {"event_timestamp": _at_noon(first + timedelta(days=4))},
        "many new customers": {"customers": 18},
        "some late": {"_is_late_arriving": _share(8, F.lit(1) == 1, F.lit(1) == 0)},
        "an outage of the API": {"status_code": _share(35, 503, 200)},
        "no region known": {"region": F.lit(None)},
        "larger answers": {"response_bytes": F.pmod(F.xxhash64("id"), F.lit(40_000))},
    }


@pytest.mark.faults
def test_ten_good_days_pass(days: AuditedDays) -> None:
    for number, (shape, changes) in enumerate(_shapes(DAY).items()):
        day = DAY + timedelta(days=number)
        if number:
            days.add(day, seed=number, **changes)
        outcome = days.reconcile(day)

        assert outcome.audit is not None, shape
        assert [str(one) for one in outcome.audit.blocking] == [], shape
        assert (outcome.audit.gate, outcome.status) == (Gate.PASSED, "final"), shape
