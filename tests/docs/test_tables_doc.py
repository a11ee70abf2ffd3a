"""docs/tables.md says what the tables' definitions say."""

from __future__ import annotations

from lakehouse.operations.definitions import all_definitions
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import ALL_TABLES
from scripts.docs_tables import PAGE, tables_page


def test_page_is_what_the_definitions_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == tables_page(), "run `python -m scripts.docs_tables`"


def test_page_names_every_table() -> None:
    assert all(f"## {name}\n" in tables_page() for name in ALL_TABLES)


def test_every_table_has_one_definition_that_says_key_and_writer() -> None:
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    defined = all_definitions(settings)

    assert set(defined) == set(ALL_TABLES)
    for table in defined.values():
        assert table.keys, table.name
        assert table.writer, table.name
        assert {*table.keys, *table.stamps} <= set(table.column_names), table.name
