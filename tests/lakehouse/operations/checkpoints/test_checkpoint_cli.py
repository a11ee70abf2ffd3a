"""`lakehouse checkpoint` at the command line: what it prints, exit codes, and that nothing is written unasked."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from lakehouse.commands.cli import main
from pipelines.lake.tables import BRONZE, GOLD_HOURLY, KNOWN_GAPS, SILVER
from tests.lakehouse.conftest import Answers


@pytest.fixture
def full(lake: Any) -> Any:
    """A lake with a checkpoint of each job."""
    version = lake.append(BRONZE, [(0, 0), (0, 1)], batch=0)
    lake.record("bronze", 0, {"0": [0, 2]}, rows_read=2, inserted=2, versions={str(BRONZE): version})
    lake.append(SILVER, batch=0)
    lake.record("silver", 0, {"0": [0, 2]}, rows_read=2, inserted=1, versions={str(SILVER): 1, str(BRONZE): version + 1})
    lake.append(GOLD_HOURLY)
    lake.checkpoint("bronze", [{0: 2}, {0: 7}], commits=[0])
    lake.checkpoint("silver", [(version + 1, -1)])
    lake.checkpoint("gold", [(0, -1)])
    return lake


def run(lake: Any, *args: str) -> int:
    """Run the command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["checkpoint", *args, "--config", lake.config()])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def path_of(lake: Any, job: str) -> str:
    return f"{lake.folder}/checkpoints/{job}/g1"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_list_shows_how_far_each_checkpoint_is(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    assert run(full, "list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "does not answer" in found["kafka"]
    rows = {one["job"]: one for one in found["checkpoints"]}
    assert list(rows) == ["bronze", "silver", "gold"]
    bronze = rows["bronze"]
    assert (bronze["planned"], bronze["committed"], bronze["ledger_batch"], bronze["ledger_end"]) == (1, 0, 0, {"0": [0, 2]})
    assert (bronze["generation"], bronze["query_id"][:8], bronze["lag"]) == ("0123456789ab", "c7048d4d", None)
    assert abs((datetime.fromisoformat(bronze["committed_at"]) - before).total_seconds()) < 60
    assert 0 <= bronze["age_seconds"] < 60
    assert (rows["silver"]["lag"], rows["gold"]["lag"], rows["gold"]["lag_unit"]) == (0, 2, "versions")


def test_lag_of_bronze_is_kafkas_end_beyond_what_is_committed(
    lake: Any, on_topic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = on_topic(lake, partitions=3)
    topic.send(0, 7)
    topic.send(2, 4)
    topic.forget(2, 1)
    lake.append(BRONZE)
    lake.checkpoint("bronze", [{0: 2, 1: 0}, {0: 7, 1: 0}], commits=[0])
    assert run(lake, "list", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["checkpoints"]
    assert found["lag"] == 5 + 0 + 3


def test_list_shows_broken_and_foreign_folders_beside_the_others(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path(path_of(full, "bronze"), "offsets/1").write_text("")
    Path(path_of(full, "silver"), "lakehouse.json").unlink()
    (full.folder / "checkpoints/notes.txt").write_text("x")
    assert run(full, "list") == 0
    capsys.readouterr()
    (Path(SILVER.path(full.settings)) / "_delta_log" / f"{0:020}.json").write_text("no json")
    assert run(full, "list") == 1  # how far Gold is behind is not known
    shown = " ".join(capsys.readouterr().out.split())
    assert "bronze/g1: offsets/1 is empty" in shown
    assert "silver/g1: lakehouse.json is missing" in shown
    assert "gold/g1" in shown


def test_lake_without_checkpoints_is_said(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lake, "list") == 0
    assert "There is no checkpoint yet" in capsys.readouterr().out


def test_show_gives_offsets_of_each_batch_beside_the_ledger(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(full, "show", path_of(full, "bronze"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["transactions"] == {str(BRONZE): 0}
    first, second = found["batches"]
    assert first["partitions"] == [{"partition": 0, "start": 0, "end": 2}]
    assert (first["ledger"]["rows_read"], first["committed_at"] is None) == (2, False)
    assert second["partitions"] == [{"partition": 0, "start": 2, "end": 7}]
    assert (second["ledger"], second["committed_at"]) == (None, None)
    assert run(full, "show", path_of(full, "bronze"), "--batch", "1") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "partition 0 2 7 5 no, planned" in shown
    assert run(full, "show", path_of(full, "gold"), "--json") == 0
    (only,) = json.loads(capsys.readouterr().out)["batches"]
    assert (only["end"]["version"], only["partitions"]) == (0, [])


def test_verify_says_by_its_exit_code_whether_a_checkpoint_is_sound(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(full, "verify", path_of(full, "bronze")) == 0
    assert "is sound" in capsys.readouterr().out
    Path(path_of(full, "bronze"), "offsets/1").write_text("")
    assert run(full, "verify", path_of(full, "bronze")) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "error: offsets/1 is empty. See playbooks/checkpoint-lost.md" in shown
    assert "is not sound: 1 finding" in shown
    assert run(full, "verify", path_of(full, "bronze"), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["sound"], found["findings"][0]["id"]) == (False, "broken-file")


def test_job_stands_for_the_checkpoint_that_it_takes(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path(path_of(full, "bronze"), "offsets/1").write_text("")
    assert run(full, "verify", "bronze") == 1
    shutil.copytree(path_of(full, "silver"), Path(path_of(full, "bronze")).with_name("g10"))
    Path(path_of(full, "bronze")).with_name("g9").mkdir()
    capsys.readouterr()
    assert run(full, "show", "bronze", "--json") == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(Path(path_of(full, "bronze")).with_name("g10"))


def test_dry_runs_say_counts_and_write_nothing(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = full.config()
    assert config
    before = tree(full.folder)
    source, target = path_of(full, "silver"), f"{full.folder}/checkpoints/silver/g2"
    assert run(full, "copy", source, target, "--dry-run") == 0
    assert "Would write 4 files" in capsys.readouterr().out
    assert run(full, "rewind", source, target, "--to-batch", "0", "--dry-run") == 0
    assert "will read 0 batches (0 records) again" in capsys.readouterr().out
    assert run(full, "rebuild", "silver", "--dry-run") == 0
    assert f"Would write 1 file to {target}" in capsys.readouterr().out
    assert tree(full.folder) == before


def test_copy_rewind_and_rebuild_write_and_say_what_to_do_next(full: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source, root = path_of(full, "silver"), f"{full.folder}/checkpoints/silver"
    assert run(full, "copy", source, f"{full.folder}/backup") == 0
    assert run(full, "copy", source, f"{root}/g2", "--new-generation") == 0
    assert f"--checkpoint-path {root}/g2" in capsys.readouterr().out
    assert run(full, "rewind", source, f"{root}/g3", "--to-batch", "0") == 0
    assert f"--checkpoint-path {root}/g3" in capsys.readouterr().out
    assert run(full, "rebuild", "silver") == 0
    assert f"--checkpoint-path {root}/g4" in capsys.readouterr().out
    assert run(full, "rebuild", "gold", f"{full.folder}/elsewhere") == 0
    generations = [json.loads(path.read_text())["generation"] for path in Path(root).glob("*/lakehouse.json")]
    assert len(generations) == len(set(generations)) == 4
    assert json.loads((full.folder / "backup/lakehouse.json").read_text())["generation"] == "0123456789ab"
    assert json.loads((full.folder / "elsewhere/lakehouse.json").read_text())["job"] == "gold"


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["show", "{root}"], "holds files of something else"),
        (["verify", "{root}/none"], "is empty or absent"),
        (["show", "{root}/silver/g1", "--batch", "9"], "has no batch 9, it holds 0 to 0"),
        (["copy", "{root}/none", "{root}/x"], "is empty or absent"),
        (["copy", "{root}/silver/g1", "{root}/gold/g1"], "is not empty"),
        (["rewind", "{root}/silver/g1", "{root}/x", "--to-batch", "5"], "Batch 5 is not among"),
        (["rewind", "{root}/silver/g1", "{root}/gold/g1", "--to-batch", "0"], "is not empty"),
        (["rebuild", "platinum"], "no job `platinum`"),
        (["rebuild", "silver", "{root}/gold/g1"], "is not empty"),
        (["copy", "{root}/silver/g1", "ftp://host/x"], "has the scheme ftp"),
    ],
)
def test_mistake_is_one_sentence_exit_code_2_and_changes_nothing(
    args: list[str], sentence: str, full: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    full.config()
    before = tree(full.folder)
    assert run(full, *(arg.replace("{root}", f"{full.folder}/checkpoints") for arg in args)) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err
    assert (shown.out, len(shown.err.strip().splitlines())) == ("", 1)
    assert tree(full.folder) == before


def test_lost_offsets_are_exit_code_1_and_accepted_loss_is_printed(
    lake: Any, on_topic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = on_topic(lake, partitions=1)
    topic.send(0, 9)
    lake.append(BRONZE, [(0, 4)])
    topic.forget(0, 7)
    assert run(lake, "rebuild", "bronze") == 1
    assert "partition 0: 5 to 6 (2)" in capsys.readouterr().err
    assert not (lake.folder / "checkpoints").exists()
    assert run(lake, "rebuild", "bronze", "--accept-loss") == 0
    assert "Lost for good: partition 0: 5 to 6 (2)" in capsys.readouterr().out
    assert (lake.folder / "checkpoints/bronze/g1/lakehouse.json").exists()


def test_loss_that_is_accepted_again_is_recorded_once(lake: Any, on_topic: Any) -> None:
    topic = on_topic(lake, partitions=1)
    topic.send(0, 12)
    lake.append(BRONZE, [(0, 4)])
    for before in (7, 7, 10):
        topic.forget(0, before)
        assert run(lake, "rebuild", "bronze", "--accept-loss") == 0
    gaps = DeltaTable(KNOWN_GAPS.path(lake.settings)).to_pyarrow_table().sort_by("first_missing").to_pylist()
    assert [(gap["first_missing"], gap["last_missing"]) for gap in gaps] == [(5, 6), (7, 9)]


def test_reading_commands_answer_within_two_seconds_and_start_no_jvm(full: Any, answers: Answers) -> None:
    for batch in range(200):
        full.record("bronze", batch + 1, {"0": [batch, batch + 1]}, rows_read=1)
    for batch in range(2, 102):
        Path(path_of(full, "bronze"), f"offsets/{batch}").write_bytes(Path(path_of(full, "bronze"), "offsets/1").read_bytes())

    def look(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode in (0, 1), done.stderr
        assert not done.stderr

    for words in (["list"], ["show", path_of(full, "bronze")], ["verify", path_of(full, "bronze")]):
        # Alone it is under 2; another test runs beside it.
        answers(5, "checkpoint", *words, "--config", full.config(), look=look)


def test_checkpoints_on_s3_are_listed_shown_and_verified(full: Any, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"{bucket}/checkpoints/silver/g1"
    assert run(full, "copy", path_of(full, "silver"), target) == 0
    full.more = {"lake": {**full.tree["lake"], "checkpoints": f"{bucket}/checkpoints"}}
    capsys.readouterr()
    assert run(full, "list", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["checkpoints"]
    assert (found["path"], found["committed"], found["lag"], found["ledger_batch"]) == (target, 0, 0, 0)
    assert run(full, "show", target) == 0
    assert run(full, "verify", target.replace("s3:", "s3a:")) == 0
    assert run(full, "rebuild", "silver") == 0
    assert f"--checkpoint-path {bucket}/checkpoints/silver/g2" in capsys.readouterr().out
