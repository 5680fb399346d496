"""Paging: to the end, no further, nothing twice, nothing lost, and honest where that cannot be shown."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from attrs import evolve
from harness.backups import server_of
from harness.documents import session
from harness.raw import Connection, RawServer, http, in_turn, json_answer, vbo_routes
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiovbo import (
    Answer,
    Client,
    Clock,
    Fleet,
    FleetError,
    Password,
    PayloadError,
    Resource,
    ResponseError,
    RestoreSession,
    Server,
    VboError,
)
from aiovbo._client.pagination import PageTracker
from aiovbo._decoding.listing import decode_listing
from aiovbo._protocol.session_filter import SessionFilter
from aiovbo._protocol.urls import resolve_link
from aiovbo.testing import BackupServer, Fault, World

PATH = "/v8/RestoreSessions"
Pager = Callable[[int, int], Any]


def rows(start: int, stop: int) -> list[dict[str, Any]]:
    """Sessions with these numbers."""
    return [session(n, _links={}) for n in range(start, stop)]


def following(offset: int) -> dict[str, Any]:
    """The links of a page that is not the last."""
    return {"_links": {"next": {"href": f"{PATH}?offset={offset}"}}}


async def read(
    pager: Pager, version: str = "v8", **question: Any
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


@pytest.mark.parametrize("idle", [3, 4])
async def test_three_pages_without_news_are_followed_and_not_a_fourth(idle: int) -> None:
    """As where as many rows were put in front meanwhile; what goes on like that never ends."""

    def pager(offset: int, _: int) -> dict[str, Any]:
        table = rows(0, 3) if offset == 0 else [] if offset <= idle else rows(3, 6)
        return {"results": table, "limit": 30, **(following(offset + 1) if offset <= idle else {})}

    answer, queries = await read(pager)
    went_on = idle == 3
    assert answer.complete is went_on
    assert (answer.error is None) is went_on
    assert len(answer.items) == (6 if went_on else 3)
    assert len(queries) == 5


async def test_a_last_page_that_is_the_one_before_again_is_the_end() -> None:
    """It leads nowhere, so in no circle: all rows behind it went away, and it holds nothing new."""

    def pager(offset: int, _: int) -> dict[str, Any]:
        return {"results": rows(0, 3), "limit": 30, **({} if offset else following(3))}

    answer, queries = await read(pager)
    assert answer.error is None
    assert answer.complete
    assert len(answer.items) == 3
    assert len(queries) == 2


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


@pytest.mark.parametrize(
    ("page", "version"),
    [
        ({"results": rows(0, 30), "limit": 30}, "v8"),
        ({"results": rows(0, 30), "totalCount": 90}, "v6"),
        (rows(0, 30), "v4"),
    ],
    ids=["a limit", "a total", "an array"],
)
async def test_a_server_that_ignores_our_offset_is_not_asked_for_ever(page: Any, version: str) -> None:
    """The same full page again is the end of what can be had, and completeness is not shown."""
    answer, queries = await read(lambda _, __: page, version, page_size=30)
    assert answer.error is None
    assert len(answer.items) == 30
    assert len(queries) == 2
    assert not answer.complete


async def test_a_row_that_comes_twice_on_a_page_is_one_item() -> None:
    """Nothing else is lost with it."""
    answer, _ = await read(lambda _, __: {"results": [*rows(0, 3), *rows(1, 5)]})
    assert [item.id.int for item in answer.items] == [1, 2, 3, 4, 5]
    assert answer.complete


@pytest.mark.parametrize(
    ("pager", "asked", "kept"),
    [
        (lambda _, __: {"results": rows(0, 30), **following(0)}, 2, 30),
        (
            lambda offset, _: {"results": rows(offset, offset + 3), **following(60 if offset == 30 else 30)},
            3,
            9,
        ),
        (lambda offset, _: {"results": rows(0, 30), **following(offset + 30)}, 2, 30),
        (lambda offset, _: {"results": [], **following(offset + 30)}, 4, 0),
    ],
    ids=["to itself", "a loop of links", "always the same page", "always empty pages"],
)
async def test_pages_that_lead_in_circles_are_an_error_and_what_came_is_kept(
    pager: Pager, asked: int, kept: int
) -> None:
    """A loop is neither followed nor taken for the end; the page that closes it counts like any other."""
    answer, queries = await read(pager)
    assert isinstance(answer.error, PayloadError)
    assert answer.error.phase == "paging"
    assert not answer.error.retryable
    assert answer.error.operation == f"GET {PATH}"
    assert not answer.complete
    assert len(queries) == asked
    assert len(answer.items) == kept


@pytest.mark.parametrize("retries", [0, 1], ids=["before", "when it is left"])
async def test_a_page_read_ahead_that_failed_is_nobodys_trouble_once_the_listing_is_left(
    retries: int,
) -> None:
    """Neither we nor asyncio complain, also where an application's own clock fails as it is cancelled."""
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))

    async def sleep(_: float) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError from None

    first = json_answer({"results": rows(0, 3), **following(3)})
    async with RawServer(vbo_routes(version="v8", sessions=in_turn(first, http(503)))) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, retries=retries, clock=Clock(sleep=sleep)) as client:
            async with aclosing(client.restore_sessions().pages()) as pages:
                assert len(await anext(pages)) == 3
                while client.status().last_error is None and not client.status().retries:
                    await asyncio.sleep(0)
            gc.collect()
            assert reported == []
            assert len(raw.asked("GET", "*")) == 2


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
    """Where it has exactly as many rows as were requested, more may exist: the rest is requested."""

    def array(offset: int, limit: int) -> Any:  # JSON
        return rows(offset, min(25, offset + limit) if limit else 25)

    answer, queries = await read(array, "v4")
    assert (len(answer.items), queries) == (25, ["limit=1000"])
    answer, queries = await read(array, "v4", page_size=10)
    assert (len(answer.items), answer.complete) == (25, True)
    assert queries == ["limit=10", "limit=10&offset=10", "limit=10&offset=20"]


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
async def test_ten_thousand_events_take_ten_requests(version: str) -> None:
    """Every listing requests large pages, in every version, as a page or as a bare array."""
    table = [{"id": str(UUID(int=n + 1))} for n in range(10_000)]

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        offset, limit = (
            int(query.get(name, [default])[0]) for name, default in (("offset", "0"), ("limit", "30"))
        )
        part: Any = table[offset : offset + limit]
        await connection.send(json_answer(part if version == "v4" else {"results": part, "limit": limit}))

    key = UUID(int=7)
    routes = {
        ("GET", f"/{version}/RestoreSessions/{key}"): json_answer(session(7, _links={}) | {"id": str(key)}),
        ("GET", f"/{version}/RestoreSessions/{key}/Events"): page,
        ("POST", f"/{version}/token"): vbo_routes(version=version)["POST", f"/{version}/token"],
    }
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version)  # type: ignore[arg-type]  # parametrised
        async with Client(server) as client:
            answer = await (await client.fetch_restore_session(key)).events().answer()
        assert (len(answer.items), answer.complete) == (10_000, True)
        # The last one shows that there are no more.
        assert len(raw.asked("GET", f"/{version}/RestoreSessions/{key}/Events")) == 11


