"""Paging: to the end, no further, nothing twice, nothing lost, and honest where that cannot be shown."""

import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from backups import server_of
from documents import session
from harness.raw import Connection, RawServer, json_answer, vbo_routes
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiovbo import Answer, Client, Password, PayloadError, RestoreSession, Server, VboError
from aiovbo._decode import decode_listing
from aiovbo._hrefs import anchor
from aiovbo._paging import Walk
from aiovbo.testing import BackupServer, Fault, World

PATH = "/v8/RestoreSessions"
Pager = Callable[[int, int], dict[str, Any]]


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    """Sessions with these numbers."""
    return [session(n, _links={}) for n in range(start, stop)]


def following(offset: int) -> dict[str, Any]:
    """The links of a page that is not the last."""
    return {"_links": {"next": {"href": f"{PATH}?offset={offset}"}}}


async def read(
    pager: Pager, version: str = "v8", **question: int
) -> tuple[Answer[RestoreSession], list[str]]:
    """What a client makes of a server that pages so, and the queries it sent."""

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        offset, limit = (int(query.get(name, ["0"])[0]) for name in ("offset", "limit"))
        await connection.send(json_answer(pager(offset, limit)))

    routes = {**vbo_routes(version=version), ("GET", f"/{version}/RestoreSessions"): page}
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version)  # type: ignore[arg-type]  # as given
        async with Client(server, retries=0) as client:
            answer = await client.restore_sessions(**question).answer()
        return answer, [urlsplit(r.target).query for r in raw.asked("GET", "*")]


async def test_next_links_are_followed_to_the_end() -> None:
    """Also over an empty page in the middle."""

    def pager(offset: int, _: int) -> dict[str, Any]:
        if offset == 30:
            return {"results": [], "limit": 30, **following(31)}
        if offset == 31:
            return {"results": rows(30, 40), "limit": 30}
        return {"results": rows(0, 30), "limit": 30, **following(30)}

    answer, queries = await read(pager)
    assert len(answer.items) == 40
    assert answer.complete
    assert queries == ["limit=1000", "offset=30", "offset=31"]


async def test_where_next_is_missing_the_offset_moves_by_the_rows_received() -> None:
    """A server that clamps the limit and forgets the link: asked for 1,000, it gives 30."""

    def pager(offset: int, _: int) -> dict[str, Any]:
        return {"results": rows(offset, min(offset + 30, 70)), "limit": 30}

    answer, queries = await read(pager)
    assert len(answer.items) == 70
    assert answer.complete
    assert queries == ["limit=1000", "limit=1000&offset=30", "limit=1000&offset=60"]


async def test_a_total_that_was_not_reached_means_there_is_more() -> None:
    """And where it cannot be had, the answer says that it is not complete."""

    def generous(offset: int, _: int) -> dict[str, Any]:
        return {"results": rows(offset, min(offset + 10, 25)), "totalCount": "25"}

    def stingy(offset: int, _: int) -> dict[str, Any]:
        return {"results": rows(offset, 10), "totalCount": 25}

    answer, _ = await read(generous)
    assert len(answer.items) == 25
    assert answer.complete
    answer, _ = await read(stingy)
    assert len(answer.items) == 10
    assert answer.error is None
    assert not answer.complete


async def test_rows_that_go_away_while_paging_make_a_listing_incomplete() -> None:
    """Those behind them move up, past what was read: it shows in the total."""
    gone = iter([0, 5, 5])

    def pager(offset: int, _: int) -> dict[str, Any]:
        table = rows(next(gone), 25)
        page = {"results": table[offset : offset + 10], "limit": 10, "totalCount": len(table)}
        more = {"_links": {"next": {"href": f"?offset={offset + 10}"}}}
        return page | (more if offset + 10 < len(table) else {})

    answer, _ = await read(pager, "v6")
    assert answer.error is None
    assert len(answer.items) == 20
    assert not answer.complete


async def test_a_server_that_ignores_our_offset_is_not_asked_for_ever() -> None:
    """The same full page again is the end of what can be had, and completeness is not shown."""
    answer, queries = await read(lambda _, __: {"results": rows(0, 30), "limit": 30})
    assert len(answer.items) == 30
    assert len(queries) == 2
    assert not answer.complete


async def test_a_row_that_comes_twice_on_a_page_is_one_item() -> None:
    """Nothing else is lost with it."""
    answer, _ = await read(lambda _, __: {"results": [*rows(0, 3), *rows(1, 5)]})
    assert [item.id.int for item in answer.items] == [1, 2, 3, 4, 5]
    assert answer.complete


@pytest.mark.parametrize(
    "pager",
    [
        lambda _, __: {"results": rows(0, 30), **following(0)},
        lambda offset, _: {"results": rows(offset, offset + 3), **following(0 if offset else 30)},
        lambda offset, _: {"results": rows(0, 30), **following(offset + 30)},
        lambda offset, _: {"results": [], **following(offset + 30)},
    ],
    ids=["to itself", "in a circle", "the same page for ever", "empty pages for ever"],
)
async def test_pages_that_lead_in_circles_are_an_error_and_what_came_is_kept(pager: Pager) -> None:
    """A loop is neither followed nor taken for the end."""
    answer, queries = await read(pager)
    assert isinstance(answer.error, PayloadError)
    assert answer.error.phase == "paging"
    assert not answer.complete
    assert len(queries) <= 6
    assert bool(answer.items) is bool(pager(0, 0)["results"])


