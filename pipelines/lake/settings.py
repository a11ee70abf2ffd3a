"""Settings of all jobs: one YAML schema, read from file, then environment, then flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipelines.lake.errors import SettingsError
from pipelines.lake.places import local_path

EMBEDDED = "embedded"
ENV_PREFIX = "LAKEHOUSE__"
"""`LAKEHOUSE__KAFKA__TOPIC=x` overrides `kafka.topic`."""


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
    leases: LeaseSettings = Field(default_factory=LeaseSettings)
    retries: RetrySettings = Field(default_factory=RetrySettings)
    log: LogSettings = Field(default_factory=LogSettings)
    spark: dict[str, str] = Field(default_factory=dict, repr=False, description="Spark options passed through as they are.")


def load_settings(
    path: str | Path | None,
    *,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read settings from `path` (YAML; None: defaults), then `environ`, then `overrides` (dotted keys, None is skipped).

    Raises SettingsError with one sentence that names the key's path.
    """
    tree = _read_yaml(Path(path)) if path is not None else {}
    source = str(path) if path is not None else "the defaults"
    if any(name.startswith(ENV_PREFIX) for name in environ):
        source += " and the environment"
    for name, text in sorted(environ.items()):
        if name.startswith(ENV_PREFIX):
            _assign(tree, name.removeprefix(ENV_PREFIX).lower().split("__"), _environment_value(name, text))
    for key, value in (overrides or {}).items():
        if value is not None:
            _assign(tree, key.split("."), value)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(_sentence(source, error)) from None
    return settings.model_copy(update={"kafka": _expand_secrets(settings.kafka, environ)})


def process_settings(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """`load_settings` with this process's environment; for `main` functions only."""
    return load_settings(path, environ=os.environ, overrides=overrides)


def _environment_value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        msg = f"The environment variable {name} is not YAML; correct it, or put its value in quotes."
        raise SettingsError(msg) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = "give an existing YAML file with --config" if isinstance(error, FileNotFoundError) else "mend that"
        msg = f"The settings file {path} cannot be read ({error.strerror}); {what}, or give another one with --config."
        raise SettingsError(msg) from None
    except UnicodeDecodeError:
        msg = f"The settings file {path} is not UTF-8; save it as UTF-8."
        raise SettingsError(msg) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        msg = f"The settings file {path} is not YAML{where}; correct the file."
        raise SettingsError(msg) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        msg = f"The settings file {path} holds a {type(tree).__name__}, expected a mapping of sections such as `kafka:`."
        raise SettingsError(msg)
    return tree


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            child = tree[key] = {}
        tree = child
    tree[keys[-1]] = value


def _sentence(source: str, error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"Setting `{key}` in {source} is unknown; remove it or correct its name (see docs/settings.md)."
    if first["type"] == "missing":
        return f"Setting `{key}` in {source} is missing; add it (see docs/settings.md)."
    return f"Setting `{key}` in {source} is wrong: {first['msg']}; correct it (see docs/settings.md)."


def _expand_secrets(kafka: KafkaSettings, environ: Mapping[str, str]) -> KafkaSettings:
    options = {}
    for key, value in kafka.options.items():
        if value.startswith("${") and value.endswith("}"):
            name = value[2:-1]
            if name not in environ:
                msg = f"Setting `kafka.options.{key}` refers to the environment variable {name}, which is not set; set it."
                raise SettingsError(msg)
            options[key] = environ[name]
        else:
            options[key] = value
    return kafka.model_copy(update={"options": options})