@pytest.mark.parametrize("refusal", ["413", "silence", "a body that stops"])
async def test_a_page_that_is_too_large_is_requested_in_smaller_pages(refusal: str) -> None:
    """After a 413 or a read timeout half of it, and so on; no row is lost, and the size stays small."""
    table = rows(0, 600)
    limits: list[int] = []

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        offset, limit = int(query.get("offset", ["0"])[0]), int(query["limit"][0])
        limits.append(limit)
        document = {"results": table[offset : offset + limit], "limit": limit}
        if limit <= 250:
            await connection.send(json_answer(document))
        elif refusal == "413":
            await connection.send(http(413))
        else:
            await connection.send(b"" if refusal == "silence" else json_answer(document)[:-5])
            await connection.stall()

    async with RawServer({**vbo_routes(version="v8"), ("GET", PATH): page}) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, read_timeout=0.2, retries=2) as client:
            answer = await client.restore_sessions().answer()
    assert answer.error is None
    assert (len(answer.items), answer.complete) == (600, True)
    assert limits == [1000, 500, 250, 250, 250]


async def test_a_page_of_one_row_that_is_too_large_is_an_error() -> None:
    """Halving ends there, after ten requests."""
    async with RawServer(vbo_routes(version="v8", sessions=http(413))) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, retries=0) as client:
            answer = await client.restore_sessions().answer()
        limits = [int(parse_qs(urlsplit(r.target).query)["limit"][0]) for r in raw.asked("GET", PATH)]
    assert limits == [1000, 500, 250, 125, 62, 31, 15, 7, 3, 1]
    assert isinstance(answer.error, ResponseError)
    assert (answer.error.status, answer.error.attempts) == (413, 10)


async def things(target: str, pager: Callable[[int], dict[str, Any]]) -> tuple[Answer[Resource], list[str]]:
    """What a client makes of a collection that has no class of its own, and the queries it sent."""

    async def page(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.requests[-1].target).query)
        await connection.send(json_answer(pager(int(query.get("offset", ["0"])[0]))))

    async with RawServer({**vbo_routes(version="v8"), ("GET", "/v8/Things"): page}) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, retries=0) as client:
            answer = await client.query(target).answer()
        return answer, [urlsplit(r.target).query for r in raw.asked("GET", "*")]


