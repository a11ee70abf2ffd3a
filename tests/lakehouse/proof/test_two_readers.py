"""The pipeline's reader (`events.parse`) and the checker's judge every record value alike, and read the same values from it."""

from __future__ import annotations

import json
import shutil
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from lakehouse.proof.strict_reader import StrictReader, field_types
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.resources import PROJECT
from pipelines.silver.rules import BOUNDS, ENCODINGS, EXPECTED, MALFORMED
from tests.faults.evidence import Evidence
from tests.lakehouse.proof.odd_values import values

SCHEMA = PROJECT / "conf/schemas/api_usage_events/1.0.json"
MAX_BYTES = 60_000
NO_TIME = -(2**63)
_CHUNK = 20_000


def _field(name: str, kind: str, *, required: bool = False, **bounds: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "required": required, "doc": "For the test.", **bounds}


EVERY_TYPE = [
    _field("event_id", "string", required=True, min_length=1, max_length=128),
    _field("event_timestamp", "timestamp", required=True),
    _field("seen_at", "timestamp"),
    _field("small", "int"),
    _field("between", "int", minimum=-2.5, maximum=1e3),
    _field("large", "long"),
    _field("beyond_doubles", "long", minimum=-(2**53) - 1, maximum=2**53 + 1),
    _field("to_the_end", "long", minimum=9.2e18, maximum=2**63),
    _field("ratio", "double"),
    _field("bounded", "double", minimum=0.1, maximum=2**53 + 1),
    _field("cached", "boolean"),
    _field("free", "string"),
    _field("pair", "string", min_length=2, max_length=3),
    _field("maybe", "string", min_length=0, max_length=None),
    _field("größe", "string", enum=["S", "größer", "😀"]),
    _field("none", "string", enum=[]),
    _field("response_bytes", "long", maximum=2**40),
    _field("schema_version", "string", required=True),
]


