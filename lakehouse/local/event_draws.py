"""The random choices behind generated events, made in blocks of arrays, for speed and to be the same for a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakehouse.local.event_catalog import KEYS_PER_CUSTOMER, REGION_SHARES, STATUS_SHARES, STATUSES, Catalog
from lakehouse.local.event_plan import Limits, Mix

BLOCK = 10_000
_MASK = 2**64 - 1
_MINUTE, _DAY, _YEAR = 60_000, 86_400_000, 31_557_600_000

Ints = NDArray[np.int64]


class Family(IntEnum):
    """The kinds of records that the mix gives shares of."""

    ORDINARY = 0
    LATE = 1
    DUPLICATE = 2
    CONFLICT = 3
    MALFORMED = 4
    TOMBSTONE = 5
    OUT_OF_ORDER = 6
    SKEW = 7
    UNUSUAL = 8


@dataclass(frozen=True)
class Draws:
    """Choices for a run of records; arrays of one length."""

    family: NDArray[np.int8]
    delay_ms: Ints
    """Arrival minus event time; negative for a clock that is ahead."""
    customer: Ints
    api_key: Ints
    endpoint: Ints
    status: Ints
    latency: NDArray[np.float64]
    request_bytes: Ints
    response_bytes: Ints
    region: Ints
    pick: Ints
    """63 random bits for whatever a family still has to choose."""

    def __len__(self) -> int:
        return len(self.family)

    def __getitem__(self, part: slice) -> Draws:
        return Draws(**{column.name: getattr(self, column.name)[part] for column in fields(self)})


def draw_block(seed: int, block: int, catalog: Catalog, mix: Mix, limits: Limits) -> Draws:
    """Return the choices for records `block * BLOCK` and on; the same for the same arguments."""
    rng = np.random.default_rng([seed & _MASK, block])
    family = _families(rng, mix)
    customer = np.searchsorted(catalog.customer_shares, rng.random(BLOCK), side="right")
    endpoint = np.searchsorted(catalog.endpoint_shares, rng.random(BLOCK), side="right")
    status = STATUSES[np.searchsorted(np.cumsum(STATUS_SHARES)[:-1], rng.random(BLOCK), side="right")]
    latency = catalog.latency_medians[endpoint] * np.exp(rng.normal(0.0, 0.7, BLOCK))
    response = catalog.size_medians[endpoint] * np.exp(rng.normal(0.0, 0.9, BLOCK))
    request = np.exp(rng.normal(5.5, 1.0, BLOCK))
    pick = rng.integers(0, 2**63 - 1, BLOCK, dtype=np.int64)
    return Draws(
        family=family,
        delay_ms=_delays(rng, family, pick, limits),
        customer=customer,
        # Squared: a customer's first key does most of the work.
        api_key=customer * KEYS_PER_CUSTOMER + (rng.random(BLOCK) ** 2 * KEYS_PER_CUSTOMER).astype(np.int64),
        endpoint=endpoint,
        status=status,
        latency=np.round(latency, 1),
        request_bytes=request.astype(np.int64),
        response_bytes=np.where((status == 204) | (status == 304), 0, response.astype(np.int64)),
        region=np.searchsorted(np.cumsum(REGION_SHARES)[:-1], rng.random(BLOCK), side="right"),
        pick=pick,
    )


def event_ids(seed: int, first: int, count: int) -> list[str]:
    """Ids of events `first` and on, in the form of a UUID (version 8): a function of seed and index, unique within a seed."""
    index = np.arange(first, first + count, dtype=np.uint64)
    low = _mixed(index * np.uint64(0x9E3779B97F4A7C15) + _mixed(np.array([seed & _MASK], dtype=np.uint64)))
    halves = np.stack([_mixed(low ^ np.uint64(0xD6E8FEB86659FD93)), low], axis=1)
    halves[:, 0] = halves[:, 0] & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x8000)
    halves[:, 1] = halves[:, 1] & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
    digits = np.frombuffer(halves.astype(">u8").tobytes().hex().encode(), dtype=np.uint8).reshape(count, 32)
    text = np.full((count, 36), ord("-"), dtype=np.uint8)
    for start, stop, shift in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, start + shift : stop + shift] = digits[:, start:stop]
    joined = text.tobytes().decode("ascii")
    return [joined[at : at + 36] for at in range(0, 36 * count, 36)]


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words one to one (the finalizer of splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _families(rng: np.random.Generator, mix: Mix) -> NDArray[np.int8]:
    special = [family for family in Family if family is not Family.ORDINARY]
    bounds = np.cumsum([getattr(mix, family.name.lower()) for family in special])
    found = np.searchsorted(bounds, rng.random(BLOCK), side="right")
    return np.array([*special, Family.ORDINARY], dtype=np.int8)[found]


def _delays(rng: np.random.Generator, family: NDArray[np.int8], pick: Ints, limits: Limits) -> Ints:
    """Choose how long before its arrival each event happened, in milliseconds."""

    def between(low: float, high: float) -> Ints:
        """Log-uniform: most delays are near `low`, some near `high`."""
        return np.exp(rng.uniform(np.log(low), np.log(high), BLOCK)).astype(np.int64)

    boundary: Any = pick % 6 == 0
    around = pick // 6 % 3 - 1
    ahead = -np.where(pick // 7 % 5 == 0, 10 * _YEAR, between(limits.skew_after_ms + 1, limits.skew_after_ms + 55 * _MINUTE))
    delay = between(5, 4000)
    delay = np.where(family == Family.OUT_OF_ORDER, between(5_000, 10 * _MINUTE), delay)
    late = np.where(boundary, limits.late_after_ms + around, between(limits.late_after_ms + 1, 30 * _DAY))
    delay = np.where(family == Family.LATE, late, delay)
    return np.where(family == Family.SKEW, np.where(boundary, -limits.skew_after_ms + around, ahead), delay)
