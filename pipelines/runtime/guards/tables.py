"""Guards of the tables: they keep the contract that readers and writers rely on."""

from __future__ import annotations

from pipelines.lake.contract.facts import differences_at
from pipelines.lake.contract.sentences import sentence
from pipelines.lake.errors import ContractError, DamagedError, UnknownFeatureError
from pipelines.lake.places import absolute
from pipelines.runtime.guards.start import Start


def refuse_broken_contract(start: Start) -> None:
    """Raise ContractError where a table differs from its contract; the sentence has the command that mends it.

    Of tables that the job only reads, table features count.
    """
    written = {table.name: table for table in start.writes}
    for name in (*written, *start.reads):
        try:
            found = differences_at(name, absolute(name.path(start.settings)), written.get(name))
        except (DamagedError, UnknownFeatureError):  # what is wrong with its log, the job's own reads say
            continue
        for difference in found:
            if difference.kind == "feature" or (difference.kind in ("wrong", "column") and name in written):
                raise ContractError(sentence(difference))
