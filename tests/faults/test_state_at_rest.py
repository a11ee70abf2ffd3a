"""R1 to R7: what lies on the disk is lost, cut or changed while nothing runs, and once while the driver runs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.tables import BRONZE, GOLD_DAILY, GOLD_HOURLY, SILVER
from tests.faults.at_rest import JOBS, UNREAD, Lake
from tests.faults.conftest import PATIENCE
from tests.faults.driver import Driver
from tests.faults.evidence import Evidence
from tests.rebuilds import rebuild_and_swap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 * PATIENCE)]


@pytest.mark.case("R1")
@pytest.mark.parametrize(("job", "damage"), [("bronze", "emptied"), ("silver", "cut"), ("gold", "emptied")])
def test_broken_newest_offset_file_is_named_and_the_checkpoint_rebuilt(
    filled: Lake, evidence: Evidence, job: str, damage: str
) -> None:
    offsets = filled.newest(job, "offsets")
    data = offsets.read_bytes()
    offsets.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    log = filled.log()

    code, said = filled.job(job)
    assert (code, filled.log()) == (1, log), said
    assert f"Stream {job} failed" in said
    assert "playbooks/checkpoint-lost.md" in said
    evidence.loud(f"newest offset file of {job} {damage}: exit code 1, the playbook named, nothing written")
    assert filled.command("checkpoint", "verify", str(offsets.parents[1]))[0] == 1
    shutil.move(offsets.parents[1], filled.case.folder / "aside")
    filled.restart(evidence, ["checkpoint", "rebuild", job])
    evidence.holds(filled.case.verdicts())


@pytest.mark.case("R2")
def test_deleted_commit_file_lets_the_batch_run_again_and_be_skipped(filled: Lake, evidence: Evidence) -> None:
    batches = {job: int(filled.newest(job, "commits").name) for job in JOBS}
    for job in JOBS:
        newest = filled.newest(job, "commits")
        for path in (newest, newest.with_name(f".{newest.name}.crc")):
            path.unlink(missing_ok=True)
        assert int(filled.newest(job, "commits").name) == batches[job] - 1
    rows = {job: Ledger(filled.case.settings).batches(job) for job in JOBS}

    filled.restart(evidence)
    assert all(int(filled.newest(job, "commits").name) > batches[job] for job in JOBS)
    for job in JOBS:
        again = [row for row in Ledger(filled.case.settings).batches(job) if row.batch_id <= batches[job]]
        assert again == rows[job]
    evidence.fired("newest commit file of all three checkpoints deleted; each batch ran again and left its ledger row as it was")
    evidence.holds(filled.case.verdicts())


@pytest.mark.case("R3")
def test_lost_checkpoints_are_made_anew_from_the_tables(filled: Lake, evidence: Evidence) -> None:
    known = {job: {row.generation for row in Ledger(filled.case.settings).batches(job)} for job in JOBS}
    shutil.rmtree(filled.case.settings.lake.checkpoints)

    filled.restart(evidence, *(["checkpoint", "rebuild", job] for job in JOBS))

    for job in JOBS:
        generations = {row.generation for row in Ledger(filled.case.settings).batches(job)}
        assert len(generations) == len(known[job]) + 1
    bronze = [row for row in Ledger(filled.case.settings).batches("bronze") if row.generation not in known["bronze"]]
    assert sum(row.rows_read for row in bronze) == UNREAD  # nothing is read twice
    evidence.fired("the checkpoints of Bronze, Silver and Gold deleted; each went on in a new generation")
    evidence.holds(filled.case.verdicts())


def _deleted(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.case("R4")
def test_damaged_commit_file_stops_its_job_and_nothing_is_committed_on_top(filled: Lake, evidence: Evidence) -> None:
    for table, job in ((BRONZE, "bronze"), (SILVER, "silver"), (GOLD_HOURLY, "gold")):
        newest = DeltaTable(table.path(filled.case.settings)).version()
        for version, damage in ((newest, _deleted), (newest, _cut), (newest, _emptied), (newest - 1, _deleted)):
            commit, what = filled.commit(table, version), f"{table} {version} of {newest} {damage.__name__}"
            whole = commit.read_bytes()
            damage(commit)
            log = filled.log()
            code, said = filled.job(job)
            assert code == 1, f"{what}: {said}"
            assert "playbooks/" in said, f"{what}: {said}"
            assert filled.log() == log, what
            if damage is not _deleted or version < newest:
                code, found = filled.command("verify")
                assert code == 1, f"{what}: {found}"
                assert "I7" in found, f"{what}: {found}"
            commit.write_bytes(whole)
    evidence.loud("a commit deleted at the end or within the log, cut, emptied, of three tables: exit code 1, no commit on top")
    filled.restart(evidence)
    evidence.holds(filled.case.verdicts())


def _flip(path: Path, column: str, chance: random.Random) -> None:
    """Flip one bit in the pages of a column's first chunk."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(group.column(at) for at in range(group.num_columns) if group.column(at).path_in_schema == column)
    first = min(at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at is not None)
    # Not in the first page's header, whose statistics nobody reads.
    place = chance.randrange(first + 200, first + chunk.total_compressed_size)
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


