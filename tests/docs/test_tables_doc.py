"""docs/tables.md says what the tables' definitions say."""

from __future__ import annotations

from pipelines.archive import records
from pipelines.lake.ledger.schema import SCHEMA
from pipelines.lake.tables import ALL_TABLES
from pipelines.silver import breaker_store
from scripts.docs_tables import LEDGER_COLUMNS, PAGE, tables_page

TYPES = {"string": "string", "int64": "bigint", "double": "double", "timestamp[us, tz=UTC]": "timestamp"}
TYPES |= {"int32": "int", "date32[day]": "date"}


def test_page_is_what_the_definitions_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == tables_page(), "run `python -m scripts.docs_tables`"


def test_page_names_every_table() -> None:
    assert all(f"## {name}\n" in tables_page() for name in ALL_TABLES)


def test_ledger_is_documented_as_it_is_written() -> None:
    assert {name: kind for name, (kind, _) in LEDGER_COLUMNS.items()} == {field.name: TYPES[str(field.type)] for field in SCHEMA}


def test_breaker_is_documented_as_it_is_written() -> None:
    documented = {name: kind for name, (kind, _) in breaker_store.COLUMN_DOCS.items()}
    assert documented == {field.name: TYPES[str(field.type)] for field in breaker_store.SCHEMA}


def test_archive_records_are_documented_as_they_are_written() -> None:
    documented = {name: kind for name, (kind, _) in records.COLUMN_DOCS.items()}
    assert documented == {field.name: TYPES[str(field.type)] for field in records.SCHEMA}
