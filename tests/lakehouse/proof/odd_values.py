"""Generates record values for the comparison of two readers: valid events, and every edge of docs/grammar.md, by seed."""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

Random = random.Random
Fields = list[tuple[bytes, bytes]]
"""Names with their quotes, and values, both as JSON text."""

_EDGES = [0, 1, 99, 100, 599, 600, 2**31, 2**32, 2**35, 2**53, 2**62, 2**63, 2**64, 10**18, 10**19, 10**22]
_WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2005\u200a\u2028\u2029\u202f\u205f\u3000"
_NEARLY_WHITE = "\x1c\x1d\x1e\x1f\x00\x7f\u180e\u200b\u200d\u2060\ufeff"
_LETTERS = 'aZ0/-_. {}[]",:\\' + "éßж€検\uffff\u0301\ufdd0" + "😀\U0010ffff"
_BAD_NUMBERS = (
    b"00 01 -01 +1 1. .5 -.5 1.e5 1e 1e+ 1E- - -- 0x1f 1_000 1,5 NaN -NaN Infinity -Infinity INF nan 1f 1d 1L 1e5.0 \xd9\xa1"
).split()
_DOUBLES = [
    *b"1.7976931348623157e308 1.7976931348623158e308 1.7976931348623159e308 17976931348623158079e289 4.9e-324 1e400 -1e400 "
    b"2.4703282292062327e-324 2.4703282292062328e-324 2.2250738585072011e-308 -1e-400 -0 -0.0 0e5 -0e-5 9007199254740993 "
    b"9007199254740992.9999 -9007199254740993".split(),
    b"0." + b"0" * 400 + b"1e400",
    b"1" + b"0" * 400 + b"e-400",
    *(b"9" * digits for digits in (308, 309, 400)),
    b"0e" + b"9" * 30,
    b"1e-" + b"9" * 30,
]
_BAD_ESCAPES = (
    b"\\x41",
    b"\\",
    b"\\u",
    b"\\u12",
    b"\\u12g4",
    b"\\u 123",
    b"\\u+123",
    b"\\'",
    b"\\0",
    b"\\U0001",
    b"\\u\xef\xbc\x91234",
)
_BAD_BYTES = (
    b"\xff",
    b"\xc3",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\x80",
)
_SPACES = (b"", b"", b" ", b"\n", b"\r\n\t ", b"\t")
_NO_SPACES = (b"\x0b", b"\x0c", b"\x00", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"\x1f", b"/**/", b"//\n", b"#\n")
_TINY = (b"", b" ", b"\n\t", b"{}", b"[]", b"null", b"true", b"1", b"-", b'"', b"{", b"\x00", b"\xef\xbb\xbf", b"{ }", b"{,}")
_FRAMES = (
    b"\x00\x00\x00\x00\x07",
    b"\xef\xbb\xbf",
    b"\x1f\x8b\x08\x00",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"\xff\xfe",
    b"\x00",
)


def integer(rng: Random) -> bytes:
    """A whole number near an edge, in any of its forms, or nearly one."""
    number = (
        rng.choice(_EDGES) + rng.randint(-2, 2) if rng.random() < 0.7 else rng.getrandbits(rng.choice((7, 9, 31, 35, 63, 66)))
    )
    digits, sign = str(abs(number)), "-" if (number < 0) != (rng.random() < 0.2) else ""
    form = rng.randrange(8)
    if form == 0:
        digits += "." + "0" * rng.choice((1, 2, 20, 400))
    elif form == 1:
        shift = rng.randint(0, len(digits) + 3)
        digits = f"{digits.zfill(shift + 1)[: -shift or None]}.{digits.zfill(shift + 1)[-shift:] if shift else '0'}e{shift}"
        digits = digits if digits[0] != "0" or digits[1] == "." else str(abs(number))
    elif form == 2:
        zeros = rng.randint(1, 30)
        digits += "0" * zeros + rng.choice("eE") + f"-{zeros + rng.choice((0, 0, 0, 1, -1))}"
    elif form == 3:
        stripped = digits.rstrip("0") or "0"
        digits = f"{stripped}{rng.choice('eE')}{rng.choice(('', '+'))}{'0' * rng.randrange(3)}{len(digits) - len(stripped)}"
    elif form == 4 and rng.random() < 0.5:
        digits += rng.choice((".5", ".0000001", "." + "0" * 300 + "1", "e-1", "e1", "e308", "e-400"))
    elif form == 5 and rng.random() < 0.5:
        digits = rng.choice(("0", "1", "-0.000"[1:], digits)) + rng.choice("eE") + rng.choice(("", "-", "+")) + _far(rng)
    return (sign + digits).encode()