@pytest.mark.parametrize(
    "ids", [["a", "b", "c", "d"], [1, 2, 3, 4], ["1", 1, "2", 2], [str(UUID(int=n)) for n in range(4)]]
)
@pytest.mark.parametrize("name", ["id", "Id"])
async def test_rows_that_move_while_one_pages_come_once(ids: list[Any], name: str) -> None:
    """By their ids, whatever these are, and although what is beside them has changed."""

    def pager(offset: int) -> dict[str, Any]:
        shown = ids[1:] if offset else ids[:2]
        table = [{name: key, "page": offset} for key in shown]
        return {"results": table} | ({} if offset else {"_links": {"next": {"href": "Things?offset=2"}}})

    answer, queries = await things("Things", pager)
    assert answer.error is None
    assert answer.complete
    assert [item[name] for item in answer.items] == ids
    assert queries == ["limit=1000", "offset=2"]


async def test_further_pages_are_asked_for_byte_for_byte_as_the_first_was() -> None:
    """Percent-escapes of the caller are sent as they are."""
    table = [{"id": n} for n in range(5)]
    asked = "name=a%7Eb%2fc+d%20e&x=%3A:&limit=2"
    answer, queries = await things(f"Things?{asked}", lambda offset: {"results": table[offset : offset + 2]})
    assert [item["id"] for item in answer.items] == list(range(5))
    assert queries == [asked, f"{asked}&offset=2", f"{asked}&offset=4"]


@pytest.mark.parametrize("linked", [True, False])
async def test_rows_without_ids_are_no_circle(linked: bool) -> None:  # noqa: FBT001  # a parameter
    """Nor is one whose id is written `Id`, or is no id at all; only pages that say the same are."""
    table = [{"name": f"row {n}"} for n in range(4)] + [{"Id": f"i{n}"} for n in range(3)]
    table += [{"id": odd} for odd in ({}, [1], 1, True, "1")]

    def pager(offset: int) -> dict[str, Any]:
        members: dict[str, Any] = {"limit": 2, "results": table[offset : offset + 2]}
        if linked and offset + 2 < len(table):
            members |= {"_links": {"next": {"href": f"/v8/Things?offset={offset + 2}"}}}
        return members

    answer, _ = await things("Things", pager)
    assert answer.error is None
    assert [dict(item) for item in answer.items] == table


@pytest.mark.parametrize("odd", [{"limit": 30.5}, {"limit": "many"}, {"totalCount": ""}, {"totalCount": {}}])
def test_a_page_that_counts_nonsense_keeps_its_items_and_is_not_called_complete(odd: dict[str, Any]) -> None:
    """What it says of further pages is not believed, what it holds is."""
    body = json.dumps({"results": rows(0, 5), **odd}).encode()
    listing = decode_listing(body, RestoreSession, "vbo1", None)
    walk: PageTracker[RestoreSession] = PageTracker(lambda _, url: url)
    assert len(listing) == 5
    assert walk.next_url(URL(f"https://vbo1{PATH}"), listing, news=True) is None
    assert not walk.complete


@pytest.mark.parametrize("limit", ["", "many", "9" * 5000, "-1", "0"])
def test_a_limit_that_makes_no_sense_is_none(limit: str) -> None:
    """Where a server's own link brings it, and the page says nothing of a limit, the page is the last."""
    listing = decode_listing(json.dumps({"results": rows(0, 5)}).encode(), RestoreSession, "vbo1", None)
    walk: PageTracker[RestoreSession] = PageTracker(lambda _, url: url)
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
    paging: PageTracker[RestoreSession] = PageTracker(
        lambda href, url: resolve_link(URL("http://h:1"), "v8", href, url.raw_path_qs)
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

    bounds = SessionFilter(
        started_after=base + timedelta(microseconds=after),
        started_before=base + timedelta(microseconds=before),
    ).bounds("v8")
    assert bounds is not None
    body = json.dumps([timed(n, text(tick)) for n, tick in enumerate(ticks)]).encode()
    listing = decode_listing(body, RestoreSession, "s", None)
    items = [item for some, _ in listing.slices() for item in some]
    kept, _ = bounds(items, URL("http://h:1/v8/RestoreSessions"), listing.just_after)
    expected = [n for n, tick in enumerate(ticks) if after * 10 < tick < before * 10]
    assert [one.id.int - 1 for one in kept] == expected
