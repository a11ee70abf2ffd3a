"""Writes docs/settings.md from the settings schema: `python -m scripts.docs_settings`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import ENV_PREFIX

PAGE = PROJECT / "docs" / "settings.md"

_INTRO = f"""\
# Settings

Written from `pipelines/lake/settings.py` by `python -m scripts.docs_settings`; a test fails when the two differ.

All jobs and commands read one YAML file (`--config`, default `conf/local.yaml`). Then the environment counts, then the
flags of the command; the last one wins. An unknown key, a wrong type or a value out of bounds ends the process with
one sentence that names the key, and exit code 2.

- In the environment a key is written `{ENV_PREFIX}<SECTION>__<KEY>`, for example `{ENV_PREFIX}KAFKA__TOPIC=usage`.
  The value is read as YAML: write `'"2026"'` where a text looks like a number, and `{{a.b: c}}` for a mapping.
- Secrets stay out of the file: a value of `kafka.options` that is `${{NAME}}` as a whole is read from the environment
  variable `NAME`. `kafka.options` is left out wherever settings are printed.
- Types are strict: `partitions: "6"` is an error, because `"6"` is a text.
- Leave a section out rather than empty: `kafka:` with nothing below it is an error.
"""


def settings_page() -> str:
    """Give the page as Markdown: a table for each section, a row for each key."""
    schema = Settings.model_json_schema()
    top: dict[str, Any] = {}
    sections = []
    for name, found in schema["properties"].items():
        section = _section(schema, found)
        if section is None:
            top[name] = found
        else:
            sections.append(f"## {name}\n\n{section['description']}\n\n{_table(name, section['properties'])}")
    return "\n".join([_INTRO, f"## Top level\n\n{_table('', top)}", *sections])


def _section(schema: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    reference = found.get("$ref")
    section: Mapping[str, Any] | None = schema["$defs"][reference.rsplit("/", 1)[-1]] if reference else None
    return section


def _table(section: str, properties: Mapping[str, Any]) -> str:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, found in properties.items():
        key = f"{section}.{name}" if section else name
        default = json.dumps(found.get("default", {}))
        meaning = str(found["description"]).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(found)} | `{default}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(found: Mapping[str, Any]) -> str:
    if "enum" in found:
        return " or ".join(f"`{value}`" for value in found["enum"])
    if found["type"] == "object":
        return "mapping of texts"
    name = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[found["type"]]
    return ", ".join([name, *_bounds(found)])


def _bounds(found: Mapping[str, Any]) -> Iterator[str]:
    words = {"minimum": "from {}", "exclusiveMinimum": "over {}", "maximum": "to {}"}
    for bound, text in words.items():
        if bound in found:
            yield text.format(f"{found[bound]:g}")
    if found.get("minLength") == 1:
        yield "not empty"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
