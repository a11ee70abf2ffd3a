"""The keys of Silver's recent rows in the driver's memory: tells new ids from copies without reading the table."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipelines.silver.fates import Flags, Longs

_MERGE_FACTOR = 4


@dataclass
class RecentKeys:
    """Sorted runs of (key, Kafka second) of every Silver row whose Kafka time is not before `horizon_us`.

    A cache of the table, never the truth: it is read from the table at start and whenever somebody else wrote to it;
    a key that it does not know is new, one that it knows is looked up in the table before anything is decided.
    12 bytes a row: 24 h at 2,000 events/s are 2 GB.
    """

    horizon_us: int
    _runs: list[tuple[Longs, Longs]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: Longs, kafka_us: Longs) -> None:
        """Remember rows; runs of like size are merged, so that a lookup searches few of them."""
        if not len(keys):
            return
        self._runs.append(_sorted_run(keys, (kafka_us // 1_000_000).astype(np.int32)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < _MERGE_FACTOR * len(self._runs[-1][0]):
            (keys_a, times_a), (keys_b, times_b) = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted_run(np.concatenate((keys_a, keys_b)), np.concatenate((times_a, times_b))))

    def find(self, keys: Longs) -> tuple[Flags, Longs]:
        """Which keys are known, and the Kafka seconds of the rows that they may meet (sorted, each once)."""
        known = np.zeros(len(keys), dtype=bool)
        times = [np.zeros(0, dtype=np.int64)]
        order = np.argsort(keys)
        wanted = keys[order]
        for run, seconds in self._runs:
            at = np.searchsorted(run, wanted)
            at[at == len(run)] = len(run) - 1
            hits = run[at] == wanted
            known[order[hits]] = True
            if hits.any():
                # Equal keys stand side by side in a run; mostly there is one.
                first, end = at[hits], np.searchsorted(run, wanted[hits], side="right")
                times.append(seconds[first])
                several = end - first > 1
                times += [seconds[low:high] for low, high in zip(first[several], end[several], strict=True)]
        return known, np.unique(np.concatenate(times).astype(np.int64))

    def forget_before(self, horizon_us: int) -> None:
        """Drop rows older than `horizon_us`."""
        self.horizon_us = max(self.horizon_us, horizon_us)
        second = self.horizon_us // 1_000_000
        self._runs = [(keys[seconds >= second], seconds[seconds >= second]) for keys, seconds in self._runs]
        self._runs = [run for run in self._runs if len(run[0])]


def _sorted_run(keys: Longs, seconds: Longs) -> tuple[Longs, Longs]:
    order = np.lexsort((seconds, keys))
    return keys[order], seconds[order]
