from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lakehouse.local.access_log import access_log_rows, count_lines, load_pseudonym_key, pseudonym
from lakehouse.local.event_plan import Limits
from lakehouse.proof.event_rows import EVENT_COLUMNS, Rows
from pipelines.lake.errors import UsageError
from pipelines.lake.resources import PROJECT

REAL_LOG = PROJECT.parent / "shared" / "data" / "access.log.gz"
KEY = b"secret"
NOW_MS = 1_800_000_000_000
AGENT = '"https://example.org/?q=1" "Mozilla/5.0 (X11; \\"odd\\" quotes)"'
LINE = f'203.0.113.9 - - [17/May/2015:10:05:03 +0200] "GET /a/b.png?token=s3cret HTTP/1.1" 200 203023 {AGENT}'
SAMPLE = [
    LINE,
    f'2001:db8::7 - ann [17/May/2015:10:05:04 +0000] "POST /form HTTP/2" 302 - {AGENT}',
    f'203.0.113.9 - - [17/May/2015:10:05:05 +0000] "BREW /pot HTTP/1.1" 418 12 {AGENT}',
    f'203.0.113.9 - - [17/May/2015:10:05:06 +0000] "GET /x HTTP/1.1" 999 12 {AGENT}',
    f'203.0.113.9 - - [17/May/2015:10:05:07 +0000] "-" 408 - {AGENT}',
    f'203.0.113.9 - - [31/Feb/2015:10:05:07 +0000] "GET / HTTP/1.1" 200 1 {AGENT}',
    'host.example.com - - [17/May/2015:10:05:08 +0000] "GET / HTTP/1.1" 200 5 "-" "cut agent',
    "",
    "client 203.0.113.9:443 said 2001:db8::7 at 10:05:08 with 32.0.1700.77",
    '{"json": "but no event"}',
    LINE,
]
UNPARSED = [4, 5, 6, 7, 8, 9]


def read(path: Path, **options: Any) -> Rows:
    whole = Rows()
    for part in access_log_rows(path, options.pop("key", KEY), Limits(), now_ms=NOW_MS, **options):
        for column in fields(Rows):
            getattr(whole, column.name).extend(getattr(part, column.name))
    return whole


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text("\n".join(SAMPLE) + "\n", encoding="utf-8")
    return path


def test_a_line_becomes_an_event_with_its_own_time_and_without_its_query(sample: Path) -> None:
    event = read(sample).event(0)
    at = datetime(2015, 5, 17, 8, 5, 3, tzinfo=UTC)
    assert event == {
        **event,
        "event_ms": int(at.timestamp() * 1000),
        "customer_id": f"client-{pseudonym('203.0.113.9', KEY)}",
        "endpoint": "/a/b.png",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": None,
        "request_bytes": 0,
        "response_bytes": 203023,
        "region": None,
    }


def test_every_line_is_a_record_and_the_oracle_knows_its_fate(sample: Path, judge: Any) -> None:
    rows = read(sample)
    assert len(rows) == len(SAMPLE) == count_lines(sample)
    assert [at for at, kind in enumerate(rows.kind) if kind == "access_log_unparsed"] == UNPARSED
    for at, value in enumerate(rows.value):
        broken, found = judge(value)
        assert broken == ({rows.rule[at]} if rows.rule[at] else set())
        assert rows.expected[at] == ("dead_letter" if broken else "event")
        if not broken:
            assert {name: found.get(name) for name in EVENT_COLUMNS if name != "event_ms"} == {
                name: value for name, value in rows.event(at).items() if name != "event_ms"
            }
    assert [rows.rule[at] for at in (2, 3, 7, 8, 9)] == ["SLV-008", "SLV-008", "SLV-003", "SLV-004", "SLV-005"]


def test_line_outside_of_what_the_lake_holds_is_expected_as_a_dead_letter(tmp_path: Path, judge: Any) -> None:
    path = tmp_path / "odd.log"
    odd = [
        LINE.replace(" 203023 ", f" {2**35} "),
        LINE.replace("/2015:", "/2200:"),
        LINE.replace("/a/b.png?token=s3cret", "\u2003"),
    ]
    path.write_text("\n".join([LINE, *odd]), encoding="utf-8")
    rows = read(path)

    assert rows.rule == [None, *["SLV-008"] * len(odd)]
    assert [judge(value)[0] for value in rows.value] == [set(), *[{"SLV-008"}] * len(odd)]


