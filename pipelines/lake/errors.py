"""The project's errors: each message says what was found, what was expected and what to do."""

from __future__ import annotations

import re
from typing import ClassVar

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_HELD = 4
EXIT_REFUSED = 5
"""The gate before the bill refused a day."""
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
"""As of a process that SIGPIPE ended."""


class LakehouseError(Exception):
    """Base of every error that ends a command with one sentence and `exit_code`, without a stack trace.

    The playbook is part of the sentence, so that it goes wherever the sentence goes, through Java's traces too.
    """

    exit_code = EXIT_FAILURE
    usual_playbook: ClassVar[str | None] = None
    """Page of an error whose sentence names none; None where the sentence alone is the way out."""

    @property
    def playbook(self) -> str | None:
        """Name of the playbook that leads out: the first one in the sentence, otherwise that of the class."""
        named = re.search(r"playbooks/([\w-]+)\.md", str(self))
        return named[1] if named else self.usual_playbook


class UsageError(LakehouseError):
    """Raised when a flag, a setting or a path is wrong; nothing was written (exit code 2)."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """Raised when the settings file, the environment or a flag does not fit the settings schema."""


class CheckpointError(UsageError):
    """Raised when a checkpoint belongs to another job, table or topic than the one asked for."""

    usual_playbook = "checkpoint-lost"


class TransientError(LakehouseError):
    """Raised when the outside world did not answer in time; the same call may succeed later."""


class LeaseHeldError(TransientError):
    """Raised when another writer of the same tables did not end its batch in time; the message names it."""

    usual_playbook = "spark-crash"


class UnreadableError(LakehouseError):
    """Raised when a file or folder is not readable for this process: what it holds, and whether it is there, is not known."""

    usual_playbook = "permission"


class UnreadableNowError(UnreadableError, TransientError):
    """Raised when what keeps a file from being read may pass by itself: no file handle is left, a mount does not answer."""

    usual_playbook = "environment"


class UnknownFeatureError(LakehouseError):
    """Raised when a table has a feature that this reader does not understand: the table may well be sound for others."""

    usual_playbook = "table-contract"


class DamagedError(LakehouseError):
    """Raised when what was read is not what it has to be: a log that is cut, say; never for what was not seen."""

    usual_playbook = "full-rebuild"


class DataLossError(LakehouseError):
    """Raised when going on would skip or double records; an operator must decide (never retried)."""


class ContractError(LakehouseError):
    """Raised where a table differs from its contract, or a reader cannot go on over what somebody did to its source."""

    usual_playbook = "table-contract"


class BreakerOpenError(LakehouseError):
    """Raised where Silver's circuit breaker holds a batch back; nothing is written, a later run tries again (exit code 4)."""

    exit_code = EXIT_HELD
    usual_playbook = "poison-flood"


class StoppedError(LakehouseError):
    """Raised where a signal ended what was half done: the same command goes on with it (exit code 130)."""

    exit_code = EXIT_INTERRUPTED


class StreamFailedError(LakehouseError):
    """Raised when a stream cannot go on by itself: its batch failed for good, or too often."""


class PoisonBatchError(LakehouseError):
    """Raised when a batch fails because of its records, but not of a few that could be set aside; nothing of it is skipped."""

    usual_playbook = "poison-flood"


def own_error(text: str) -> LakehouseError | None:
    """The project's own error that a trace of Python or Java tells of, None where there is none in it."""
    # By this module's own name, wherever it lies.
    found = re.search(rf"{re.escape(__name__)}\.(\w+): (.+)", text)
    if found is None:
        return None
    kinds = {kind.__name__: kind for kind in _subclasses(LakehouseError)}
    return kinds.get(found[1], LakehouseError)(found[2].strip())


def _subclasses(kind: type[LakehouseError]) -> list[type[LakehouseError]]:
    return [kind, *(child for direct in kind.__subclasses__() for child in _subclasses(direct))]
