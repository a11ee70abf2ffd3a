"""Writes from the SQL prompt: refused without `--write`; with it, asked about first and done while the lease is held."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.operations.sql.plan import leases_for
from pipelines.lake.errors import UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.tables import BRONZE, DLQ, SILVER, TableName

if TYPE_CHECKING:
    from pipelines.lake.settings import Settings

_YES = "yes"


class ReadOnlyError(UsageError):
    """Raised where a statement would write and the prompt only reads; nothing was done (exit code 2)."""


class NotConfirmedError(UsageError):
    """Raised where the one who was asked did not confirm a write; nothing was done (exit code 2)."""


def refuse(what: str) -> None:
    """Raise ReadOnlyError for a statement that does `what`."""
    msg = (
        f"The statement is no query but {what}, and this prompt only reads: nothing was done; ask by SELECT, SHOW or DESCRIBE, "
        "or start `lakehouse sql --write`, which asks first and holds the tables' lease."
    )
    raise ReadOnlyError(msg)


@dataclass(frozen=True)
class Writer:
    """What lets a write happen: `ask` gets a question and gives the answer; None answers yes to all (`--yes`)."""

    settings: Settings
    ask: Callable[[str], str] | None

    def confirm(self, what: str, tables: list[TableName]) -> None:
        """Ask for the table's name, or `yes` where it is not one table; raises NotConfirmedError for another answer."""
        if self.ask is None:
            return
        word = str(tables[0]) if len(tables) == 1 else _YES
        where = ", ".join(map(str, tables)) or "what it does not name"
        answer = self.ask(f"{what} writes {where}, outside of the jobs{_usual_way(tables)}. Type `{word}` to do it: ")
        if answer.strip() != word:
            msg = f"It was not confirmed, nothing was done; type `{word}` to do it."
            raise NotConfirmedError(msg)

    @contextmanager
    def hold(self, tables: list[TableName]) -> Iterator[None]:
        """Hold the leases of `tables` within the block, so that no batch writes meanwhile."""
        run = uuid.uuid4().hex[:12]
        with ExitStack() as held:
            for layer in leases_for(tables):
                held.enter_context(lease_of(self.settings, layer, job="sql", run=run).hold())
            yield


def _usual_way(tables: list[TableName]) -> str:
    ways = {_way_of(table) for table in tables}
    return "".join(f"; {way}" for way in sorted(ways))


def _way_of(table: TableName) -> str:
    if table == BRONZE:
        return "the usual way for Bronze is `lakehouse repair bronze`"
    if table == DLQ:
        return "the usual way for dead letters is `lakehouse dlq replay` or `discard`"
    if table == SILVER:
        return "the usual way for Silver is `lakehouse rollback` or `rebuild silver`"
    if table.layer == "gold":
        return "the usual way for Gold is batch/reconcile_gold.py, and an issued bill is never changed"
    return "the usual way is the playbook of the error at hand (playbooks/README.md)"
