"""The streams' checkpoints: lost, broken, or such that Delta would skip the next batches silently."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lakehouse.operations.checkpoints.findings import BROKEN, SOURCE_GAP, batches
from lakehouse.operations.checkpoints.findings import Finding as CheckpointFinding
from lakehouse.operations.doctor.facts import THE_CHECKPOINTS, Facts, StreamCheckpoint
from lakehouse.operations.doctor.findings import Finding, Severity
from pipelines.lake.job_tables import JOBS
from pipelines.lake.tables import SILVER

_TRAP = {"behind-table", "behind-ledger"}
_SEVERITIES: dict[str, Severity] = {"error": "critical", "warning": "warning", "info": "info"}
_CHECKED_COMMITS = 20


def check_checkpoints(facts: Facts) -> Iterator[Finding]:
    """Look at the checkpoint of each stream that ever ran."""
    for job in JOBS:
        checkpoint = facts.checkpoints.get(job)
        if checkpoint is None:
            if facts.rows.get(job) and not facts.lacks(THE_CHECKPOINTS):
                yield _lost(facts, job)
            continue
        if checkpoint.problem:
            yield _unreadable(facts, checkpoint)
        yield from _passed_on(facts, checkpoint)
        yield from _check_ledger(facts, checkpoint)


def _lost(facts: Facts, job: str) -> Finding:
    last = facts.rows[job][-1]
    return Finding(
        id="checkpoint-lost",
        severity="critical",
        title=f"The checkpoint of {job} is gone",
        evidence=(
            f"The ledger has batch {last.batch_id} of generation {last.generation}, and there is no checkpoint of {job} "
            f"below {facts.settings.lake.checkpoints}."
        ),
        # A job may have been given a path of its own.
        confidence="likely",
        at_stake="Nothing is lost: the tables say where to go on. Without a rebuild the job would read everything again.",
        playbook="checkpoint-lost",
        commands=(
            facts.commands.lakehouse("checkpoint", "rebuild", job, "--dry-run"),
            facts.commands.lakehouse("checkpoint", "rebuild", job),
            facts.commands.start(job),
        ),
    )


def _unreadable(facts: Facts, checkpoint: StreamCheckpoint) -> Finding:
    return Finding(
        id="checkpoint-unreadable",
        severity="warning",
        title=f"The checkpoint of {checkpoint.job} cannot be judged",
        evidence=str(checkpoint.problem),
        confidence="certain",
        at_stake=_stands_still(facts, checkpoint.job),
        playbook="checkpoint-lost",
        commands=(facts.commands.lakehouse("checkpoint", "verify", checkpoint.path),),
    )


def _passed_on(facts: Facts, checkpoint: StreamCheckpoint) -> Iterator[Finding]:
    """What `lakehouse checkpoint verify` finds, with the commands of this case."""
    for found in checkpoint.findings:
        if found.severity == "info":
            continue
        is_trap = found.id in _TRAP
        job = checkpoint.job
        yield Finding(
            id="transaction-trap" if is_trap else f"checkpoint-{found.id}",
            severity=_SEVERITIES[found.severity],
            title=f"Batches of {job} would be skipped without a word" if is_trap else f"The checkpoint of {job} is not sound",
            evidence=f"{checkpoint.path}: {found.message}",
            confidence="certain",
            at_stake=_skipped(facts, checkpoint) if is_trap else _stands_still(facts, job),
            playbook=found.playbook or BROKEN,
            commands=_commands(facts, checkpoint, found),
        )


def _commands(facts: Facts, checkpoint: StreamCheckpoint, found: CheckpointFinding) -> tuple[str, ...]:
    verify = facts.commands.lakehouse("checkpoint", "verify", checkpoint.path)
    if found.severity != "error":
        return (verify,)
    start = facts.commands.start(checkpoint.job, checkpoint.next_path)
    restored = re.search(r"lakehouse (rollback \S+ --to \d+ --repair)", found.message)
    if restored:
        words = restored[1].split()
        # Of Silver it makes the next generation; Gold's checkpoint stays as it is.
        start = start if checkpoint.job == "silver" else facts.commands.start(checkpoint.job, checkpoint.path)
    elif found.id == SOURCE_GAP and checkpoint.job == "gold":
        # The rows of Silver say all; its changes do not.
        back = (facts.commands.lakehouse("contract", "restore", str(SILVER)),) if "change feed" in found.message else ()
        rebuild = facts.commands.lakehouse("checkpoint", "rebuild", "gold", checkpoint.next_path)
        return (*back, facts.commands.lakehouse("rebuild", "gold", "--swap"), rebuild, start)
    elif found.id in _TRAP:
        words = ["checkpoint", "copy", checkpoint.path, checkpoint.next_path, "--new-generation"]
    else:
        words = ["checkpoint", "rebuild", checkpoint.job, checkpoint.next_path]
    return (verify, facts.commands.lakehouse(*words, "--dry-run"), facts.commands.lakehouse(*words), start)


def _skipped(facts: Facts, checkpoint: StreamCheckpoint) -> str:
    last = checkpoint.state.last_planned if checkpoint.state is not None else None
    generation = checkpoint.state.marker.generation if checkpoint.state is not None and checkpoint.state.marker else None
    ahead = [
        row
        for row in facts.rows.get(checkpoint.job, [])
        if row.generation == generation and row.batch_id > (-1 if last is None else last)
    ]
    skipped = f"as many new batches as {len(ahead):,}" if ahead else "new batches"
    read = sum(row.rows_read for row in ahead)
    return f"A job that runs on it loses {skipped}: the last such batches had {read:,} records."


def _stands_still(facts: Facts, job: str) -> str:
    rows = facts.rows.get(job, [])
    last = f"; batch {rows[-1].batch_id} at {rows[-1].committed_at:%Y-%m-%d %H:%M:%S} UTC was its last" if rows else ""
    return f"The tables keep what they have. {job.capitalize()} stands still or goes on wrongly until this is mended{last}."


def _check_ledger(facts: Facts, checkpoint: StreamCheckpoint) -> Iterator[Finding]:
    """Bronze writes a ledger row for each batch before Spark commits it; the others may have empty batches without one."""
    state = checkpoint.state
    if checkpoint.job != "bronze" or state is None or state.marker is None:
        return
    known = {row.batch_id for row in facts.rows.get("bronze", []) if row.generation == state.marker.generation}
    if not known:  # a copy that has not run yet brings commits of another generation
        return
    missing = [batch for batch in state.commit_ids[-_CHECKED_COMMITS:] if batch > min(known) and batch not in known]
    if missing:
        again = ["checkpoint", "rewind", checkpoint.path, checkpoint.next_path, "--to-batch", str(missing[0] - 1)]
        yield Finding(
            id="ledger-rows-missing",
            severity="warning",
            title="The ledger lacks batches of Bronze",
            evidence=f"Batch {batches(missing)} of {checkpoint.path} is committed and has no row in ops.batch_ledger.",
            confidence="certain",
            at_stake=(
                f"No record is lost, but the counts of {len(missing):,} batches are, so the balance of records cannot be proved; "
                "a rewind reads them again and changes no row."
            ),
            playbook="checkpoint-lost",
            commands=(
                facts.commands.lakehouse("checkpoint", "show", checkpoint.path, "--batch", str(missing[0])),
                facts.commands.lakehouse(*again, "--dry-run"),
                facts.commands.lakehouse(*again),
                facts.commands.start("bronze", checkpoint.next_path),
            ),
        )
