"""Something breaks; the doctor names it; the operator does what it says; `lakehouse check` is green."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from lakehouse.local.event_plan import Mix
from pipelines.bronze import bronze_ingestion
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.errors import BreakerOpenError
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.tables import SILVER
from pipelines.runtime.stream_life import AVAILABLE_NOW, await_query
from tests.faults.conftest import DAY
from tests.playbooks.conftest import Patient, restore_by_hand
from tests.playbooks.pages import read_page
from tests.playbooks.session import Finding, Session
from tests.playbooks.test_followed import POISON

pytestmark = [pytest.mark.playbooks, pytest.mark.faults, pytest.mark.timeout(1200)]

Make = Callable[[int], Patient]
_ROUNDS = 5


def _sit_down(sick: Patient, fault: str, finding: str, playbook: str) -> tuple[Session, Finding]:
    """Begin a session: the doctor's first finding has to be the fault, with its playbook."""
    session = Session(fault, str(sick.case.config))
    first = session.doctor()[0]
    assert (first["id"], first["playbook"]) == (finding, f"playbooks/{playbook}.md")
    assert first["commands"]
    return session, first


def _heal(session: Session, finding: Finding | None) -> None:
    """Type what the doctor prints for its first finding, until it has none left."""
    for _ in range(_ROUNDS):
        if finding is None:
            return
        session.run_commands(finding)
        finding = next(iter(session.doctor()), None)
    pytest.fail(f"the doctor is not content after {_ROUNDS} rounds:\n" + "\n".join(session.lines[-60:]))


def _leave(session: Session, sick: Patient, lost: frozenset[str] = frozenset()) -> None:
    """End the session: nothing is red, by the checks and by the independent checker but for what is lost for good."""
    assert "nothing red" in session.type(f"lakehouse check --config {session.config}")
    seconds = session.save()
    sick.say(f"operator session {session.fault}: {seconds:.1f} s")
    sick.note("session", [session.fault, round(seconds, 1)])
    assert sick.broken_promises() <= lost


def test_checkpoint_lost(patient: Make) -> None:
    sick = patient(2000)
    sick.run()
    sick.produce(1000, 2)
    sick.run("bronze")
    shutil.rmtree(sick.checkpoints / "silver")

    session, finding = _sit_down(sick, "checkpoint-lost", "checkpoint-lost", "checkpoint-lost")
    _heal(session, finding)
    _leave(session, sick)


def test_offset_gap(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    end = wait_for_topic(sick.case.settings).end
    sick.produce(1500, 2)
    path = str(sick.checkpoints / "bronze" / "g2")
    query = bronze_ingestion.run(
        sick.spark,
        sick.case.settings,
        checkpoint_path=path,
        trigger=AVAILABLE_NOW,
        starting_offsets=f'{{"0":{end[0] + 50},"1":{end[1] + 20},"2":{end[2]}}}',
    )
    await_query(query, threading.Event())
    sick.run("silver", "gold")

    session, finding = _sit_down(sick, "offset-gap", "offset-holes", "offset-gap")
    _heal(session, finding)
    _leave(session, sick)


def test_breaker_open(patient: Make) -> None:
    sick = patient(0).with_settings(breaker={"min_records": 500, "cool_down_seconds": 900.0})
    sick.produce(500, 1, mix=Mix.clean())
    sick.run()
    sick.produce(1500, 2, mix=POISON)
    with pytest.raises(BreakerOpenError):
        sick.run()

    session, _ = _sit_down(sick, "breaker-open", "breaker-open", "poison-flood")
    reason = "their producer is mended, these records are garbage"
    session.follow(read_page("poison-flood"), {"CONFIG": session.config, "REASON": reason})
    assert not session.doctor()
    _leave(session, sick)


def test_retention_overrun(patient: Make) -> None:
    sick = patient(1500)
    sick.run()
    end = wait_for_topic(sick.case.settings).end
    sick.produce(1500, 2)
    sick.delete_records(1, end[1] + 25)

    session, finding = _sit_down(sick, "retention-overrun", "retention-overrun", "retention-overrun")
    assert f"partition 1: {end[1]} to {end[1] + 24} (25)" in finding["evidence"]
    _heal(session, finding)
    _leave(session, sick, frozenset({"I1", "I3", "I4", "I12"}))


def test_table_restored_by_hand(patient: Make) -> None:
    sick = patient(3000)
    sick.run()
    back = restore_by_hand(sick)

    session, finding = _sit_down(sick, "restored-by-hand", "checkpoint-restored-table", "bad-deploy")
    assert any(f"lakehouse rollback {SILVER} --to {back} --repair" in command for command in finding["commands"])
    _heal(session, finding)
    _leave(session, sick)


def test_driver_killed(patient: Make) -> None:
    sick = patient(3000)
    sick.run("bronze")
    killed = sick.case.run("pipelines/silver/silver_processing.py", "--trigger", "available-now", fail_at="silver.after_append:1")
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    session, finding = _sit_down(sick, "driver-killed", "stream-down", "spark-crash")
    _heal(session, finding)
    _leave(session, sick)


def test_events_after_a_day_was_closed(patient: Make) -> None:
    sick = patient(1500)
    sick.produce(50, 2, start=DAY + timedelta(days=3), mix=Mix.clean())
    sick.run()
    settings = sick.case.settings
    assert reconcile(sick.spark, settings, Paths.of(settings), DAY.date(), datetime.now(UTC)).status == "final"
    sick.produce(300, 3, mix=Mix.clean())
    sick.run()

    session, finding = _sit_down(sick, "adjustments-due", "adjustments-due", "billing")
    _heal(session, finding)
    _leave(session, sick)
