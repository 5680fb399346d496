"""Rows that are rejected: what is delivered, what is an error, what is logged."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from attrs import evolve
from harness.backups import server_of
from harness.documents import session
from harness.listings import Pager, following, read, rows
from harness.raw import Connection, RawServer, json_answer, vbo_routes

from aiovbo import (
    Client,
    Fleet,
    FleetError,
    Password,
    PayloadError,
    RestoreSession,
    Server,
)
from aiovbo.testing import BackupServer, World


def unidentified(start: int, stop: int) -> list[dict[str, Any]]:
    """Rows without an id."""
    return [session(n, id=..., name=f"row {n}", _links={}) for n in range(start, stop)]


def two_pages(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Pager:
    """A server with two pages."""
    return lambda offset, _: {"results": second} if offset else {"results": first, **following(len(first))}


def one_page(table: list[dict[str, Any]]) -> Pager:
    """A server with one page."""
    return lambda _, __: {"results": table}


@asynccontextmanager
async def serving(pager: Pager, version: str = "v8", **options: Any) -> AsyncGenerator[Fleet]:
    """A fleet of one server that pages so, and a healthy one."""

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        offset, limit = (int(query.get(name, ["0"])[0]) for name in ("offset", "limit"))
        await connection.send(json_answer(pager(offset, limit)))

    routes = {**vbo_routes(version=version), ("GET", f"/{version}/RestoreSessions"): page}
    async with RawServer(routes) as raw, BackupServer(World(sessions=3)) as healthy:
        odd = Server(raw.url, Password("u", "p"), name="odd", allow_http=True, api_version=version)  # type: ignore[arg-type]  # as given
        async with Fleet([odd, evolve(server_of(healthy), name="healthy")], retries=0, **options) as fleet:
            yield fleet


@pytest.mark.parametrize("pages", [1, 2, 6])
async def test_a_listing_of_which_every_item_was_rejected_is_an_error_in_every_way_of_querying(
    pages: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Never an empty list; over several pages, the whole listing counts."""

    def pager(offset: int, _: int) -> dict[str, Any]:
        more = following(offset + 2) if offset < 2 * (pages - 1) else {}
        return {"results": unidentified(offset, offset + 2), **more}

    async with serving(pager) as fleet:
        client = fleet["odd"]
        with pytest.raises(PayloadError, match=f"all {2 * pages} items were rejected") as caught:
            await client.restore_sessions()
        assert caught.value.problems[0] == "item 0: missing @ $.id"
        assert len(caught.value.problems) == 2 * pages
        with pytest.raises(PayloadError, match="rejected"):
            async for _ in client.restore_sessions():
                pass
        shown = 0
        with pytest.raises(PayloadError, match="rejected"):
            async for page in client.restore_sessions().pages():
                shown += len(page.rejected)
        assert shown == 2 * pages
        answer = await client.restore_sessions().answer()
        assert isinstance(answer.error, PayloadError)
        assert (len(answer.rejected), answer.complete) == (2 * pages, False)
        result = await fleet.restore_sessions()
        assert isinstance(result.answers["odd"].error, PayloadError)
        assert len(result.answers["healthy"].items) == 3
        failed = {a.server: a.error async for a in fleet.restore_sessions().answers() if a.error is not None}
        assert list(failed) == ["odd"]
        came = 0
        with pytest.raises(FleetError) as group:
            async for _ in fleet.restore_sessions():
                came += 1
        assert [type(error) for error in group.value.exceptions] == [PayloadError]
        assert came == 3
        mapped = await fleet.map(lambda one: one.restore_sessions())
        assert isinstance(mapped.answers["odd"].error, PayloadError)
        collected = await fleet.map(_collected)
        assert isinstance(collected.answers["odd"].error, PayloadError)
    lines = [record.getMessage() for record in caplog.records if "rejected" in record.getMessage()]
    # One line a listing, whatever the number of its rows and pages.
    assert len(lines) == 9
    assert f"rejected {2 * pages} of {2 * pages} items: item 0: missing @ $.id; item 1" in lines[0]


async def _collected(client: Client) -> list[RestoreSession]:
    return await client.restore_sessions()


async def test_one_item_that_is_delivered_is_no_reason_for_an_error() -> None:
    """Of the other rows the answer says that they were rejected."""
    for first, second in ((unidentified(0, 3), rows(3, 4)), (rows(3, 4), unidentified(0, 3))):
        answer, _ = await read(two_pages(first, second))
        assert answer.error is None
        assert (len(answer.items), len(answer.rejected), answer.complete) == (1, 3, False)


async def test_a_listing_without_rows_is_empty_and_not_an_error() -> None:
    """Nothing was rejected."""
    answer, _ = await read(lambda _, __: {"results": []})
    assert (answer.items, answer.error, answer.complete) == ((), None, True)


async def test_strict_makes_one_rejected_item_an_error_on_any_page() -> None:
    """Its problems name the item."""
    async with serving(two_pages(rows(0, 2), unidentified(2, 3)), strict=True) as fleet:
        with pytest.raises(PayloadError) as caught:
            await fleet["odd"].restore_sessions()
    assert caught.value.problems == ("item 2: missing @ $.id",)


async def test_rejected_rows_are_logged_in_one_line_however_many_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The line has their number and the first few."""
    async with serving(two_pages([*rows(0, 1), *unidentified(1, 3000)], unidentified(3000, 4000))) as fleet:
        answer = await fleet["odd"].restore_sessions().answer()
    assert len(answer.rejected) == 3999
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == (
        "odd: /v8/RestoreSessions: rejected 3999 of 4000 items: item 1: missing @ $.id; "
        "item 2: missing @ $.id; item 3: missing @ $.id; and 3996 more"
    )
