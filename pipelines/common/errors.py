"""The project's errors: each message says what was found, what was expected and what to do."""

from __future__ import annotations

EXIT_FAILURE = 1
EXIT_USAGE = 2


class LakehouseError(Exception):
    """Base of every error that ends a command with one sentence and `exit_code`, without a stack trace."""

    exit_code = EXIT_FAILURE


class UsageError(LakehouseError):
    """Raised when a flag, a setting or a path is wrong; nothing was written (exit code 2)."""

    exit_code = EXIT_USAGE


class SettingsError(UsageError):
    """Raised when the settings file, the environment or a flag does not fit the settings schema."""


class CheckpointError(UsageError):
    """Raised when a checkpoint belongs to another job, table or topic than the one asked for."""


class TransientError(LakehouseError):
    """Raised when the outside world did not answer in time; the same call may succeed later."""


class DataLossError(LakehouseError):
    """Raised when going on would skip or double records; an operator must decide (never retried)."""