def test_a_dash_for_bytes_is_zero(sample: Path) -> None:
    assert read(sample).response_bytes[1] == 0


def test_lines_are_never_late_and_the_same_request_twice_is_two_events(sample: Path) -> None:
    rows = read(sample)
    assert all(0 <= kafka - event < 2000 for kafka, event in zip(rows.kafka_ms, rows.event_ms, strict=True) if event)
    assert rows.event_id[0] != rows.event_id[10]


def test_a_repeated_run_gives_the_same_records(sample: Path, tmp_path: Path) -> None:
    packed = tmp_path / "access.log.gz"
    packed.write_bytes(gzip.compress(sample.read_bytes()))
    assert read(sample) == read(sample) == read(packed)


def test_event_ids_do_not_depend_on_the_key_nor_on_the_address(sample: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    other.write_text(sample.read_text(encoding="utf-8").replace("203.0.113.9 -", "198.51.100.1 -"), encoding="utf-8")
    assert read(other, key=b"another").event_id == read(sample).event_id
    assert set(read(sample, key=b"another").customer_id) & set(read(sample).customer_id) == {None}


def test_no_address_leaves_in_the_clear(sample: Path) -> None:
    rows = read(sample)
    for text in [*(value or b"" for value in rows.value), *(key or b"" for key in rows.key)]:
        assert not re.search(rb"203\.0\.113|2001:db8|host\.example|s3cret", text)
    one, other = pseudonym("203.0.113.9", KEY), pseudonym("2001:db8::7", KEY)
    assert rows.value[8] == f"client client-{one}:443 said client-{other} at 10:05:08 with 32.0.1700.77".encode()


def test_bytes_that_are_no_utf8_are_kept(tmp_path: Path, judge: Any) -> None:
    path = tmp_path / "bad.log"
    path.write_bytes(LINE.encode().replace(b"b.png", b"\xff\xfe") + b"\r\nrest")
    rows = read(path)
    assert b"\xff\xfe" in (rows.value[0] or b"")
    assert rows.rule == ["SLV-002", "SLV-004"]
    assert rows.kafka_ms == [NOW_MS, NOW_MS]


def test_unparsed_lines_take_the_time_of_the_line_before_or_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "head.log"
    path.write_text(f"# a header\n{LINE}\nrest\n", encoding="utf-8")
    rows = read(path)
    assert rows.kafka_ms[0] == rows.kafka_ms[2] == rows.event_ms[1]


def test_count_takes_the_first_lines(sample: Path) -> None:
    assert len(read(sample, count=3)) == 3


def test_a_file_that_cannot_be_read_is_said_in_a_sentence(tmp_path: Path, sample: Path) -> None:
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(os.urandom(5000))[:-2000])
    for path in (tmp_path / "none", tmp_path, broken):
        with pytest.raises(UsageError, match="cannot be read to its end"):
            read(path)


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = load_pseudonym_key(tmp_path / "state")
    assert first == load_pseudonym_key(tmp_path / "state")
    assert len(first) == 32
    assert (tmp_path / "state" / "pseudonym.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(not REAL_LOG.exists(), reason=f"the public sample log is not at {REAL_LOG.name} beside the checkout")
def test_a_real_log_is_read_whole(judge: Any) -> None:
    rows = read(REAL_LOG)
    assert len(rows) == 10_000
    assert rows.kind.count("access_log_unparsed") == 1
    assert len(set(rows.event_id) - {None}) == 9_999
    with gzip.open(REAL_LOG, "rt", encoding="utf-8") as file:
        clients = {line.split(" ", 1)[0] for line in file}
    assert len(set(rows.customer_id) - {None}) == len(clients)
    assert all(judge(value)[0] == ({rule} if rule else set()) for value, rule in zip(rows.value, rows.rule, strict=True))
    assert json.loads(rows.value[0] or b"")["event_timestamp"] == "2015-05-17T10:05:03.000Z"
