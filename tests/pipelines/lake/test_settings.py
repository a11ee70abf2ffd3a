"""Settings: where each value comes from, and the sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.lake.errors import EXIT_USAGE, SettingsError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import EMBEDDED, Settings
from pipelines.lake.settings_sources import load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    return load_settings(write(folder, text), environ=environ or {}, overrides=overrides)


def sentence(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as raised:
        load(folder, text, environ)
    assert raised.value.exit_code == EXIT_USAGE
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_a_file_the_defaults_hold() -> None:
    assert load_settings(None, environ={}) == Settings()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "") == Settings()


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    text = "kafka: {topic: of_file, partitions: 2}\nbronze: {trigger: 5 seconds}\n"
    environ = {"LAKEHOUSE__KAFKA__TOPIC": "of_environment", "LAKEHOUSE__BRONZE__TRIGGER": "6 seconds", "OTHER": "x"}
    settings = load_settings(write(tmp_path, text), environ=environ, overrides={"bronze.trigger": "7 seconds"})
    assert settings.kafka.partitions == 2
    assert settings.kafka.topic == "of_environment"
    assert settings.bronze.trigger == "7 seconds"


def test_a_flag_that_was_not_given_changes_nothing(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, "kafka: {topic: mine}"), environ={}, overrides={"kafka.topic": None})
    assert settings.kafka.topic == "mine"


def test_environment_reads_numbers_and_mappings_as_yaml() -> None:
    environ = {"LAKEHOUSE__SILVER__MAX_EVENT_BYTES": "1024", "LAKEHOUSE__SPARK": "{spark.master: 'local[1]'}"}
    settings = load_settings(None, environ=environ)
    assert settings.silver.max_event_bytes == 1024
    assert settings.spark == {"spark.master": "local[1]"}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("kafk: {topic: x}", "kafk"),
        ("kafka: {topics: x}", "kafka.topics"),
        ("silver: {dedupe_window_hours: 2}", "silver.dedupe_window_hours"),
    ],
)
def test_unknown_key_is_named_with_its_path(tmp_path: Path, text: str, key: str) -> None:
    said = sentence(tmp_path, text)
    assert said.startswith(f"Setting `{key}` in {tmp_path}/settings.yaml is unknown; remove it or correct its name")


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ("kafka: {topic: 5}", "kafka.topic", "valid string"),
        ("kafka: {topic: ''}", "kafka.topic", "at least 1 character"),
        ("kafka: {partitions: '6'}", "kafka.partitions", "valid integer"),
        ("kafka: {partitions: true}", "kafka.partitions", "valid integer"),
        ("kafka: {partitions: 0}", "kafka.partitions", "greater than or equal to 1"),
        ("kafka: {startup_timeout_seconds: 0}", "kafka.startup_timeout_seconds", "greater than 0"),
        ("kafka: {options: {acks: 1}}", "kafka.options.acks", "valid string"),
        ("silver: {late_after_seconds: -1}", "silver.late_after_seconds", "greater than or equal to 0"),
        ("log: {format: xml}", "log.format", "'json' or 'console'"),
        ("gold: 10 seconds", "gold", "valid dictionary"),
        ("spark: [a]", "spark", "valid dictionary"),
        ("environment: null", "environment", "valid string"),
    ],
)
def test_wrong_value_is_named_with_its_path(tmp_path: Path, text: str, key: str, expected: str) -> None:
    said = sentence(tmp_path, text)
    assert said.startswith(f"Setting `{key}` in {tmp_path}/settings.yaml is wrong: ")
    assert expected in said
    assert "docs/settings.md" in said


def test_unknown_key_of_the_environment_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"Setting `kafka\.tpic` .* is unknown"):
        load_settings(None, environ={"LAKEHOUSE__KAFKA__TPIC": "x"})


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"The settings file .*none\.yaml cannot be read \(No such file or directory\); give"):
        load_settings(tmp_path / "none.yaml", environ={})


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    assert "is not YAML at line 2; correct the file." in sentence(tmp_path, "kafka:\n  topic: a: b\n")


@pytest.mark.parametrize(("text", "kind"), [("- a\n", "list"), ("just text\n", "str"), ("7\n", "int")])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    assert f"holds a {kind}, expected a mapping of sections" in sentence(tmp_path, text)


def test_file_that_is_no_utf8_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"kafka: {topic: \xff}")
    with pytest.raises(SettingsError, match=r"The settings file .* is not UTF-8; save it as UTF-8\.$"):
        load_settings(path, environ={})


@pytest.mark.parametrize("text", ["a: b: c", "{"])
def test_environment_that_is_no_yaml_is_one_sentence_without_the_value(text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(None, environ={"LAKEHOUSE__KAFKA__TOPIC": text})
    expected = "The environment variable LAKEHOUSE__KAFKA__TOPIC is not YAML; correct it, or put its value in quotes."
    assert str(raised.value) == expected


def test_mistake_of_the_environment_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    assert "settings.yaml and the environment is unknown" in sentence(tmp_path, "", {"LAKEHOUSE__KAFKA__TPIC": "x"})


def test_secret_of_spark_is_in_no_repr(tmp_path: Path) -> None:
    assert "hunter2" not in repr(load(tmp_path, "spark: {spark.hadoop.fs.s3a.secret.key: hunter2}"))


def test_secret_comes_from_the_environment(tmp_path: Path) -> None:
    settings = load(tmp_path, "kafka: {options: {sasl.password: '${PASSWORD}', acks: all}}", {"PASSWORD": "hunter2"})
    assert settings.kafka.options == {"sasl.password": "hunter2", "acks": "all"}


def test_secret_that_is_not_set_is_named_by_variable(tmp_path: Path) -> None:
    said = sentence(tmp_path, "kafka: {options: {sasl.password: '${PASSWORD}'}}")
    assert said == "Setting `kafka.options.sasl.password` refers to the environment variable PASSWORD, which is not set; set it."


def test_secret_is_in_no_repr_and_no_error(tmp_path: Path) -> None:
    settings = load(tmp_path, "kafka: {options: {sasl.password: '${PASSWORD}'}}", {"PASSWORD": "hunter2"})
    assert "hunter2" not in f"{settings!r} {settings} {settings.kafka!r}"
    assert "hunter2" not in sentence(tmp_path, "kafka: {options: {sasl.password: [hunter2]}}")
    assert "hunter2" not in sentence(tmp_path, "kafka: {sasl.password: hunter2}")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().kafka.topic = "other"  # type: ignore[misc]


@pytest.fixture
def production() -> Settings:
    environ = {"KAFKA_USERNAME": "lakehouse", "KAFKA_PASSWORD": "hunter2"}
    return load_settings(PROJECT / "conf" / "production.yaml", environ=environ)


def test_local_conf_is_the_defaults_written_out() -> None:
    assert load_settings(PROJECT / "conf" / "local.yaml", environ={}) == Settings()


def test_local_conf_uses_the_embedded_broker_and_readable_logs() -> None:
    settings = load_settings(PROJECT / "conf" / "local.yaml", environ={})
    assert settings.kafka.bootstrap_servers == EMBEDDED
    assert settings.log.format == "console"


def test_production_conf_is_secured_and_logs_json(production: Settings) -> None:
    assert production.environment == "production"
    assert production.log.format == "json"
    assert production.kafka.bootstrap_servers != EMBEDDED
    assert production.kafka.options["security.protocol"] == "SASL_SSL"
    assert production.kafka.options["sasl.password"] == "hunter2"  # of the environment above
    assert "://" in production.lake.root
    assert "://" in production.lake.checkpoints


def test_production_conf_holds_no_secret() -> None:
    with pytest.raises(SettingsError, match="KAFKA_USERNAME, which is not set"):
        load_settings(PROJECT / "conf" / "production.yaml", environ={"KAFKA_PASSWORD": "x"})
