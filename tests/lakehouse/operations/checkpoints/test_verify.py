"""A sound checkpoint is called sound; each thing that can be wrong has its name and its playbook."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse.operations.checkpoints.verify import Verdict, verify_checkpoint
from pipelines.lake.delta_log.restores import LOOK_BACK
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER


def verify(lake: Any, path: Path) -> Verdict:
    return verify_checkpoint(lake.settings, open_storage(str(path)))


def found(lake: Any, path: Path) -> list[tuple[str, str]]:
    """Severity and id of what is wrong; that Kafka is silent is no finding here."""
    findings = verify(lake, path).findings
    assert all(finding.playbook for finding in findings if finding.severity != "info")
    return [(finding.severity, finding.id) for finding in findings if finding.id != "kafka-silent"]


def three_bronze_batches(lake: Any) -> Path:
    """Batches 0 to 2, as files, table and ledger have them; partition 1 was added with batch 1."""
    ends = [{0: 1}, {0: 2, 1: 1}, {0: 3, 1: 2}]
    for batch, rows in enumerate([[(0, 0)], [(0, 1), (1, 0)], [(0, 2), (1, 1)]]):
        version = lake.append(BRONZE, rows, batch=batch)
        start = ends[batch - 1] if batch else {}
        offsets = {str(one): [start.get(one, 0), end] for one, end in ends[batch].items()}
        lake.record("bronze", batch, offsets, rows_read=len(rows), inserted=len(rows), versions={str(BRONZE): version})
    path: Path = lake.checkpoint("bronze", ends)
    return path


def three_silver_batches(lake: Any) -> Path:
    for batch in range(3):
        lake.append(BRONZE, [(0, batch)])
        version = lake.append(SILVER, batch=batch)
        lake.record("silver", batch, {"0": [batch, batch + 1]}, rows_read=1, inserted=1, versions={str(SILVER): version})
    path: Path = lake.checkpoint("silver", [(3, -1), (4, -1), (5, -1)])
    return path


def test_sound_checkpoints_have_no_findings(lake: Any) -> None:
    bronze, silver = three_bronze_batches(lake), three_silver_batches(lake)
    lake.append(GOLD_HOURLY)
    lake.record("gold", 0, {"silver_version": [1, 3]})
    gold = lake.checkpoint("gold", [(4, -1)])
    assert [found(lake, path) for path in (bronze, silver, gold)] == [[], [], []]
    assert verify(lake, bronze).is_sound


def test_batch_that_is_planned_and_written_but_not_committed_is_sound(lake: Any) -> None:
    path = three_bronze_batches(lake)
    (path / "commits/2").unlink()
    assert found(lake, path) == []


def _write(name: str, text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).write_text(text)

    return change


def _remove(*names: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return change


def _marker(**changes: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        marker = json.loads((path / "lakehouse.json").read_text())
        (path / "lakehouse.json").write_text(json.dumps({**marker, **changes}))

    return change


def _offsets(batch: int, last_line: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        file = path / f"offsets/{batch}"
        file.write_text("\n".join([*file.read_text().split("\n")[:-1], last_line]))

    return change


@pytest.mark.parametrize(
    ("change", "severity", "name"),
    [
        (_write("offsets/2", ""), "error", "broken-file"),
        (_write("commits/2", 'v1\n{"next'), "error", "broken-file"),
        (_remove("lakehouse.json"), "error", "no-marker"),
        (_remove("metadata"), "error", "no-metadata"),
        (_remove("sources/0/0"), "warning", "no-initial-offsets"),
        (_remove("offsets/1"), "error", "hole"),
        (_remove("commits/1"), "warning", "hole"),
        (_remove("commits/1", "commits/2"), "warning", "commits-lost"),
        (_offsets(2, '{"t":{"0":1,"1":2}}'), "error", "offsets-run-back"),
        (_offsets(2, '{"t":{"0":9}}'), "error", "offsets-run-back"),
        (_offsets(2, '{"u":{"0":9,"1":9}}'), "error", "offsets-run-back"),
        (_marker(job="platinum"), "error", "foreign-marker"),
        (_marker(target="another"), "error", "foreign-target"),
        (_marker(source="another"), "error", "foreign-source"),
    ],
)
def test_each_damage_has_its_name(change: Callable[[Path], None], severity: str, name: str, lake: Any) -> None:
    path = three_bronze_batches(lake)
    change(path)
    assert found(lake, path) == [(severity, name)]


def test_commits_ahead_of_offsets_are_found_with_the_trap_behind_them(lake: Any) -> None:
    path = three_bronze_batches(lake)
    (path / "offsets/2").unlink()
    assert found(lake, path) == [("error", "commits-ahead"), ("error", "behind-table")]


def test_offsets_of_another_source_are_found(lake: Any) -> None:
    silver, bronze = three_silver_batches(lake), lake.checkpoint("bronze", [{0: 1}])
    shutil.copy(bronze / "offsets/0", silver / "offsets/2")
    assert ("error", "foreign-offsets") in found(lake, silver)


@pytest.mark.parametrize(
    ("make", "table"), [(three_bronze_batches, BRONZE), (three_silver_batches, SILVER)], ids=["bronze", "silver"]
)
def test_old_copy_whose_next_batches_delta_would_skip_is_found(make: Callable[[Any], Path], table: Any, lake: Any) -> None:
    path = make(lake)
    for batch in (1, 2):
        _remove(f"offsets/{batch}", f"commits/{batch}")(path)
    (finding,) = [one for one in verify(lake, path).findings if one.id != "kafka-silent"]
    assert (finding.id, finding.severity, finding.playbook) == ("behind-table", "error", "checkpoint-lost")
    assert f"{table} already has batch 2" in finding.message
    assert "skip batch 1 to 2" in finding.message


def test_dead_letters_ahead_of_the_checkpoint_are_found_too(lake: Any) -> None:
    path = three_silver_batches(lake)
    lake.append(DLQ, batch=7)
    assert found(lake, path) == [("error", "behind-table")]


def test_old_copy_of_gold_is_told_by_the_ledger(lake: Any) -> None:
    lake.append(GOLD_HOURLY)
    path = lake.checkpoint("gold", [(1, -1)])
    lake.record("gold", 4, {"silver_version": [0, 0]})
    assert found(lake, path) == [("warning", "behind-ledger")]


def test_table_that_does_not_know_the_generation_is_found(lake: Any) -> None:
    lake.append(BRONZE)
    path = lake.checkpoint("bronze", [{0: 1}])
    assert found(lake, path) == [("info", "not-run")]
    lake.record("bronze", 0, {"0": [0, 1]}, inserted=1)
    assert found(lake, path) == [("error", "unknown-generation")]


def test_rows_that_a_restore_took_back_are_found_with_the_rollback_that_reads_them_again(lake: Any) -> None:
    path = three_silver_batches(lake)
    lake.table(SILVER).restore(1)
    (finding,) = verify(lake, path).findings
    assert (finding.id, finding.severity) == ("restored-table", "error")
    assert "batch 1 to 2" in finding.message
    assert f"lakehouse rollback {SILVER} --to 1 --repair" in finding.message


def test_restore_is_found_behind_any_number_of_commits(lake: Any) -> None:
    path = three_silver_batches(lake)
    lake.table(SILVER).restore(1)
    lake.others_commit(SILVER, LOOK_BACK + 1)
    assert found(lake, path) == [("error", "restored-table")]


def test_restore_is_found_below_a_path_that_a_uri_quotes(lake: Any) -> None:
    lake.folder = lake.folder / "my lake"
    path = three_silver_batches(lake)
    assert found(lake, path) == []
    lake.table(SILVER).restore(1)
    assert found(lake, path) == [("error", "restored-table")]


def test_restore_before_the_first_batch_is_found_by_what_the_marker_says(lake: Any) -> None:
    for _ in range(2):
        lake.append(SILVER)
    path = three_silver_batches(lake)
    marker = json.loads((path / "lakehouse.json").read_text())
    (path / "lakehouse.json").write_text(json.dumps(marker | {"versions": {str(SILVER): 2}}))
    lake.table(SILVER).restore(3)
    assert found(lake, path) == [("error", "restored-table")]


def test_poison_that_the_checkpoint_does_not_know_of_is_found(lake: Any) -> None:
    path = three_silver_batches(lake)
    # A batch that was tried again without its poison leaves this id alone when it dies before its ledger row.
    lake.append(DLQ, batch=3, part="dlq-poison")
    (finding,) = verify(lake, path).findings
    assert (finding.id, finding.severity) == ("behind-table", "error")
    assert f"{DLQ} already has batch 3 of this generation" in finding.message
    assert "Delta would silently skip batch 3" in finding.message


def test_last_batch_among_the_dead_letters_is_that_of_any_of_their_ids(lake: Any) -> None:
    path = three_silver_batches(lake)
    lake.append(DLQ, batch=4)
    lake.append(DLQ, batch=3, part="dlq-poison")
    (finding,) = verify(lake, path).findings
    assert f"{DLQ} already has batch 4 of this generation" in finding.message


def test_source_that_lost_what_comes_next_is_found(lake: Any) -> None:
    path = three_silver_batches(lake)
    log = Path(BRONZE.path(lake.settings)) / "_delta_log"
    lake.table(BRONZE).create_checkpoint()
    behind = lake.checkpoint("silver", [(1, -1), (2, -1), (3, -1)], name="g2")
    for version in range(4):
        (log / f"{version:020}.json").unlink()
    assert found(lake, path) == []
    assert found(lake, behind) == [("error", "retention-passed")]
    ahead = lake.checkpoint("silver", [(7, -1), (8, -1), (9, -1)], name="g3")
    assert found(lake, ahead) == [("error", "log-lost")]


def test_kafka_that_lost_records_on_either_side_is_found(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    topic.send(0, 3)
    topic.send(1, 5)
    path = three_bronze_batches(lake)
    verdict = verify(lake, path)
    assert verdict.findings == []
    topic.forget(1, 4)
    (finding,) = verify(lake, path).findings
    assert (finding.id, finding.playbook) == ("retention-passed", "retention-overrun")
    assert "partition 1: 2 to 3 (2)" in finding.message
    short = lake.checkpoint("bronze", [{0: 2}, {0: 3, 1: 4}, {0: 9, 1: 4}], name="g2")
    (finding,) = verify(lake, short).findings
    assert finding.id == "log-lost"
    assert "partition 0: Kafka ends at 3, expected at least 9" in finding.message
    # Spark may plan one more batch before its reader finds that the offsets are gone.
    after = lake.checkpoint("bronze", [{0: 2}, {0: 3, 1: 4}, {0: 9, 1: 4}, {0: 3, 1: 5}], name="g3", commits=(0, 1, 2))
    assert [(one.id, one.message) for one in verify(lake, after).findings] == [("log-lost", finding.message)]


def test_topic_that_was_made_anew_is_found(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake)
    lake.topic_id = "the topic before"
    path = three_bronze_batches(lake)
    assert [finding.id for finding in verify(lake, path).findings] == ["topic-made-anew"]
    assert topic.name in verify(lake, path).findings[0].message


def test_kafka_that_is_silent_is_said_and_no_finding(lake: Any) -> None:
    verdict = verify(lake, three_bronze_batches(lake))
    assert [(finding.id, finding.severity) for finding in verdict.findings] == [("kafka-silent", "info")]
    assert verdict.is_sound
