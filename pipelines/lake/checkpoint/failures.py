"""How often a stream's batch failed in a row, across restarts of the process, and the error that ends it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pipelines.lake.causes.cause import Cause, Kind
from pipelines.lake.causes.chain import own_error_of, text_of
from pipelines.lake.causes.classify import classify
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.checkpoint.progress import last_committed
from pipelines.lake.errors import LakehouseError, StreamFailedError, own_error
from pipelines.lake.logging import Log
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage, read_if_there
from pipelines.lake.traces import save_trace

NAME = "lakehouse-failures.json"
"""Beside the checkpoint's own files: a process that Kubernetes starts again knows that it is not the first to fail."""

_LOG = Log("retries")


@dataclass(frozen=True)
class Failure:
    """A batch that failed for the `count`-th time in a row."""

    stream: str
    batch_id: int
    count: int
    cause: Cause
    own: LakehouseError | None
    trace: Path | None = None
    """Where the trace of an error that nobody has foreseen lies."""

    def is_final(self, attempts: int) -> bool:
        """Whether trying again by itself makes no sense any more."""
        may_pass = self.cause.kind in (Kind.TRANSIENT, Kind.UNKNOWN)
        return self.cause.kind in (Kind.PERMANENT, Kind.DATA) or (may_pass and self.count >= attempts)

    def error(self) -> LakehouseError:
        """The sentence for it; one of the project's own stays as it is, and after several failures it stands behind."""
        if self.own is not None and (self.count == 1 or self.cause.kind is not Kind.TRANSIENT):
            return self.own
        times = "" if self.count == 1 else f" {self.count} times in a row"
        batch = f"batch {self.batch_id}" if self.batch_id >= 0 else "a batch"
        last = "" if self.own is None else f" The last time: {self.own}"
        saved = "" if self.trace is None else f"; its trace is in {self.trace}"
        page = f": see {self.cause.playbook}" if self.cause.playbook else ""
        msg = (
            f"Stream {self.stream} failed{times} in {batch} with {self.cause.name} ({self.cause.kind}: {self.cause.reason}); "
            f"nothing is lost, its offsets did not advance{saved}{page}.{last}"
        )
        return StreamFailedError(msg)


@dataclass
class BatchFailures:
    """Counts the failures of a stream's next batch; a batch that succeeds ends the count, as the next one has another number.

    The count is kept in a file of the checkpoint. Where that cannot be written, this process counts alone.
    """

    stream: str
    checkpoint: str
    _known: tuple[int, int] = field(default=(-1, 0))

    def note(self, error: Exception) -> Failure:
        """Count a failure and say what it was."""
        cause = classify(error)
        own = own_error_of(error) or own_error(text_of(error))
        trace = save_trace(error) if cause.kind is Kind.UNKNOWN else None
        if cause.kind is Kind.HELD:
            return Failure(self.stream, -1, 1, cause, own)
        # Where the checkpoint cannot even be read, it is taken for the same batch again: the count has to end.
        batch, count = self._known[0], self._known[1] + 1
        try:
            batch = self._next_batch()
            count = self.count(batch) + 1
            record = {"batch": batch, "count": count, "cause": cause.name, "at": datetime.now(UTC).isoformat(timespec="seconds")}
            # A folder that is no checkpoint yet would be taken for something else's.
            if MARKER in self._storage.names():
                self._storage.replace(NAME, json.dumps(record).encode())
        except Exception as problem:  # a full disk, a dead JVM: it must not hide the failure itself
            _LOG.warning("failure cannot be recorded", stream=self.stream, cause=classify(problem).name)
        self._known = (batch, count)
        return Failure(self.stream, batch, count, cause, own, trace)

    def count(self, batch_id: int) -> int:
        """How often the batch failed so far."""
        if self._known[0] != batch_id:
            self._known = (batch_id, self._read(batch_id))
        return self._known[1]

    def forget(self) -> None:
        """Begin to count anew: the operator has started the process by hand."""
        self._storage.delete(NAME)
        self._known = (-1, 0)

    def _read(self, batch_id: int) -> int:
        try:
            record = json.loads(read_if_there(self._storage, NAME) or b"{}")
        except ValueError:  # cut by a crash: the count begins anew
            return 0
        return int(record.get("count", 0)) if record.get("batch") == batch_id else 0

    def _next_batch(self) -> int:
        """The batch after the last one that Spark committed."""
        committed = last_committed(self._storage)
        return 0 if committed is None else committed + 1

    @cached_property
    def _storage(self) -> Storage:
        return open_storage(self.checkpoint)
