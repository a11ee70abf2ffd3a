"""Real HTTP traffic as events: each line of an access log in the combined format becomes one record.

Client addresses are personal data and never leave this module: `customer_id` is a keyed BLAKE2b hash of the address
(the key stays with who runs the producer), `api_key_id` one of the user agent, and addresses in lines that cannot be
parsed are replaced by the same pseudonym. `event_id` depends on the line's number and its text without the address.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import secrets
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

from lakehouse.local.event_plan import Limits
from lakehouse.local.event_text import encode, message
from lakehouse.proof.event_rows import Rows
from lakehouse.proof.strict_values import WHITE_SPACE
from pipelines.lake.errors import UsageError
from pipelines.lake.ranges import END_INSTANT_MS, LARGEST_SUMMED
from pipelines.lake.storage.local_files import is_there

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_SLICE = 1000
_MOST_DELAY_MS = 2000
_MONTHS = {name: at for at, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_LINE = re.compile(
    r"(?P<client>\S+) (?P<rest>\S+ .*?\["
    r"(?P<day>\d{2})/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):(?P<clock>\d{2}:\d{2}:\d{2}) (?P<zone>[+-]\d{4})\] "
    r'"(?P<method>[^\s"]+) (?P<target>[^\s"]+)(?: HTTP/\d(?:\.\d)?)?" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)'
    rf" {_QUOTED} (?P<agent>{_QUOTED}).*)",
    re.ASCII,
)
_ADDRESS = re.compile(rb"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|[0-9A-Fa-f.:]{2,45}(?![\w:]))")
"""What may be an address; `ipaddress` has the last word."""
_LEADING_CLIENT = re.compile(rb"\S+(?= \S+ [^\[]*\[\d\d/)")
"""The client where a line starts like the format: it may be a host name."""


def pseudonym(text: str, key: bytes) -> str:
    """Return 16 hex digits that stand for `text`; without `key` nobody can find out which."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), key=key[:64], digest_size=8).hexdigest()


def load_pseudonym_key(state_dir: Path) -> bytes:
    """Read the secret of this machine's pseudonyms, `<state_dir>/pseudonym.key`; the first call makes it."""
    path = state_dir / "pseudonym.key"
    if not is_there(path):
        state_dir.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32), encoding="ascii")
    return bytes.fromhex(path.read_text(encoding="ascii"))


def access_log_rows(path: Path, key: bytes, limits: Limits, *, count: int | None = None, now_ms: int) -> Iterator[Rows]:
    """Yield a record for each line of `path` (plain or gzip; the first `count`), the same for the same file and key.

    Lines in another format are records too, as they stand, with the Kafka timestamp of the line before; they become
    dead letters. `now_ms` is used only where no line of the file has a time.
    Raises UsageError where the file cannot be read to its end.
    """
    times = (event["event_ms"] for raw in _lines(path) if (event := _parse(0, raw, key)))
    rows, previous_ms = Rows(), next(times, now_ms)
    for number, raw in enumerate(_lines(path), 1):
        if count is not None and number > count:
            break
        previous_ms = _append(rows, number, raw, key=key, limits=limits, previous_ms=previous_ms)
        if len(rows) == _SLICE:
            yield rows
            rows = Rows()
    if len(rows):
        yield rows


def count_lines(path: Path) -> int:
    """Return how many lines the log has; raises UsageError where it cannot be read."""
    return sum(1 for _ in _lines(path))


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            for line in file:
                yield line.rstrip(b"\r\n")
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"The access log {path} cannot be read to its end ({reason}); give a plain or gzip file in the combined log format."
        raise UsageError(msg) from None