def _far(rng: Random) -> str:
    return rng.choice(
        ("19", "400", "2147483648", "999999999", "9223372036854775807", "9223372036854775808", "9" * 30, "0" * 50 + "1")
    )


def double(rng: Random) -> bytes:
    """A number that is read as a double, often where rounding decides."""
    form = rng.randrange(9)
    if form == 0:
        text = repr(abs(struct.unpack("<d", rng.randbytes(8))[0])).replace("inf", "1e999").replace("nan", "1e-400")
    elif form == 1:
        digits = "".join(rng.choice("0123456789") for _ in range(rng.choice((16, 17, 18, 25, 60, 800, 1200))))
        text = f"{rng.randint(0, 9)}.{digits}e{rng.randint(-330, 310)}"
    elif form == 2:
        # Halfway between two doubles, or a digit beside it.
        text = str((rng.getrandbits(53) | 1 << 52) * 2 + 1) + rng.choice(("", ".0", ".00000000000000000000001", "e0"))
    elif form == 3:
        return rng.choice(_DOUBLES)
    elif form < 6:
        whole, fraction = (rng.randint(0, 10 ** rng.randint(1, 16)) for _ in range(2))
        text = f"{rng.choice(('', '', '-'))}{whole}.{fraction}"
    elif form == 6:
        text = f"{rng.uniform(0, 5000):.{rng.randint(0, 20)}{rng.choice('efg')}}"
    else:
        return integer(rng)
    return text.encode()


def written(rng: Random, text: str) -> bytes:
    """A JSON string, each character as it is or as an escape."""
    escapes, parts = rng.choice((0.0, 0.0, 0.1, 1.0)), [b'"']
    for character in text:
        if character < " " or character in '"\\' or "\ud800" <= character <= "\udfff" or rng.random() < escapes:
            parts.append(_escaped(rng, character))
        else:
            parts.append(character.encode())
    return b"".join(parts) + b'"'


def _escaped(rng: Random, character: str) -> bytes:
    short = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", '"': '"', "\\": "\\", "/": "/"}.get(character)
    if short and rng.random() < 0.5:
        return f"\\{short}".encode()
    units = character.encode("utf-16-be", "surrogatepass")
    texts = [f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)]
    return "".join(text if rng.random() < 0.5 else "\\u" + text[2:].upper() for text in texts).encode()


def string(rng: Random, field: Mapping[str, Any]) -> bytes:
    """A text at the bounds of its field, blank, with odd characters, or one of its list."""
    form, longest = rng.randrange(12), field.get("max_length") or 9
    if field.get("enum") and form < 9:
        text = rng.choice([*field["enum"], field["enum"][0] + " ", field["enum"][-1].lower()])
    elif form < 4:
        text = "".join(rng.choice(_LETTERS) for _ in range(rng.randint(1, 8)))
    elif form == 4:
        text = rng.choice("aé€😀 ") * rng.choice([longest, longest + 1, field.get("min_length") or 0, 1, 2])
    elif form == 5:
        text = "".join(rng.choice(_WHITE) for _ in range(rng.randint(0, 3)))
        text += rng.choice(("", "", "x", rng.choice(_NEARLY_WHITE)))
    elif form == 6:
        halves = ("\ud83d", "\ude00", "\ude00\ud83d", "\ud83d\ud83d", "\ud83d\\ude00", "\ud83dx\ude00", "\ud83d\ude00")
        text = rng.choice(("", "a", "😀")) + rng.choice(halves) + rng.choice(("", "a", "😀"))
    elif form == 7 and rng.random() < 0.3:
        odd = (*_BAD_ESCAPES, b"\x00", b"\x1f", b"\n", b"\x7f", b"\\u0000", b"\\ud83d\xf0\x9f\x98\x80")
        return b'"a' + rng.choice(odd) + b'b"'
    else:
        text = f"id-{rng.getrandbits(40):x}"
    return written(rng, text)


