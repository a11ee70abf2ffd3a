"""The `lakehouse` command: each subcommand lives in a module of its own, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from pipelines.lake.errors import EXIT_CLOSED_PIPE, EXIT_INTERRUPTED, LakehouseError
from pipelines.lake.process import run_process, say_last

_COMMANDS = {
    "demo": "Run the whole path on a real broker and show that every event is accounted for.",
    "up": "Run all streams in one process until stopped.",
    "status": "Show tables, last batches, offsets and lag.",
    "doctor": "Say what is wrong, how sure that is, what is at stake, and the commands that mend it.",
    "contract": "Say what somebody changed in the tables' properties and logs, and set it back.",
    "quality": "Show what audits of days found and which days wait at the gate, or audit a day without publishing it.",
    "breaker": "Show the circuit breaker of Silver, or accept the dead letters that it holds back.",
    "checkpoint": "List, show, verify, copy, rewind and rebuild the checkpoints of the streams.",
    "check": "Run the SQL verification checks; exit code 1 when one finds offenders.",
    "verify": "Prove from the op ledger that every acknowledged record has its fate.",
    "rebuild": "Build Silver or Gold anew from the layer before, compare, and swap.",
    "rollback": "Restore a table to an older version, and say or do what has to follow.",
    "sql": "Open an SQL prompt on the tables, or run one statement.",
    "produce": "Send generated events, or an access log, to Kafka and write the op ledger.",
    "repair": "Fill what is missing in Bronze where Kafka still has it.",
    "archive": "Show and verify the archive of Bronze: days that are too old for its table.",
    "dlq": "List, show, count, replay and discard dead letters.",
    "schema": "Check whether a change of the event schema is compatible.",
    "kafka": "Start, stop and look at the embedded Kafka broker.",
}


class _LazyGroup(TyperGroup):
    """Lists commands by name and sentence alone, so that `--help` and a light command do not pay for pyspark's import."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # Typer's alias of the same class
        """Return the commands in the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """Return a stand-in with the help text; `resolve_command` gives the real one."""
        return TyperCommand(cmd_name, help=_COMMANDS[cmd_name]) if cmd_name in _COMMANDS else None

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Return the command that `args` ask for, from its module."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import the command `name`: its module's `app`, or the function called like the command."""
    module = importlib.import_module(f"lakehouse.commands.{name}")
    if hasattr(module, "app"):
        return get_command(module.app)
    single = typer.Typer(add_completion=False)
    single.command(name)(getattr(module, name))
    return get_command(single)


app = typer.Typer(
    cls=_LazyGroup,
    name="lakehouse",
    help="A lakehouse for billed API-usage events: every record that Kafka acknowledged is accounted for.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _root() -> None:
    """Take the options that all commands share: none yet."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line `args` (default: the process's) and exit.

    Every error ends as one sentence and a code; of one that nobody has foreseen the trace is saved in a file.
    """
    try:
        get_command(app)(args=args, prog_name="lakehouse")
    except LakehouseError as error:
        _say_error(error)
    except KeyboardInterrupt:
        _say_interrupted()
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:  # Typer has caught the Ctrl-C
            _say_interrupted()
        if _is_of_a_closed_pipe(ended):
            sys.exit(EXIT_CLOSED_PIPE)
        raise
    except Exception as error:
        from pipelines.runtime.failures import named_error  # noqa: PLC0415 - pyspark: only where there is an error to name

        _say_error(named_error(error))


def _is_of_a_closed_pipe(ended: SystemExit) -> bool:
    """Whether the command ended since nobody reads its output any more (`| head`): Typer and rich say 1, a code of the doctor."""
    cause = ended.__context__
    return isinstance(cause, OSError) and cause.errno == errno.EPIPE


def run() -> None:
    """Be the process of the command."""
    run_process(main)


def _say_error(error: LakehouseError) -> NoReturn:
    say_last(f"lakehouse: {error}")
    sys.exit(error.exit_code)


def _say_interrupted() -> NoReturn:
    say_last("lakehouse: interrupted")
    sys.exit(EXIT_INTERRUPTED)