@dataclass(frozen=True)
class Readers:
    """Both readers of one folder of schemas."""

    spark: SparkSession
    checker: StrictReader
    types: Mapping[str, str]
    versions: Mapping[str, Sequence[Mapping[str, Any]]]

    def by_pipeline(self, given: Sequence[bytes | None]) -> list[dict[str, Any]]:
        """For each value what `events.parse` and `events.time` say; event fields by name, instants in microseconds."""
        table = pa.table({"i": range(len(given)), "value": pa.array(given, pa.binary())})
        fields = [
            f"unix_micros(p.event.`{name}`) AS `{name}`" if kind == "timestamp" else f"p.event.`{name}`"
            for name, kind in self.types.items()
        ]
        parsed = self.spark.createDataFrame(table).selectExpr(
            "i", "two_readers.time(value) AS t", "two_readers.parse(value) AS p"
        )
        said = ["problem", "detail", "missing", "wrong_type", "expected", "out_of_range", "bounds"]
        told = parsed.selectExpr("i", "t", *(f"p.{name} AS _{name}" for name in said), *fields).toArrow().sort_by("i")
        return told.to_pylist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def readers(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Readers:
    folder = tmp_path_factory.mktemp("schemas")
    shutil.copy(SCHEMA, folder)
    other = {"subject": "api_usage_events", "version": "2.0", "description": "Every type.", "fields": EVERY_TYPE}
    (folder / "2.0.json").write_text(json.dumps(other), encoding="utf-8")
    schemas = read_schemas(folder)
    catalog = "spark.sql.catalog.two_readers"
    spark.conf.set(catalog, "io.usagelakehouse.EventFunctions")
    spark.conf.set(f"{catalog}.fields", schemas.ddl())
    spark.conf.set(f"{catalog}.schemas", schemas.rules())
    spark.conf.set(f"{catalog}.max-bytes", str(MAX_BYTES))
    types = field_types(folder)
    versions = {"1.0": json.loads(SCHEMA.read_text(encoding="utf-8"))["fields"], "2.0": EVERY_TYPE}
    return Readers(spark, StrictReader.from_files(folder, tuple(types), MAX_BYTES), types, versions)


def _bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def _is_event(row: Mapping[str, Any]) -> bool:
    return all(row[name] is None for name in ("_problem", "_missing", "_wrong_type", "_out_of_range"))


def _says_why(row: Mapping[str, Any]) -> bool:
    """Whether the codes of a dead letter are those that have a sentence."""
    nothing: dict[str | None, str] = {None: ""}
    by_problem: dict[str | None, Any] = {"malformed_json": MALFORMED, "invalid_utf8": nothing | ENCODINGS}
    known: dict[str | None, str] = by_problem.get(row["_problem"], nothing)
    code = row["_detail"] and row["_detail"].partition(":")[0]
    pairs = ((row["_wrong_type"], row["_expected"], EXPECTED), (row["_out_of_range"], row["_bounds"], BOUNDS))
    return code in known and all(
        (names is None) == (codes is None)
        and (codes is None or (len(codes.split(",")) == len(names.split(",")) and set(codes.split(",")) <= set(phrases)))
        for names, codes, phrases in pairs
    )


def compare(readers: Readers, given: Sequence[bytes | None]) -> Counter[str]:
    """Compare both readers on values; returns how many of each kind there were."""
    seen: Counter[str] = Counter()
    differ = []
    for value, row in zip(given, readers.by_pipeline(given), strict=True):
        if value is None:
            assert _is_event(row), row
            assert all(row[name] is None for name in readers.types)
            seen["tombstone"] += 1
            continue
        event = readers.checker.read(value)
        read = tuple(row[name] for name in readers.types) if _is_event(row) else None
        if (event is None) != (read is None) or (event and list(map(_bits, event)) != list(map(_bits, read or ()))):
            differ.append((value[:600], event, {name: found for name, found in row.items() if found is not None}))
        if read is None:
            assert _says_why(row), (value[:600], row)
            seen[row["_problem"] or next(n for n in ("_missing", "_wrong_type", "_out_of_range") if row[n])] += 1
            seen[f"detail {(row['_detail'] or '').partition(':')[0]}"] += row["_detail"] is not None
            for code in (row["_bounds"] or "").split(","):
                seen[f"bound {code}"] += bool(code)
        else:
            # The watermark's scan finds the time of an event, or none where the name or the instant is written with escapes.
            assert row["t"] == row["event_timestamp"] or (row["t"] == NO_TIME and b"\\" in value), (value, row)
            seen["time"] += row["t"] != NO_TIME
            seen["event"] += 1
    assert not differ, f"{len(differ)} of {len(given)} differ, such as {differ[:5]}"
    return seen


def test_both_readers_judge_a_generated_corpus_alike(readers: Readers) -> None:
    seen = compare(readers, list(values(1, 6000, readers.versions, MAX_BYTES)))

    assert seen["event"] > 1500, seen
    assert seen["time"] > 1500, seen
    assert all(seen[kind] > 0 for kind in ("tombstone", "oversize", "invalid_utf8", "empty_value", "schema_not_found")), seen


@pytest.mark.faults
@pytest.mark.case("V3")
@pytest.mark.parametrize("seed", [101, 102, 103])
def test_both_readers_judge_a_long_corpus_alike(readers: Readers, evidence: Evidence, seed: int) -> None:
    seen: Counter[str] = Counter()
    corpus = values(seed, 200_000, readers.versions, MAX_BYTES)
    for _ in range(200_000 // _CHUNK):
        seen += compare(readers, [next(corpus) for _ in range(_CHUNK)])

    print(dict(seen))  # noqa: T201  # `-s` shows what was compared
    details = {name.removeprefix("detail ") for name in seen if name.startswith("detail ")}
    bounds = {name.removeprefix("bound ") for name in seen if name.startswith("bound ")}
    assert set(MALFORMED) - details <= {"snappy"}
    assert set(BOUNDS) == bounds
    evidence.note("held", "I13")
    evidence.fired(f"200,000 generated values, {seen['event']:,} of them events: pipeline and checker judge and read them alike")
