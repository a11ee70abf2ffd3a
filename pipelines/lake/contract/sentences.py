"""Sentences for what differs from the tables' contract, each with the command that puts it right."""

from __future__ import annotations

from pipelines.lake.contract.contract import Difference
from pipelines.lake.contract.source_gaps import Gap
from pipelines.lake.delta_log.derived_files import Damage
from pipelines.lake.tables import BRONZE, REVERSIBLE, SILVER, TableName

PAGE = "playbooks/table-contract.md"


def sentence(one: Difference) -> str:
    """Say what differs and what to do."""
    if one.kind == "column":
        return f"{one}; {way_back(one)} ({PAGE})."
    return f"{one}; run `lakehouse contract restore {one.table}`, which sets it back ({PAGE})."


def way_back(one: Difference) -> str:
    """Say how a table whose column has another type is put right."""
    if one.sound is None:
        return "put the table back from a backup, or make it again as the page says"
    if one.table in REVERSIBLE:
        return f"run `lakehouse rollback {one.table} --to {one.sound} --repair`, which takes the table back to before that"
    return f"take the table back with `RESTORE TABLE {one.table} TO VERSION AS OF {one.sound}` at `lakehouse sql --write`"


def gap_sentence(job: str, gap: Gap) -> str:
    """Say why the stream of `job` cannot go on, and what to do."""
    if job == "gold":
        restore = f"`lakehouse contract restore {SILVER}`, " if "change feed" in gap.why else ""
        return (
            f"Gold cannot read the changes of {SILVER} from version {gap.version} on, as {gap.why}; Silver has all rows still, "
            f"so run {restore}`lakehouse rebuild gold --swap` and then `lakehouse checkpoint rebuild gold` ({PAGE})."
        )
    return (
        f"Silver cannot read version {gap.version} of {BRONZE}, as {gap.why}; Bronze has all records still, so run `lakehouse "
        f"checkpoint rebuild silver`, whose new generation reads the table as it stands ({PAGE})."
    )


def damage_sentence(name: TableName, damage: Damage) -> str:
    """Say which derived file is damaged, and what to do."""
    if damage.is_lost:
        return (
            f"The log of {name} is damaged ({damage.why}), and the commits that the file stood for were cleaned; put it back "
            "from a backup, or see playbooks/full-rebuild.md."
        )
    return (
        f"A derived file in the log of {name} is damaged ({damage.why}), and all commits are there, so nothing is lost; run "
        f"`lakehouse contract restore {name}`, which sets it aside ({PAGE})."
    )
