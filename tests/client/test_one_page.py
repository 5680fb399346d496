"""A listing whose response is one page: the same result as reading pages, with less work."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

import pytest
from attrs import frozen
from harness.documents import session

from aiovbo import Bearer, Client, PayloadError, Rejected, RestoreSession, Server

PATH = "/v8/RestoreSessions"
ROWS = [session(n) for n in range(4)]
NEXT = {"next": {"href": f"{PATH}?offset=4"}}


@frozen
class Reply:
    """A response of the server below."""

    status: int
    headers: dict[str, str]
    body: bytes


class OneServer:
    """Sends a first response to every listing from its start, and pages without rows after it."""

    def __init__(self, first: bytes, date: datetime | None = None) -> None:
        self._first = first
        self._headers = {"Content-Type": "application/json"}
        if date is not None:
            self._headers["Date"] = f"{date:%a, %d %b %Y %H:%M:%S} GMT"
        self.targets: list[str] = []

    async def send(self, request: Any, _deadline: object, /) -> Reply:
        """The response."""
        self.targets.append(request.url.raw_path_qs)
        is_first = "offset=" not in request.url.raw_query_string
        return Reply(200, self._headers, self._first if is_first else b'{"results":[],"limit":4}')


def page(*rows: object, **members: object) -> bytes:
    """A page of the API."""
    return json.dumps({"results": rows, "limit": 30, "_links": {}, **members}).encode()


FIRST = {
    "all": page(*ROWS),
    "nothing": page(),
    "array": json.dumps(ROWS).encode(),
    "a full page": page(*ROWS, limit=4),
    "a next link": page(*ROWS, _links=NEXT),
    "an empty page with a next link": page(_links=NEXT),
    "a total that was reached": page(*ROWS, totalCount=4),
    "a larger total": page(*ROWS, totalCount=9),
    "an unreadable total": page(*ROWS, totalCount="many"),
    "unreadable links": b'{"results":[],"limit":30,"_links":{"a":1e400}}',
    "a row twice": page(*ROWS, ROWS[0]),
    "a rejected row": page(*ROWS, session(5, id=...)),
    "only rejected rows": page(session(5, id=...), session(6, id=...)),
    "an unknown member": page(*ROWS, session(5, shade="mauve")),
    "a row out of bounds": page(*ROWS, session(5, creationTime="2025-01-01T00:00:00Z")),
    "a row on the bound": page(*ROWS, session(5, creationTime="2026-01-01T00:00:00.0000001Z")),
}

SERVER = Server("vbo1", Bearer("token"), api_version="v8")
BOUND = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("name", FIRST)
async def test_a_query_gives_the_same_in_one_piece_and_page_by_page(name: str) -> None:
    """Items, rejected rows, completeness, errors and requests; also where the response is known."""
    server = OneServer(FIRST[name])
    async with Client(SERVER, transport=server) as client:
        for _ in range(3):
            query = client.restore_sessions(started_after=BOUND)
            server.targets.clear()
            items: list[RestoreSession] = []
            rejected: list[Rejected] = []
            complete, failure = True, ""
            try:
                async for part in query.pages():
                    items += part.items
                    rejected += part.rejected
                    complete = part.complete
            except PayloadError as error:
                failure, complete = error.what, False
            targets = server.targets[:]
            server.targets.clear()
            answer = await query.answer()
            assert answer.items == tuple(items)
            assert answer.rejected == tuple(rejected)
            assert answer.complete is complete
            assert (answer.error.what if answer.error else "") == failure
            assert server.targets == targets
            assert answer.attempts == len(targets)
            if not failure:
                assert await query == items


async def entered(act: Callable[[], Any]) -> set[str]:
    """The names of the functions of the package that run meanwhile."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "aiovbo" in frame.f_code.co_filename:
            found.add(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        await act()
    finally:
        sys.setprofile(None)
    return found


async def test_one_page_creates_no_iterator_and_an_unchanged_one_is_not_decoded() -> None:
    """Nothing is kept for pages that do not follow."""
    server = OneServer(FIRST["all"])
    async with Client(SERVER, transport=server) as client:
        query = client.restore_sessions(started_after=BOUND)
        first = await query
        names = await entered(query.answer)
        assert await query == first
    assert "CollectionReader.first_page" in names
    assert (
        not {"PageIterator.__init__", "PageTracker.__init__", "Use.__init__", "SessionReader.models"} & names
    )


async def test_the_servers_time_corrects_the_bounds_of_the_first_query() -> None:
    """A server whose clock is an hour ahead is requested again, once."""
    server = OneServer(FIRST["nothing"], datetime(2031, 1, 1, tzinfo=UTC))
    async with Client(SERVER, transport=server) as client:
        query = client.restore_sessions(started_after=datetime.now(UTC) - datetime(2026, 1, 1, tzinfo=UTC))
        await query
        assert len(server.targets) == 2
        assert len(set(server.targets)) == 2
        await query
        assert len(server.targets) == 3
