"""Defines the settings of all jobs as one schema; `settings_sources.py` reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from pipelines.lake.places import local_path

EMBEDDED = "embedded"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KafkaSettings(_Section):
    """Where the events come from."""

    bootstrap_servers: str = Field(EMBEDDED, description="`host:port,...`, or `embedded` for the broker of `lakehouse kafka`.")
    topic: str = Field("api-usage-events", description="Topic of the events.", min_length=1)
    partitions: int = Field(6, ge=1, le=1000, description="Partitions of the topic where the embedded broker creates it.")
    options: dict[str, str] = Field(
        default_factory=dict,
        repr=False,
        description="Kafka client options passed through as they are (`security.protocol`, `sasl.*`, `ssl.*`); "
        "`${NAME}` in a value is read from the environment, so that secrets stay out of files.",
    )
    startup_timeout_seconds: float = Field(
        60.0, gt=0, description="How long a job retries a broker that does not answer at start."
    )


class LakeSettings(_Section):
    """Where tables and checkpoints lie."""

    root: str = Field(".lakehouse/lake", min_length=1, description="Folder or URI of the tables: `<root>/<layer>/<table>`.")
    checkpoints: str = Field(
        ".lakehouse/checkpoints",
        min_length=1,
        description="Folder or URI of the checkpoints: `<checkpoints>/<job>/<generation>`.",
    )
    state_dir: str = Field(".lakehouse", min_length=1, description="Local folder for the broker, logs and ledgers of a laptop.")

    _local = field_validator("*")(local_path)


class BronzeSettings(_Section):
    """Kafka to Bronze."""

    trigger: str = Field("1 second", description="`available-now`, or an interval such as `1 second`.")
    max_offsets_per_trigger: int = Field(500_000, ge=1, description="Most records in one batch.")


class SilverSettings(_Section):
    """Bronze to Silver."""

    trigger: str = Field("1 second", description="`available-now`, or an interval such as `1 second`.")
    max_bytes_per_trigger: str = Field("64m", description="Bronze file bytes in one batch (compressed), as Spark writes sizes.")
    late_after_seconds: int = Field(7200, ge=0, description="An event that took longer from its timestamp to Kafka is late.")
    skew_after_seconds: int = Field(300, ge=0, description="An event further in the future than this has a skewed clock.")
    dedup_window_hours: int = Field(
        24, ge=1, description="Copies of an event_id with *different* event timestamps are found this far apart, by Kafka time."
    )
    max_event_bytes: int = Field(262_144, ge=64, description="A larger record value is a dead letter before it is parsed.")


class BreakerSettings(_Section):
    """Silver's circuit breaker: too many dead letters hold Silver back before its offsets advance, while Bronze goes on."""

    enabled: bool = Field(True, description="Whether Silver is held back at all.")
    share: float = Field(
        0.5, gt=0, le=1, description="Share of dead letters, of what is read within the window, from which on it opens."
    )
    min_records: int = Field(1000, ge=1, description="It never opens on fewer records than these.")
    window_seconds: int = Field(300, ge=1, description="How far back batches count, by the clock of the process.")
    cool_down_seconds: float = Field(60.0, ge=0, description="How long it stays open before a batch is tried again.")


class RetrySettings(_Section):
    """What a stream does when a batch fails."""

    attempts: int = Field(6, ge=1, description="Failures of one batch after which the stream gives up with a named error.")
    first_wait_seconds: float = Field(1.0, gt=0, description="Wait before the first restart; it doubles each time, plus jitter.")
    longest_wait_seconds: float = Field(30.0, gt=0, description="No wait is longer.")
    max_poison_records: int = Field(
        10, ge=0, description="Most records of one Silver batch that are set aside as dead letters because reading them fails."
    )


class DlqSettings(_Section):
    """Dead letters after they were written."""

    max_attempts: int = Field(
        5, ge=1, description="A dead letter that was tried this often is left out of a replay, unless it is forced."
    )
    retention_days: int = Field(
        30, ge=0, description="A replayed or discarded dead letter loses its bytes this long after it was closed."
    )


class RetentionSettings(_Section):
    """How long Bronze keeps records, and where they go then."""

    bronze_days: int = Field(90, ge=1, description="Days that Bronze keeps in its table; older ones are archived.")
    archive_days: int = Field(2557, ge=1, description="Days that the archive keeps a day of records (7 years).")
    archive: str = Field("", description="Folder or URI of the archive; empty: `<lake.root>/archive`.")

    _local = field_validator("archive")(local_path)


class GoldSettings(_Section):
    """Silver to Gold."""

    trigger: str = Field("10 seconds", description="`available-now`, or an interval such as `10 seconds`.")
    max_bytes_per_trigger: str = Field("1g", description="Silver file bytes in one batch (compressed), as Spark writes sizes.")


class ReconcileSettings(_Section):
    """The daily batch."""

    tolerance_events: int = Field(0, ge=0, description="Gold may be off by this many events before the batch exits non-zero.")
    grace_hours: int = Field(2, ge=0, description="A day becomes final this long after its end, so that its late events are in.")


class QualitySettings(_Section):
    """The gate before the bill."""

    suites: str = Field("conf/expectations", min_length=1, description="Folder of the suites of expectations, YAML or JSON.")
    docs: str = Field(
        "", description="Folder or URI of the audits' pages (Data Docs); empty: `quality_docs` beside the tables of `ops`."
    )
    history_days: int = Field(7, ge=1, le=92, description="A day is compared with at most this many closed days before it.")
    min_events: int = Field(
        100, ge=1, description="Shares and multiples of the usual are not judged where there are fewer events: they are noise."
    )
    large_customer_share: float = Field(
        0.01, gt=0, le=1, description="A customer with this share of the usual day's events is compared with its own past."
    )

    _local = field_validator("docs")(local_path)


class LeaseSettings(_Section):
    """Who may write a table."""

    wait_seconds: float = Field(
        300.0, gt=0, description="How long a batch waits for another writer of the same table to end its own."
    )


class LogSettings(_Section):
    """Logs."""

    format: Literal["json", "console"] = Field("console", description="`json` for machines, `console` for people.")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level that is written.")


class Settings(_Section):
    """All settings of one process; built once in `main`, frozen."""

    environment: str = Field("local", min_length=1, description="Name of the deployment, shown in logs.")
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    lake: LakeSettings = Field(default_factory=LakeSettings)
    schemas_dir: str = Field("conf/schemas/api_usage_events", min_length=1, description="Folder of the event schema versions.")
    bronze: BronzeSettings = Field(default_factory=BronzeSettings)
    silver: SilverSettings = Field(default_factory=SilverSettings)
    breaker: BreakerSettings = Field(default_factory=BreakerSettings)
    dlq: DlqSettings = Field(default_factory=DlqSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    gold: GoldSettings = Field(default_factory=GoldSettings)
    reconcile: ReconcileSettings = Field(default_factory=ReconcileSettings)
    quality: QualitySettings = Field(default_factory=QualitySettings)
    leases: LeaseSettings = Field(default_factory=LeaseSettings)
    retries: RetrySettings = Field(default_factory=RetrySettings)
    log: LogSettings = Field(default_factory=LogSettings)
    spark: dict[str, str] = Field(default_factory=dict, repr=False, description="Spark options passed through as they are.")
