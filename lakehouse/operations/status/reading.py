"""Reads what the lake holds and how far each layer has come, in about a second, without a JVM and without table data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from deltalake import DeltaTable

from lakehouse.operations.checkpoints.topic import PATIENCE_SECONDS
from lakehouse.operations.status.batches import last_batches, newest_batches
from lakehouse.operations.status.facts import BreakerStatus, LakeStatus, ProblemKind, TableStatus
from lakehouse.operations.status.partitions import partition_ends
from pipelines.lake.access import no_lake
from pipelines.lake.delta_log.file_facts import file_facts
from pipelines.lake.delta_log.opening import deleted_rows, open_table, require_plain
from pipelines.lake.errors import LakehouseError, UnknownFeatureError, UnreadableError, UsageError
from pipelines.lake.kafka.topic import NoAnswerError, NoTopicError, TopicState, ask_topic
from pipelines.lake.lease.layers import look_at_leases
from pipelines.lake.settings import Settings
from pipelines.lake.tables import ALL_TABLES, CIRCUIT_BREAKER, LEDGER
from pipelines.silver.breaker.breaker import Limits


def read_status(settings: Settings) -> LakeStatus:
    """Read tables and Kafka at the same time.

    Raises UsageError where the lake has no table at all. Kafka that does not answer, and what cannot be read, are part of the
    answer.
    """
    with ThreadPoolExecutor(len(ALL_TABLES) + 1) as pool:
        kafka = pool.submit(_ask_kafka, settings)
        opened = dict(zip(ALL_TABLES, pool.map(lambda name: _open(name.path(settings)), ALL_TABLES), strict=True))
        tables = [_table_status(str(name), found) for name, found in opened.items() if found is not None]
        breaker, unknown = _read_breaker(settings, opened[CIRCUIT_BREAKER])
        batches, unread = newest_batches(opened[LEDGER])
        topic, problem, broker = kafka.result()
    if not tables:
        raise no_lake(settings)
    partitions = partition_ends(topic, batches) if unread is None else []
    held, unseen = look_at_leases(settings)
    leases = tuple(f"Who holds a lease is not known: {one}" for one in unseen)
    return LakeStatus(tables, last_batches(batches), partitions, problem, breaker, held, unread, unknown, leases, broker)


def _ask_kafka(settings: Settings) -> tuple[TopicState | None, str | None, str | None]:
    """The topic, or why there is no answer; the third: why nobody could ask."""
    try:
        return ask_topic(settings, PATIENCE_SECONDS), None, None
    except UnreadableError as error:
        return None, None, f"Where the embedded broker is, is not known: {error}"
    except NoTopicError as error:
        return None, f"Kafka at {error.servers} has no topic {settings.kafka.topic}.", None
    except NoAnswerError as error:
        return None, f"Kafka at {error.servers} does not answer{error.missing}.", None
    except UsageError as error:  # the embedded broker does not run
        return None, str(error), None


def _read_breaker(settings: Settings, table: DeltaTable | LakehouseError | None) -> tuple[BreakerStatus | None, str | None]:
    """The breaker's last change, or why it is not known."""
    if not isinstance(table, DeltaTable):
        return None, None if table is None else f"The breaker's state is not known: {table}"
    # Arrow's dataset, which is slow to import, is loaded only where the breaker has a table.
    from pipelines.silver.breaker.breaker_store import UNREADABLE, BreakerStore  # noqa: PLC0415

    try:
        last = BreakerStore(settings).last()
    except (UnreadableError, UnknownFeatureError) as error:
        return None, f"The breaker's state is not known: {error}"
    except UNREADABLE as error:
        said = str(error).splitlines()[0]
        return None, f"The breaker's state is not known: a file of {CIRCUIT_BREAKER} cannot be read ({said})."
    if last is None:
        return None, None
    retry_at = last.breaker().retry_at(Limits.of(settings.breaker)) if last.to_state == "open" else None
    return BreakerStatus(last.to_state, last.at, retry_at, last.tally.share, last.tally.records, last.reason), None


def _open(path: str) -> DeltaTable | LakehouseError | None:
    try:
        return open_table(path)
    except LakehouseError as error:
        return error


def _table_status(name: str, table: DeltaTable | LakehouseError) -> TableStatus:
    if isinstance(table, LakehouseError):
        return TableStatus(name, None, None, None, None, str(table), _kind(table))
    adds = file_facts(table, ["num_records", "size_bytes"])
    records = adds["num_records"].to_pylist() if "num_records" in adds.column_names else []
    known = len(records) == adds.num_rows and None not in records
    rows, problem = None, None
    try:
        rows = sum(records) - deleted_rows(table) if known else None
        require_plain(table)
    except LakehouseError as error:
        problem = error
    said = (None, None) if problem is None else (str(problem), _kind(problem))
    return TableStatus(name, table.version(), rows, adds.num_rows, sum(adds["size_bytes"].to_pylist()), *said)


def _kind(error: LakehouseError) -> ProblemKind:
    if isinstance(error, UnreadableError):
        return "not readable"
    return "not understood" if isinstance(error, UnknownFeatureError) else "damaged"
