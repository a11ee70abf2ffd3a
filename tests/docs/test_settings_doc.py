"""docs/settings.md says what the settings schema says."""

from __future__ import annotations

from pipelines.lake.settings import Settings
from scripts.docs_settings import PAGE, settings_page


def test_page_is_what_the_schema_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run `python -m scripts.docs_settings`"


def test_page_names_every_key() -> None:
    page = settings_page()
    for name, value in Settings().model_dump().items():
        keys = [f"{name}.{key}" for key in value] if name not in ("spark",) and isinstance(value, dict) else [name]
        assert all(f"| `{key}` |" in page for key in keys), keys