@pytest.mark.case("R5")
def test_flipped_bit_is_found_by_file_and_mended(filled: Lake, evidence: Evidence, fault_seed: int) -> None:
    chance = random.Random(fault_seed)
    for column in ("_raw_value", "_kafka_timestamp", "_raw_value"):
        file = chance.choice(filled.files(BRONZE))
        whole = file.read_bytes()
        _flip(file, column, chance)
        code, said = filled.command("verify")
        assert (code, file.name in said.replace("\n", "").replace(" ", "")) == (1, True), said
        file.write_bytes(whole)  # playbooks/bronze-corruption.md: any copy of a data file is the right one
    file = max(filled.files(SILVER), key=lambda path: path.stat().st_size)
    _flip(file, "event_id", chance)
    code, said = filled.command("verify")
    assert (code, file.name in said.replace("\n", "").replace(" ", "")) == (1, True), said
    evidence.fired("one bit flipped in the pages of a data file, three times in Bronze, once in Silver; verify named the file")
    with evidence.recovery():
        version = rebuild_and_swap(filled.spark, filled.case.settings, "silver").versions[SILVER]
        rebuild_and_swap(filled.spark, filled.case.settings, "gold")
        # What was lost cannot be read from the change feed: Gold goes on after it.
        shutil.move(Path(filled.case.settings.lake.checkpoints) / "gold", filled.case.folder / "aside")
        assert filled.job("gold", "--starting-offsets", f'{{"silver_version":{version}}}')[0] == 0
        filled.start_to_end()
    evidence.holds(filled.case.verdicts())


@pytest.mark.case("R6")
def test_deleted_data_file_stops_the_reader_by_name(filled: Lake, evidence: Evidence) -> None:
    read = set(filled.files(BRONZE))
    filled.fill("bronze")
    unread = min(set(filled.files(BRONZE)) - read, key=lambda path: path.stat().st_mtime)
    for job, table, file, page in (
        ("silver", BRONZE, unread, "bronze-corruption"),
        ("gold", SILVER, filled.files(SILVER)[0], "full-rebuild"),
    ):
        if job == "gold":
            filled.fill("silver")
        gold = filled.log(SILVER, GOLD_HOURLY, GOLD_DAILY)
        whole = file.read_bytes()
        file.unlink()
        code, said = filled.job(job)
        assert code == 1, said
        assert f"Stream {job} failed" in said
        assert f"playbooks/{page}.md" in said
        assert filled.log(SILVER, GOLD_HOURLY, GOLD_DAILY) == gold
        code, found = filled.command("verify")
        assert code == 1
        assert f"{table}: data file" in found
        file.write_bytes(whole)
    evidence.loud("a data file of Bronze, then one of Silver deleted: the job behind it exits with 1 and the playbook's name")
    filled.restart(evidence)
    evidence.holds(filled.case.verdicts())


def _restore_silver(lake: Lake) -> int:
    """Take the last two batches of Silver back by hand, past all that the project offers for it."""
    rows = Ledger(lake.case.settings).batches("silver")
    ends = sorted({row.versions.get(str(SILVER), 0) for row in rows})
    DeltaTable(SILVER.path(lake.case.settings)).restore(ends[-3])
    return int(ends[-3])


@pytest.mark.case("R7")
def test_restored_table_is_noticed_before_a_batch_is_written(filled: Lake, evidence: Evidence) -> None:
    filled.fill("bronze")
    to = _restore_silver(filled)
    log = filled.log(SILVER)

    code, said = filled.job("silver")
    assert (code, filled.log(SILVER)) == (2, log), said
    assert "was restored to an older version" in said
    evidence.fired("Silver taken back by two batches by hand: its stream is refused with exit code 2")
    _roll_back_and_restart(filled, evidence, to)


@pytest.mark.case("R7")
def test_running_stream_notices_that_its_table_was_restored(filled: Lake, evidence: Evidence) -> None:
    driver = Driver(filled.case, 1)
    driver.start()
    try:
        driver.wait_for_no_lag()
        to = _restore_silver(filled)
        log = filled.log(SILVER)
        driver.send()
        assert driver.dies(60) == 2, driver.said()
    finally:
        driver.end()

    assert "was restored to an older version" in driver.said()
    assert filled.log(SILVER) == log
    evidence.fired("the same beside the running driver: it stops with exit code 2 before its next batch is written")
    _roll_back_and_restart(filled, evidence, to)


def _roll_back_and_restart(lake: Lake, evidence: Evidence, to: int) -> None:
    with evidence.recovery():
        done = lake.case.command("rollback", str(SILVER), "--to", str(to), "--repair")
        assert done.returncode == 0, done.stderr
        lake.start_to_end()
    evidence.holds(lake.case.verdicts())
