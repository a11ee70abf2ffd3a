"""The keys of Silver's recent rows in the driver's memory: tells new ids from copies without reading the table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipelines.silver.facts import Flags, Longs

_MERGE_FACTOR = 4
_MS_PER_UNIT = 2000
_LAST_UNIT = 2**32 - 1

Units = npt.NDArray[np.uint32]


def units_of(ms: Longs) -> Units:
    """Kafka times (milliseconds) as units of two seconds, in 32 bits: from 1970 to 2242, times outside at the ends.

    Never falls where the time rises, so what lies between two times lies between their units.
    """
    return np.clip(ms // _MS_PER_UNIT, 0, _LAST_UNIT).astype(np.uint32)


@dataclass
class RecentKeys:
    """Sorted runs of (key, Kafka time as `units_of`) of every Silver row whose Kafka time is not before `horizon_ms`.

    A cache of the table, never the truth: it is read from the table at start and whenever somebody else wrote to it;
    a key that it does not know is new, one that it knows is looked up in the table before anything is decided.
    12 bytes a row: 24 h at 2,000 events/s are 2 GB.
    """

    horizon_ms: int
    _runs: list[tuple[Longs, Units]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: Longs, kafka_ms: Longs) -> None:
        """Remember rows; runs of like size are merged, so that a lookup searches few of them."""
        if not len(keys):
            return
        self._runs.append(_sorted_run(keys, units_of(kafka_ms)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < _MERGE_FACTOR * len(self._runs[-1][0]):
            (keys_a, times_a), (keys_b, times_b) = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted_run(np.concatenate((keys_a, keys_b)), np.concatenate((times_a, times_b))))

    def find(self, keys: Longs) -> tuple[Flags, Longs]:
        """Which keys are known, and the Kafka times (units) of the rows that they may meet (sorted, each once)."""
        known = np.zeros(len(keys), dtype=bool)
        times = [np.zeros(0, dtype=np.int64)]
        order = np.argsort(keys)
        wanted = keys[order]
        for run, units in self._runs:
            at = np.searchsorted(run, wanted)
            at[at == len(run)] = len(run) - 1
            hits = run[at] == wanted
            known[order[hits]] = True
            if hits.any():
                # Equal keys stand side by side in a run; mostly there is one.
                first, end = at[hits], np.searchsorted(run, wanted[hits], side="right")
                times.append(units[first].astype(np.int64))
                several = end - first > 1
                times += [units[low:high].astype(np.int64) for low, high in zip(first[several], end[several], strict=True)]
        return known, np.unique(np.concatenate(times))

    def forget_before(self, horizon_ms: int) -> None:
        """Drop rows older than `horizon_ms`."""
        self.horizon_ms = max(self.horizon_ms, horizon_ms)
        unit = units_of(np.array([self.horizon_ms]))[0]
        self._runs = [(keys[units >= unit], units[units >= unit]) for keys, units in self._runs]
        self._runs = [run for run in self._runs if len(run[0])]


def _sorted_run(keys: Longs, units: Units) -> tuple[Longs, Units]:
    order = np.lexsort((units, keys))
    return keys[order], units[order]
