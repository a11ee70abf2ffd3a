"""Reads the settings from their sources: the YAML file, then the environment, then the flags; the last one wins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipelines.lake.errors import SettingsError
from pipelines.lake.settings import KafkaSettings, Settings

ENV_PREFIX = "LAKEHOUSE__"
"""`LAKEHOUSE__KAFKA__TOPIC=x` overrides `kafka.topic`."""


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