async def test_a_next_link_that_leads_elsewhere_is_the_servers_error() -> None:
    """It is not followed, and not passed over in silence."""
    elsewhere = {"_links": {"next": {"href": "https://evil.example/other"}}}
    answer, queries = await read(lambda _, __: {"results": rows(0, 2), **elsewhere})
    assert isinstance(answer.error, PayloadError)
    assert "evil.example" in str(answer.error)
    assert len(answer.items) == 2
    assert len(queries) == 1


async def test_a_listing_goes_on_as_it_began_whatever_version_others_come_to_think_of() -> None:
    """A query that finds nothing there makes the client look for the version anew, and ends no other."""
    async with (
        BackupServer(World(sessions=40), version="v6") as backup,
        Client(server_of(backup), retries=0) as client,
        aclosing(client.restore_sessions(page_size=4).pages()) as pages,
    ):
        came = len(await anext(pages))
        others = Fault.status(404, body=b"")
        backup.fail(others, on="RestoreSessions", when=lambda request: "limit=5" in request.query)
        assert (await client.restore_sessions(page_size=5).answer()).error is not None
        assert client.api_version is None
        came += sum([len(page) async for page in pages])
    assert came == 40


async def test_a_bare_array_is_the_whole_answer() -> None:
    """With a limit of ours that it fills, it may not be: then the rest is asked for."""

    def array(offset: int, limit: int) -> Any:  # JSON
        return rows(offset, min(25, offset + limit) if limit else 25)

    answer, queries = await read(array, "v4")
    assert (len(answer.items), queries) == (25, [""])
    answer, queries = await read(array, "v4", page_size=10)
    assert (len(answer.items), answer.complete) == (25, True)
    assert queries == ["limit=10", "limit=10&offset=10", "limit=10&offset=20"]


@pytest.mark.parametrize("linked", [True, False])
async def test_rows_without_ids_are_no_circle(linked: bool) -> None:  # noqa: FBT001  # a parameter
    """Nor is one whose id is written `Id`, or is no id at all; only pages that say the same are."""
    table = [{"name": f"row {n}"} for n in range(4)] + [{"Id": f"i{n}"} for n in range(3)]
    table += [{"id": odd} for odd in ({}, [1], 1, True, "1")]

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        offset = int(query.get("offset", ["0"])[0])
        members: dict[str, Any] = {"limit": 2, "results": table[offset : offset + 2]}
        if linked and offset + 2 < len(table):
            members |= {"_links": {"next": {"href": f"/v8/Things?offset={offset + 2}"}}}
        await connection.send(json_answer(members))

    async with RawServer({**vbo_routes(version="v8"), ("GET", "/v8/Things"): page}) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, retries=0) as client:
            answer = await client.query("Things").answer()
    assert answer.error is None
    assert [dict(item) for item in answer.items] == table


@pytest.mark.parametrize("odd", [{"limit": 30.5}, {"limit": "many"}, {"totalCount": ""}, {"totalCount": {}}])
def test_a_page_that_counts_nonsense_keeps_its_items_and_is_not_called_complete(odd: dict[str, Any]) -> None:
    """What it says of further pages is not believed, what it holds is."""
    body = json.dumps({"results": rows(0, 5), **odd}).encode()
    listing = decode_listing(body, RestoreSession, "vbo1", None)
    walk: Walk[RestoreSession] = Walk(lambda _, url: url)
    assert len(listing) == 5
    assert walk.next_url(URL(f"https://vbo1{PATH}"), listing, news=True) is None
    assert not walk.complete


@pytest.mark.parametrize("limit", ["", "many", "9" * 5000, "-1", "0"])
def test_a_limit_that_makes_no_sense_is_none(limit: str) -> None:
    """Where a server's own link brings it, and the page says nothing of a limit, the page is the last."""
    listing = decode_listing(json.dumps({"results": rows(0, 5)}).encode(), RestoreSession, "vbo1", None)
    walk: Walk[RestoreSession] = Walk(lambda _, url: url)
    url = URL(f"https://vbo1{PATH}?setId=1&limit={limit}", encoded=True)
    assert walk.next_url(url, listing, news=True) is None
    assert walk.complete


@given(
    st.lists(st.integers(0, 5), max_size=12),
    st.integers(1, 7),
    st.integers(0, 40),
)
def test_rows_inserted_while_paging_lose_nothing_and_double_nothing(
    inserts: Sequence[int], size: int, initial: int
) -> None:
    """Whatever is put in front between two pages, every row of the beginning comes exactly once."""
    table = list(range(initial))
    following_numbers = iter(range(1000, 2000))
    paging: Walk[RestoreSession] = Walk(
        lambda href, url: anchor(URL("http://h:1"), "v8", href, url.raw_path_qs)
    )
    url: URL | None = URL(f"http://h:1{PATH}?limit={size}")
    seen: list[int] = []
    pauses = iter(inserts)
    while url is not None:
        offset = int(url.query.get("offset", "0"))
        shown = table[offset : offset + size]
        members: dict[str, Any] = {"limit": size, "results": [session(n) for n in shown]}
        if offset + size < len(table):
            members |= following(offset + size)
        listing = decode_listing(json.dumps(members).encode(), RestoreSession, "s", None)
        items = [item for some, _ in listing.slices() for item in some]
        fresh = paging.new(items)
        seen += [item.id.int - 1 for item in fresh]
        try:
            url = paging.next_url(url, listing, news=bool(fresh))
        except VboError:
            # Only where more was put in front than a page holds, several times in a row.
            assert max(inserts) >= size
            return
        for _ in range(next(pauses, 0)):
            table.insert(0, next(following_numbers))
    assert len(seen) == len(set(seen))
    assert set(range(initial)) <= set(seen)
    assert paging.complete or max(inserts) >= size
