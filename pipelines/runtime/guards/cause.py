"""Names what somebody did to a job's tables, for a stream that failed of it."""

from __future__ import annotations

from pipelines.lake.contract.facts import differences_at
from pipelines.lake.contract.sentences import damage_sentence, gap_sentence, sentence
from pipelines.lake.delta_log.derived_files import find_damage
from pipelines.lake.errors import ContractError, LakehouseError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.runtime.guards.source import gap_of


def cause_in_tables(settings: Settings, job: str, checkpoint: str) -> LakehouseError | None:
    """Why a stream failed, where somebody did something to its tables; None where that is not it, or cannot be told."""
    try:
        gap = gap_of(settings, job, checkpoint)
        if gap is not None:
            return ContractError(gap_sentence(job, gap))
        tables = JOBS.get(job)
        for name in () if tables is None else filter(None, (*tables.outputs, tables.source)):
            damage = find_damage(name.path(settings))
            if damage is not None:
                return ContractError(damage_sentence(name, damage))
            for one in differences_at(name, absolute(name.path(settings))):
                if one.kind in ("wrong", "feature"):
                    return ContractError(sentence(one))
    except Exception:  # a table that cannot be read, or files: the failure itself says more
        return None
    return None