def instant(rng: Random) -> bytes:
    """An instant in any of its spellings, at the ends of what is held, or nearly one."""
    if rng.random() < 0.25:
        parts = [
            rng.choice(("1969", "1970", "2026", "2199", "2200", "0001", "0000", "9999", "2000", "1900", "02026", "226")),
            "-"
            + rng.choice(("01", "02", "12", "13", "00", "1"))
            + "-"
            + rng.choice(("01", "28", "29", "30", "31", "32", "00", "9")),
            rng.choice(("T", "T", "t", " ", "  ", "", "_", "T ")),
            rng.choice(("00", "23", "24", "10", "5", "-1"))
            + rng.choice((":", ":", "", "."))
            + rng.choice(("00", "59", "60", "7")),
            rng.choice(("", "", ":00", ":59", ":60", ":5", ":")),
            rng.choice(("", "", ".5", ".", ",5", ".123456789", ".1234567890", ".000000999", ".\u0661")),
            rng.choice(
                (
                    "Z",
                    "z",
                    "",
                    "+00",
                    "+0000",
                    "-00:00",
                    "+18:59",
                    "+19:00",
                    "-18:00",
                    "+1:00",
                    "+01:60",
                    "+01:",
                    " Z",
                    "+010",
                    "UTC",
                    "Z ",
                    "\u221201:00",
                )
            ),
        ]
        return written(rng, "".join(parts))
    base = rng.choice((datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC), datetime(2026, 1, 28, 10, tzinfo=UTC)))
    span = rng.choice((2, 86_400_000_000, 3_000_000_000_000_000))
    at = base + timedelta(microseconds=rng.randint(-span, span))
    offset = rng.choice((0, 0, 0, 330, -210, 1080, -1080, rng.randint(-1139, 1139)))
    local = at + timedelta(minutes=offset)
    text = local.strftime("%m-%d") + rng.choice("TTTt ") + local.strftime("%H:%M")
    text = f"{local.year:04}-{text}"
    if rng.random() < 0.8:
        text += f":{local.second:02}"
        if rng.random() < 0.7:
            text += f".{local.microsecond:06}"[: rng.randint(2, 7)] + "9" * rng.choice((0, 0, 1, 3))
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    if offset == 0 and rng.random() < 0.7:
        text += rng.choice("ZZz")
    elif minutes % 60 == 0 and rng.random() < 0.3:
        text += f"{sign}{minutes // 60:02}"
    else:
        text += f"{sign}{minutes // 60:02}{rng.choice((':', ''))}{minutes % 60:02}"
    return written(rng, text) if rng.random() < 0.1 else json.dumps(text).encode()


