"""Guards of the tables: they keep the contract that readers and writers rely on."""

from __future__ import annotations

from pipelines.lake.contract.sentences import sentence
from pipelines.lake.errors import ContractError
from pipelines.runtime.guards.start import Start


def refuse_broken_contract(start: Start) -> None:
    """Raise ContractError where a table differs from its contract; the sentence has the command that mends it.

    Of tables that the job only reads, table features count.
    """
    written = {table.name for table in start.writes}
    for name, differences in start.differences.items():
        for difference in differences:
            if difference.kind == "feature" or (difference.kind in ("wrong", "column") and name in written):
                raise ContractError(sentence(difference))
