"""Ids of rows that were seen: exact, and small."""

import sys
from random import Random
from typing import Any

import pytest

from aiovbo._client import seen_ids
from aiovbo._client.seen_ids import SeenIds


def size_of(seen: SeenIds) -> int:
    """Bytes that it takes, with the numbers in it."""
    members: Any = vars(seen)
    sets = [members["_loose"], members["_others"]]
    buckets = members["_buckets"]
    loose = sum(sys.getsizeof(one) + sum(map(sys.getsizeof, one)) for one in sets)
    return loose + sys.getsizeof(buckets) + sum(map(sys.getsizeof, buckets))


@pytest.mark.parametrize("bits", [128, 20, 3])
def test_ids_are_known_exactly(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a set, also where many ids share a bucket, and for keys that are no UUIDs."""
    monkeypatch.setattr(seen_ids, "_MOST_LOOSE", 50)
    monkeypatch.setattr(seen_ids, "_BUCKETS", 4)
    chance = Random(bits)  # noqa: S311  # no secret
    seen, expected = SeenIds(), set[object]()
    kinds = [
        lambda n: n,
        lambda n: ("rejected", n),
        lambda n: n * 0x01010101010101010101010101010101,
        lambda n: -n,
    ]
    for _ in range(300):
        keys = [chance.choice(kinds)(chance.getrandbits(bits)) for _ in range(5)]
        assert seen.isdisjoint(keys) is expected.isdisjoint(keys)
        assert [key in seen for key in keys] == [key in expected for key in keys]
        seen.update(keys)
        expected.update(keys)


def test_an_id_that_is_part_of_two_others_is_not_taken_for_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of one and the beginning of the next are no id."""
    monkeypatch.setattr(seen_ids, "_MOST_LOOSE", 1)
    monkeypatch.setattr(seen_ids, "_BUCKETS", 1)
    seen = SeenIds()
    first, second = int.from_bytes(b"a" * 8 + b"b" * 8), int.from_bytes(b"c" * 8 + b"d" * 8)
    seen.update([first])
    seen.update([second])
    seen.update([5])
    both = {int.from_bytes(b"b" * 8 + b"c" * 8), int.from_bytes(b"d" * 8 + b"a" * 8)}
    assert seen.isdisjoint(both)
    assert not seen.isdisjoint({second})


def test_a_row_takes_less_than_sixty_bytes() -> None:
    """Of two hundred thousand."""
    chance = Random(1)  # noqa: S311  # no secret
    seen = SeenIds()
    for _ in range(201):
        seen.update([chance.getrandbits(128) for _ in range(1_000)])
    assert size_of(seen) < 60 * 201_000