def anything(rng: Random, depth: int = 0) -> bytes:
    """Any JSON value, sometimes not quite JSON."""
    form = rng.randrange(10 if depth < 3 else 7)
    if form == 0:
        return rng.choice((b"null", b"true", b"false"))
    if form < 3:
        return rng.choice((integer, double))(rng)
    if form < 6:
        return string(rng, {})
    if form == 6:
        return rng.choice((*_BAD_NUMBERS, b"nul", b"True", b"nullx", b"'a'", b"", b"undefined")) if rng.random() < 0.15 else b"0"
    inner = [anything(rng, depth + 1) for _ in range(rng.randrange(3))]
    if form == 7:
        return b"[" + _spaced(rng, b",").join(inner) + (b",]" if rng.random() < 0.03 else b"]")
    names = [rng.choice((b'"a"', b'"\\u0061"', b'"b"', b'""', b'"\\ud83d"', string(rng, {}))) for _ in inner]
    return (
        b"{" + _spaced(rng, b",").join(name + _spaced(rng, b":") + value for name, value in zip(names, inner, strict=True)) + b"}"
    )


def _spaced(rng: Random, mark: bytes) -> bytes:
    return mark if rng.random() < 0.9 else rng.choice(_SPACES) + mark + rng.choice(_SPACES)


def _huge(rng: Random) -> bytes:
    """What the limits of a general reader refuse: long numbers, names and strings, deep nesting."""
    length = rng.choice((999, 1000, 1001, 4300, 4301, 20_000))
    depth = rng.choice((61, 62, 63, 64, 65, 200))
    return rng.choice(
        (
            b"7" * length,
            b"-0." + b"7" * length + b"e5",
            b"1e" + b"9" * length,
            b"1e-" + b"0" * length + b"1",
            b'"' + b"x" * rng.choice((50_001, length)) + b'"',
            b'{"' + b"k" * rng.choice((50_001, length)) + b'":1}',
            b"[" * depth + b"]" * depth,
            b'{"a":' * depth + b"1" + b"}" * depth,
            b"[" + b",".join([b"{}"] * 300) + b"]",
        )
    )


_BY_TYPE: dict[str, Callable[[Random, Mapping[str, Any]], bytes]] = {
    "string": string,
    "int": lambda rng, _: integer(rng),
    "long": lambda rng, _: integer(rng),
    "double": lambda rng, _: double(rng),
    "boolean": lambda rng, _: rng.choice((b"true", b"false")),
    "timestamp": lambda rng, _: instant(rng),
}