def _append(rows: Rows, number: int, raw: bytes, *, key: bytes, limits: Limits, previous_ms: int) -> int:
    """Append line `number` as a record; return its event time, or the one before where it has none."""
    event = _parse(number, raw, key)
    for column in vars(rows).values():
        column.append(None)
    at = len(rows) - 1
    if event is None:
        rows.kind[at], rows.value[at], rows.kafka_ms[at] = "access_log_unparsed", _without_addresses(raw, key), previous_ms
        rows.set_rejected(at, "dead_letter", _unparsed_rule(rows.value[at] or b"", limits))
        return previous_ms
    rows.kind[at], rows.value[at] = "access_log", encode(message(event))
    rows.key[at] = event["customer_id"].encode()
    # Deterministic as all here is: what a real gateway and network would take.
    rows.kafka_ms[at] = event["event_ms"] + int(event["event_id"][-4:], 16) % _MOST_DELAY_MS
    rows.set_event(at, event)
    if _is_out_of_range(event):
        rows.set_rejected(at, "dead_letter", "SLV-008")
    return int(event.get("event_ms", previous_ms))


def _is_out_of_range(event: dict[str, Any]) -> bool:
    return (
        event["method"] not in METHODS
        or not 100 <= event["status_code"] <= 599
        or len(event["endpoint"]) > 2048
        or not event["endpoint"].strip(WHITE_SPACE)
        or event["response_bytes"] > LARGEST_SUMMED
        or event["event_ms"] >= END_INSTANT_MS
    )


def _parse(number: int, raw: bytes, key: bytes) -> dict[str, Any] | None:
    try:
        match = _LINE.fullmatch(raw.decode("utf-8"))
        event_ms = _milliseconds(match) if match else 0
    except ValueError:  # bytes that are no UTF-8, or a day that is none
        return None
    if match is None or event_ms <= 0:
        return None
    identity = hashlib.blake2b(f"{number}:{match['rest']}".encode(), digest_size=16, person=b"access-log-line").digest()
    return {
        "event_id": str(UUID(bytes=identity, version=5)),
        "event_ms": event_ms,
        "customer_id": f"client-{pseudonym(match['client'], key)}",
        "api_key_id": f"agent-{pseudonym(match['agent'], key)}",
        "endpoint": re.split(r"[?#]", match["target"], maxsplit=1)[0] or "/",
        "method": match["method"],
        "status_code": int(match["status"]),
        "response_time_ms": None,
        "request_bytes": 0,
        "response_bytes": 0 if match["bytes"] == "-" else int(match["bytes"]),
        "region": None,
    }


def _milliseconds(match: re.Match[str]) -> int:
    """Return the line's time in milliseconds since the epoch; ValueError where the log's clock shows no time."""
    hour, minute, second = (int(part) for part in match["clock"].split(":"))
    zone = match["zone"]
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    month = _MONTHS.get(match["month"], 0)
    local = timezone(-offset if zone[0] == "-" else offset)
    at = datetime(int(match["year"]), month, int(match["day"]), hour, minute, second, tzinfo=local)
    return int(at.astimezone(UTC).timestamp()) * 1000


def _without_addresses(raw: bytes, key: bytes) -> bytes:
    def hidden(found: re.Match[bytes]) -> bytes:
        return b"client-" + pseudonym(found[0].decode("utf-8", "surrogateescape"), key).encode()

    def hidden_if_address(found: re.Match[bytes]) -> bytes:
        try:
            ip_address(found[0].decode("ascii"))
        except ValueError:
            return found[0]
        return hidden(found)

    start = _LEADING_CLIENT.match(raw)
    head, rest = (hidden(start), raw[start.end() :]) if start else (b"", raw)
    return head + _ADDRESS.sub(hidden_if_address, rest)


def _unparsed_rule(value: bytes, limits: Limits) -> str:
    if len(value) > limits.max_event_bytes:
        return "SLV-001"
    try:
        text = value.decode("utf-8")
    except ValueError:
        return "SLV-002"
    if not text.strip(" \t\r\n"):
        return "SLV-003"
    try:
        return "SLV-005" if isinstance(json.loads(text), dict) else "SLV-004"
    except (ValueError, RecursionError):
        return "SLV-004"
