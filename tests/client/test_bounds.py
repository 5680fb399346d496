"""Rows outside the requested bounds are not delivered, and none inside is lost."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from harness.documents import session
from harness.listings import PATH, Pager, read
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiovbo import (
    RestoreSession,
)
from aiovbo._decoding.listing import decode_listing
from aiovbo._protocol.session_filter import SessionFilter


def one_page(table: list[dict[str, Any]]) -> Pager:
    """A server with one page."""
    return lambda _, __: {"results": table}


BOUND = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)


def timed(number: int, created: str, ended: object = "2026-11-21T00:00:00Z") -> dict[str, Any]:
    """A session with these times."""
    return session(number, creationTime=created, endTime=ended, _links={})


EDGES = [
    timed(0, "2026-11-20T12:00:00.1234549Z"),
    timed(1, "2026-11-20T12:00:00.123456Z"),
    timed(2, "2026-11-20T12:00:00.1234560Z"),
    timed(3, "2026-11-20T12:00:00.1234563Z"),
    timed(4, "2026-11-20T14:00:00.1234561+02:00"),
    {"ID": str(UUID(int=6)), "CreationTime": "2026-11-20T12:00:00.1234567", "shade": "mauve"},
    timed(6, "2026-11-20T12:00:00.1234570Z"),
    timed(7, "2026-11-20T12:00:00.1234558Z", ended="2026-11-20T12:00:00.1234569Z"),
]
"""Around a bound: 0 and 7 are before it, 1 and 2 are on it, the others are after it by 100 ns and more."""


@pytest.mark.parametrize("version", ["v4", "v7", "v8"])
@pytest.mark.parametrize("padding", [0, 600_000], ids=["short", "long"])
async def test_rows_outside_the_bounds_are_not_delivered_and_none_inside_is_lost(
    version: str, padding: int
) -> None:
    """To the 100 ns that servers know and models do not; bounds are exclusive."""

    def pager(_: int, __: int) -> Any:  # JSON
        table = [*EDGES, timed(8, "2020-01-01T00:00:00Z") | {"details": "x" * padding}]
        return table if version == "v4" else {"results": table}

    answer, _ = await read(pager, version, started_after=BOUND)
    assert [one.id.int - 1 for one in answer.items] == [3, 4, 5, 6]
    assert not answer.complete
    assert answer.error is None
    answer, _ = await read(pager, version, started_before=BOUND)
    assert [one.id.int - 1 for one in answer.items] == [0, 7, 8]
    assert not answer.complete
    answer, _ = await read(pager, version, ended_after=BOUND, ended_before=BOUND + timedelta(seconds=1))
    assert [one.id.int - 1 for one in answer.items] == [7]
    # Only v8 is sent these bounds.
    assert answer.complete is (version != "v8")
    answer, _ = await read(pager, version)
    assert (len(answer.items), answer.complete) == (9, True)


@pytest.mark.parametrize("version", ["v6", "v8"])
async def test_a_next_link_without_the_filter_is_followed_and_its_other_rows_are_dropped(
    version: str,
) -> None:
    """That page was not requested with our bounds: its other rows do not mean that anything is missing."""
    table = [timed(n, f"2026-11-{30 - n:02}T00:00:00Z") for n in range(23)]

    def pager(offset: int, _: int) -> dict[str, Any]:
        # Filtered only while the bounds are sent.
        page = table[offset : offset + 5]
        more = offset + 5 < len(table)
        link = {"_links": {"next": {"href": f"/{version}/RestoreSessions?offset={offset + 5}&limit=5"}}}
        return {"results": page, "limit": 5, **(link if more else {})}

    bound = datetime(2026, 11, 22, 12, tzinfo=UTC)
    answer, queries = await read(pager, version, started_after=bound)
    assert [one.id.int - 1 for one in answer.items] == list(range(8))
    assert answer.complete
    assert len(queries) == 5


async def test_a_page_that_ignores_our_filter_makes_the_answer_incomplete() -> None:
    """Also where the server repeats our bounds in its own link, in its own case."""
    table = [timed(n, f"2026-11-{30 - n:02}T00:00:00Z") for n in range(8)]

    def pager(offset: int, _: int) -> dict[str, Any]:
        href = f"{PATH}?STARTTIMEFROM=2026-11-24T12%3A00%3A00Z&offset=5"
        more = {} if offset else {"_links": {"next": {"href": href}}}
        return {"results": table[offset : offset + 5], "limit": 5, **more}

    answer, _ = await read(pager, started_after=datetime(2026, 11, 24, 12, tzinfo=UTC))
    assert len(answer.items) == 6
    assert not answer.complete


@pytest.mark.parametrize("version", ["v6", "v8"])
async def test_a_session_whose_end_cannot_be_read_is_outside_bounds_of_the_end(version: str) -> None:
    """One that goes on is too; of the one that cannot be read, the answer says that it is not complete."""
    day = datetime(2026, 11, 20, tzinfo=UTC)
    going_on = timed(1, "2026-11-20T00:00:00Z", ended=None)
    unclear = timed(2, "2026-11-20T00:00:00Z", ended="in the evening")
    inside = timed(3, "2026-11-20T00:00:00Z", ended="2026-11-20T13:00:00Z")
    for table, complete in (([going_on, inside], version == "v6"), ([unclear, inside], False)):
        answer, _ = await read(one_page(table), version, ended_after=day)
        assert [one.id.int - 1 for one in answer.items] == [3]
        assert answer.complete is complete


@given(st.integers(-40, 40), st.integers(-40, 40), st.lists(st.integers(-45, 45), max_size=20))
def test_the_bounds_are_exclusive_to_the_last_digit_that_a_server_sends(
    after: int, before: int, ticks: list[int]
) -> None:
    """Whatever the bounds and times, in units of 100 ns."""
    base = datetime(2026, 11, 20, tzinfo=UTC)

    def text(tick: int) -> str:
        time = base + timedelta(microseconds=tick // 10)
        return time.strftime("%Y-%m-%dT%H:%M:%S.%f") + f"{tick % 10}Z"

    _, bounds = SessionFilter(
        started_after=base + timedelta(microseconds=after),
        started_before=base + timedelta(microseconds=before),
    ).for_version("v8")
    assert bounds is not None
    body = json.dumps([timed(n, text(tick)) for n, tick in enumerate(ticks)]).encode()
    listing = decode_listing(body, RestoreSession, "s", None)
    items = [item for some, _ in listing.slices() for item in some]
    kept, _ = bounds(items, URL("http://h:1/v8/RestoreSessions"), listing.just_after)
    expected = [n for n, tick in enumerate(ticks) if after * 10 < tick < before * 10]
    assert [one.id.int - 1 for one in kept] == expected