def _plain(rng: Random, field: Mapping[str, Any]) -> bytes:
    """A value that is surely within the field's bounds."""
    low = field.get("minimum") or 0
    plain = {
        "int": b"%d" % (-(-low // 1) + rng.randrange(3)),
        "long": b"%d" % (-(-low // 1) + rng.randrange(1000)),
        "double": b"%d.5" % (low + rng.randrange(500)),
        "boolean": b"true",
        "timestamp": b'"2026-01-%02dT10:00:00.%dZ"' % (rng.randint(1, 28), rng.randrange(1000)),
        "string": json.dumps(
            rng.choice(field.get("enum") or [f"plain-{rng.getrandbits(30)}"])[: field.get("max_length")]
        ).encode(),
    }
    return plain[field["type"]]


def event(rng: Random, versions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Fields:
    """An event of one version in its schema's order; few of its values are at an edge, and few are of another kind."""
    version = rng.choice(list(versions))
    most = rng.choice((0.0, 0.1, 0.1, 0.3))
    fields: Fields = []
    for field in versions[version]:
        if field["name"] == "schema_version":
            value = json.dumps(version).encode()
        elif rng.random() < most:
            odd = rng.random()
            value = _BY_TYPE[field["type"]](rng, field) if odd < 0.85 else b"null" if odd < 0.9 else anything(rng)
        else:
            value = _plain(rng, field)
        if field["required"] or rng.random() < 0.8 or field["name"] == "schema_version":
            fields.append((json.dumps(field["name"]).encode(), value))
    return fields


def _respelled(rng: Random, name: bytes) -> bytes:
    try:
        return written(rng, json.loads(name))
    except (ValueError, TypeError):
        return name


def _restructured(rng: Random, fields: Fields, versions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Fields:
    """The event with one change to its fields: others, twice, in another order, without one, unknown ones."""
    form = rng.randrange(10)
    fields = list(fields)
    at = rng.randrange(len(fields))
    name, value = fields[at]
    if form == 0:
        rng.shuffle(fields)
    elif form == 1:
        del fields[at]
    elif form == 2:
        fields.append((_respelled(rng, name), value))
    elif form == 3:
        fields[at] = (_respelled(rng, name), value)
    elif form == 4:
        every = [field for version in versions.values() for field in version]
        field = rng.choice(every)
        fields.insert(at, (json.dumps(field["name"]).encode(), _BY_TYPE[field["type"]](rng, field)))
    elif form == 5:
        fields.insert(at, (string(rng, {}), anything(rng)))
        fields.append((rng.choice((string(rng, {}), fields[at][0], b'"\\ud83d"', b'"?"')), anything(rng)))
    elif form == 6 and rng.random() < 0.3:
        fields.insert(at, (b'"huge"', _huge(rng)))
    elif form == 7:
        fields[at] = (name, rng.choice((anything(rng), b"null", rng.choice(_BAD_NUMBERS))))
    elif form == 8:
        fields.append(
            (rng.choice((b'"Event_id"', b'"event_id "', b'"\xef\xbb\xbfevent_id"', b'"event\\u0000id"', b'""')), anything(rng))
        )
    elif form == 9 and rng.random() < 0.2:
        fields.append((rng.choice((b"event_id", b"'event_id'", b"1", b"null", b"")), value))
    return fields


def _bytewise(rng: Random, text: bytes) -> bytes:
    """The text with one small change to its bytes."""
    at = rng.randrange(len(text))
    end = rng.randint(at, min(len(text), at + 20))
    inside = rng.choice((*_NO_SPACES, *_SPACES, *_BAD_BYTES, b",", b'"', b"{", b"}", b"0", b"-"))
    after = rng.choice((*_SPACES, *_NO_SPACES, b"x", b"}", b",", text, b"\n" + text, b"{}", b"null", b"1", b'""', *_BAD_BYTES))
    return rng.choice(
        (
            text[:at],
            text[:at] + text[at + 1 :],
            text[:at] + bytes((rng.randrange(256),)) + text[at + 1 :],
            text[:at] + bytes((text[at] ^ 1 << rng.randrange(8),)) + text[at + 1 :],
            text[:at] + inside + text[at:],
            text[:end] + text[at:],
            text[: rng.randrange(len(text))] + text[at:],
            text + after,
        )
    )


def _wrapped(rng: Random, text: bytes) -> bytes:
    """The text in another encoding, a frame or another JSON value."""
    letters = text.decode("utf-8", "replace")
    encoding = rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"))
    return rng.choice(
        (
            letters.encode(encoding),
            rng.choice(_FRAMES) + text,
            gzip.compress(text, 1),
            b"[" + text + b"]",
            json.dumps(letters).encode(),
            rng.choice((*_SPACES, *_NO_SPACES)) + text,
            rng.choice(_TINY),
            letters.encode("latin-1", "ignore"),
        )
    )


def values(seed: int, count: int, versions: Mapping[str, Sequence[Mapping[str, Any]]], max_bytes: int) -> Iterator[bytes | None]:
    """Yield `count` record values; `versions` are the fields of each schema version as its file has them."""
    rng = random.Random(seed)
    for _ in range(count):
        fields = event(rng, versions)
        for _ in range(rng.choice((0, 0, 1, 1, 2))):
            fields = _restructured(rng, fields, versions) if fields else fields
        text = b"{" + _spaced(rng, b",").join(name + _spaced(rng, b":") + value for name, value in fields) + b"}"
        form = rng.random()
        if form < 0.12:
            text = _bytewise(rng, text)
        elif form < 0.16:
            text = _wrapped(rng, text)
        elif form < 0.165:
            text += b" " * (max_bytes + rng.randint(-1, 1) - len(text))
        yield None if form > 0.999 else text
