"""The ids of a listing's rows, to notice rows that come twice: exact, in less than 60 bytes a row.

A set of a million ids takes 100 MB. Here the ids beyond the first fifty thousand are packed into small byte
arrays, 16 bytes each: 25 MB, and a microsecond for each row. Knows no pages.
"""

from collections.abc import Collection, Iterable

_MOST_LOOSE = 50_000
"""Ids that are kept in a set, which is faster; nearly all listings are shorter."""

_BUCKETS = 1 << 15
_WIDTH = 16
_MIX = 0x9E3779B97F4A7C15
"""Spreads ids that are similar: 2**64 divided by the golden ratio."""


class SeenIds:
    """Ids that were seen; a UUID is given as its number, and other keys as they are."""

    def __init__(self) -> None:
        self._loose: set[object] = set()
        self._others: set[object] = set()
        self._buckets: list[bytearray] = []

    def update(self, keys: Iterable[object]) -> None:
        """Note ids, which may be known."""
        self._loose.update(keys)
        if len(self._loose) > _MOST_LOOSE:
            self._pack()

    def isdisjoint(self, keys: Collection[object]) -> bool:
        """Whether none of the ids was seen."""
        if not self._loose.isdisjoint(keys):
            return False
        return not self._buckets or not any(map(self._is_packed, keys))

    def __contains__(self, key: object) -> bool:
        return key in self._loose or (bool(self._buckets) and self._is_packed(key))

    def _pack(self) -> None:
        if not self._buckets:
            self._buckets = [bytearray() for _ in range(_BUCKETS)]
        for key in self._loose:
            if self._is_packed(key):
                continue
            if type(key) is int and key >> 128 == 0:
                self._buckets[_bucket_of(key)] += key.to_bytes(_WIDTH)
            else:
                self._others.add(key)
        self._loose.clear()

    def _is_packed(self, key: object) -> bool:
        if type(key) is not int or key >> 128:
            return key in self._others
        packed, bucket = key.to_bytes(_WIDTH), self._buckets[_bucket_of(key)]
        found = bucket.find(packed)
        while found > 0 and found % _WIDTH:
            # The end of one id and the beginning of the next.
            found = bucket.find(packed, found + 1)
        return found >= 0


def _bucket_of(key: int) -> int:
    return (key % 0xFFFFFFFFFFFFFFC5 * _MIX >> 40) % _BUCKETS
