"""What the streaming jobs share: flags, triggers, the life of a query, exit codes."""

from __future__ import annotations

import argparse
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaException
from deltalake.exceptions import DeltaError
from py4j.protocol import Py4JError
from pyarrow.lib import ArrowException
from pyspark.errors.exceptions.base import PySparkException, StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql.streaming import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipelines.lake.access import require_access
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.chain import may_hold_values, own_error_of, text_of
from pipelines.lake.causes.classify import classify
from pipelines.lake.checkpoint.failures import BatchFailures
from pipelines.lake.checkpoint.generations import newest_generation_path
from pipelines.lake.errors import EXIT_INTERRUPTED, LakehouseError, UsageError, own_error
from pipelines.lake.lease.checkpoints import CheckpointLock
from pipelines.lake.logging import Log, setup_logging
from pipelines.lake.places import local_path
from pipelines.lake.process import on_stop_signals, say_last
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import process_settings
from pipelines.lake.storage.local_files import as_unreadable
from pipelines.lake.traces import keep_traces_in, save_trace
from pipelines.runtime.contract_start import cause_in_tables
from pipelines.runtime.session import build_session

AVAILABLE_NOW = "available-now"
_INTERVAL = re.compile(r"\d+\s*(milliseconds?|seconds?|minutes?|hours?)")
_LOG = Log("job")
OUTSIDE_ERRORS = (PySparkException, Py4JError, DeltaError, ArrowException, KafkaException, OSError)
"""What comes from below when a table cannot be read, or the JVM or Kafka is gone: a sentence, not a stack trace."""


def job_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser with the flags that every streaming job takes."""
    parser = argparse.ArgumentParser(description=description, exit_on_error=True)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--checkpoint-path", help="checkpoint of this run; a new path is a new generation")
    parser.add_argument("--trigger", help="`available-now`, or an interval such as `1 second`")
    parser.add_argument("--starting-offsets", help='where a new checkpoint begins, as JSON such as {"0":123456}')
    replay = parser.add_argument_group("bounded replay", "with any of these the job reads that part again, and ends by itself")
    replay.add_argument("--ending-offsets", help='where the replay ends (exclusive), as JSON such as {"0":234567}')
    replay.add_argument("--from-date", help="first UTC day to read again, such as 2026-01-28; alone, all from it on")
    replay.add_argument("--to-date", help="last UTC day to read again (Bronze: up to Kafka's first record of the next day)")
    replay.add_argument("--dry-run", action="store_true", help="say how much would be read again, and write nothing")
    return parser


def set_trigger(writer: DataStreamWriter, trigger: str) -> DataStreamWriter:
    """Apply a trigger given as text.

    Raises UsageError where the text is neither `available-now` nor an interval.
    """
    if trigger == AVAILABLE_NOW:
        return writer.trigger(availableNow=True)
    if not _INTERVAL.fullmatch(trigger.strip()):
        msg = f"The trigger `{trigger}` is not known; give `available-now` or an interval such as `1 second`."
        raise UsageError(msg)
    return writer.trigger(processingTime=trigger)


def parse_offsets(text: str | None, flag: str = "--starting-offsets") -> dict[int, int] | None:
    """Read `{"<partition>": offset, ...}`; None stays None.

    Raises UsageError with one sentence where it is anything else.
    """
    if text is None:
        return None
    expected = 'expected JSON such as {"0":123456,"1":0} with whole numbers from 0'
    try:
        tree = json.loads(text)
        pairs = {int(partition): offset for partition, offset in tree.items()}
    except (ValueError, AttributeError):
        msg = f"The value of {flag} is not understood; {expected}."
        raise UsageError(msg) from None
    if not pairs or any(not isinstance(offset, int) or isinstance(offset, bool) or offset < 0 for offset in pairs.values()):
        msg = f"The value of {flag} has no partition, or an offset that is none; {expected}."
        raise UsageError(msg)
    return pairs


def checkpoint_path(settings: Settings, job: str, given: str | None) -> str:
    """Path of the checkpoint: as given, or the job's newest generation `g<n>` under the settings.

    Raises UnreadableError where nobody can tell which there are.
    """
    return local_path(given).rstrip("/") if given else newest_generation_path(settings, job)


BatchFunction = Callable[[DataFrame, int], None]


@dataclass
class _Life:
    """What is known of a query beside what Java says: what comes back through Java is a text without its causes."""

    raised: Exception | None = None
    """What the batch function raised last."""
    lock_released: threading.Event = field(default_factory=threading.Event)


_lives: WeakKeyDictionary[StreamingQuery, _Life] = WeakKeyDictionary()
_RELEASE_SECONDS = 10.0
"""How long the lock of a stream that has ended is waited for: its thread hears of the end at the same time."""


def start_stream(writer: DataStreamWriter, write: BatchFunction, trigger: str, lock: CheckpointLock) -> StreamingQuery:
    """Start a stream of batches for `write`; `lock` is its checkpoint's, and is released when the stream ends."""
    life = _Life()

    def remembered(batch: DataFrame, batch_id: int) -> None:
        try:
            write(batch, batch_id)
        except Exception as error:
            life.raised = error
            raise

    with lock.released_on_error():
        query = set_trigger(writer.foreachBatch(remembered), trigger).start()
    _lives[query] = life

    def give_back() -> None:
        with suppress(Exception):  # what the stream failed of is for those who started it
            query.awaitTermination()
        lock.release()
        life.lock_released.set()

    threading.Thread(target=give_back, name="give-back", daemon=True).start()
    return query


def await_query(query: StreamingQuery, stop: threading.Event) -> None:
    """Wait until `query` ends or `stop` is set; then let the running batch finish before stopping. Its checkpoint is free then.

    Raises what made the query fail; its cause is what the batch function raised, if that was it.
    """
    while query.isActive and not stop.is_set():
        with suppress(StreamingQueryException):  # raised below, with its cause
            query.awaitTermination(1)
    if query.isActive:
        drain(query)
    life = _lives.get(query)
    if life is not None:
        life.lock_released.wait(_RELEASE_SECONDS)
    failure = query.exception()
    if failure is not None:
        raise failure from (life.raised if life is not None else None)


def drain(query: StreamingQuery, rest_seconds: float = 10.0, batch_seconds: float = 50.0) -> None:
    """Stop where no batch runs, if such a moment comes within `rest_seconds`.

    A stream that is behind has none: of it the batch that runs then is the last, if it ends within `batch_seconds`. The next one
    begins at once and is cut as it begins; the next start runs it again, as after any kill.
    """
    _wait(lambda: not _runs(query), rest_seconds)
    ended = _last_ended(query)
    _wait(lambda: not _runs(query) or _last_ended(query) != ended, batch_seconds)
    query.stop()


def _wait(until: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)


def _runs(query: StreamingQuery) -> bool:
    return query.isActive and bool(query.status["isTriggerActive"])


def _last_ended(query: StreamingQuery) -> tuple[int, str] | None:
    """The batch that ended last: its number, and when it began, since one without records ends again and again."""
    progress = query.lastProgress
    return None if progress is None else (progress.batchId, progress.timestamp)


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP set: the running batch is drained, then the process ends."""
    stop = threading.Event()

    def ask(number: int, _frame: object) -> None:
        _LOG.info("stopping after the running batch", signal=signal.Signals(number).name)
        stop.set()

    on_stop_signals(ask)
    return stop


def run_stream(
    run: Callable[..., StreamingQuery],
    replay: Callable[..., None],
    name: str,
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Run a streaming job from the command line until it ends or a signal drains it; return the exit code.

    Flags that bound what is read make it a replay. Flags that the job added to the parser are passed on to both. A failed
    batch ends the process, which Kubernetes starts again; the count of failures lies beside the checkpoint.
    """
    own = vars(job_parser("").parse_args([])).keys()

    def job(args: argparse.Namespace, settings: Settings) -> None:
        stop = stop_on_signals()
        extra = {key: value for key, value in vars(args).items() if key not in own}
        bounded = is_bounded(args)
        if bounded and not (args.checkpoint_path or args.dry_run):
            msg = "A replay needs a checkpoint of its own, and --checkpoint-path is missing; give a new path."
            raise UsageError(msg)
        if args.dry_run and not bounded:
            msg = (
                "--dry-run is for a bounded replay, and a start without an end reads all that comes; to see what it would read "
                "up to now, give --ending-offsets (`lakehouse status` shows Kafka's), --from-date or --to-date with it, or leave "
                "it out."
            )
            raise UsageError(msg)
        if not args.dry_run:
            require_access(settings, name, checkpoint_path(settings, name, args.checkpoint_path))
        spark = build_session(settings, name)
        if bounded:
            replay(spark, settings, args, stop, **extra)
            return
        query = run(
            spark,
            settings,
            checkpoint_path=args.checkpoint_path,
            trigger=args.trigger,
            starting_offsets=args.starting_offsets,
            **extra,
        )
        try:
            await_query(query, stop)
        except PySparkException as error:
            path = checkpoint_path(settings, name, args.checkpoint_path)
            failure = BatchFailures(name, path).note(error)
            said = None if failure.own is not None else cause_in_tables(settings, name, path)
            raise (said or failure.error()) from error

    return run_job(job, parser, argv)


def is_bounded(args: argparse.Namespace) -> bool:
    """Whether the flags ask for a replay that ends by itself."""
    return any(text is not None for text in (args.ending_offsets, args.from_date, args.to_date))


def run_job(
    main: Callable[[argparse.Namespace, Settings], int | None], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Run a job's `main`: settings, logs, one sentence and an exit code for every error that is the user's or the world's."""
    args = parser.parse_args(argv)
    try:
        settings = process_settings(args.config)
        setup_logging(settings.log)
        keep_traces_in(settings.lake.state_dir)
        return main(args, settings) or 0
    except LakehouseError as error:
        say_last(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say_last("stopped")
        return EXIT_INTERRUPTED
    except Exception as error:
        named = named_error(error)
        say_last(f"error: {named}")
        return named.exit_code


def named_error(error: Exception) -> LakehouseError:
    """Give one sentence for what Spark, Delta, the JVM, the machine or a mistake of the project raised.

    A sentence of the project's own inside it wins. Of an error that nobody has foreseen the trace is saved.
    """
    own = own_error_of(error) or own_error(text_of(error))
    if own is None and isinstance(error, OSError | DeltaError | ArrowException):
        own = as_unreadable(error, "a file", "open to this user")
    if own is not None:
        return own
    cause = classify(error)
    condition = cause.name
    with suppress(Py4JError, OSError):  # it asks the JVM, which may be gone
        condition = getattr(error, "getCondition", lambda: None)() or cause.name
    hidden = cause.kind in (Kind.DATA, Kind.UNKNOWN) and may_hold_values(error)
    said = f"It stopped with {condition} ({cause.kind}: {cause.reason}){'' if hidden else f': {_first_line(error)}'}"
    trace = save_trace(error) if cause.kind is Kind.UNKNOWN else None
    msg = f"{said}; see {f'its trace in {trace}' if trace else 'the log'}, then {cause.playbook}."
    return LakehouseError(msg)


def _first_line(error: Exception) -> str:
    """The beginning of what it says. Of an error that PySpark does not know Java's own text: Python's only names the call."""
    text = text_of(getattr(error, "java_exception", None) or error)
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:300]
