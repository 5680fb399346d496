"""Paging: to the end, no further, nothing twice, nothing lost, and honest where that cannot be shown."""

import asyncio
import gc
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from harness.backups import server_of
from harness.contract import VERSIONS
from harness.documents import session
from harness.listings import PATH, Pager, following, read, rows
from harness.raw import Connection, RawServer, http, in_turn, json_answer, vbo_routes
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiovbo import (
    Answer,
    Client,
    Clock,
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
from aiovbo._protocol.urls import resolve_link
from aiovbo.testing import BackupServer, Fault, World


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


@pytest.mark.parametrize("version", ["v4", "v6"])
async def test_a_server_that_ignores_the_requested_limit_without_saying_so_is_read_to_the_end(
    version: str,
) -> None:
    """It sends 30 rows, the API's default: there may be more, and no link leads to them."""

    def pager(offset: int, _: int) -> object:
        some = rows(offset, min(offset + 30, 95))
        return some if version == "v4" else {"results": some}

    answer, queries = await read(pager, version)
    assert (len(answer.items), answer.complete) == (95, True)
    assert len(queries) == 4


@pytest.mark.parametrize("has_pages", [True, False])
async def test_a_server_with_exactly_thirty_sessions_is_asked_for_more_only_once(*, has_pages: bool) -> None:
    """Nothing follows, or the same again where it has no pages: it needs no such request from then on."""

    async def send(connection: Connection) -> None:
        offset = URL(connection.requests[-1].target).query.get("offset", "0")
        await connection.send(json_answer(rows(0, 30) if offset == "0" or not has_pages else []))

    async with RawServer(vbo_routes(sessions=send)) as raw:
        async with Client(Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")) as client:
            for _ in range(3):
                answer = await client.restore_sessions().answer()
                assert (len(answer.items), answer.complete) == (30, True)
        assert len([one for one in raw.requests if "RestoreSessions" in one.target]) == 4


@pytest.mark.parametrize("count", [30, 31, 60, 61, 90])
async def test_a_server_that_ignores_the_limit_is_read_to_the_end_at_each_poll(count: int) -> None:
    """However many pages of 30 rows it has, also when a row has been added since the last poll."""
    there = count

    async def send(connection: Connection) -> None:
        offset = int(URL(connection.requests[-1].target).query.get("offset", "0"))
        # The newest row is first.
        await connection.send(json_answer(rows(0, there)[::-1][offset : offset + 30]))

    async with (
        RawServer(vbo_routes(sessions=send)) as raw,
        Client(Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")) as client,
    ):
        for there in (count, count, count + 1, count + 1):
            answer = await client.restore_sessions().answer()
            assert (len(answer.items), answer.complete) == (there, True)


@pytest.mark.parametrize("link", ["/v6/RestoreSessions?offset=1", 30, {"href": 30}, [{"href": "?offset=1"}]])
async def test_a_next_link_of_an_unknown_form_makes_the_answer_incomplete(link: object) -> None:
    """More rows exist than were read; a link that is null or empty says that there are none."""
    answer, _ = await read(lambda *_: {"results": rows(0, 1), "limit": 30, "_links": {"Next": link}})
    assert (len(answer.items), answer.complete) == (1, False)
    for none in (None, {}, {"href": None}, {"href": ""}):
        answer, _ = await read(lambda *_, none=none: {"results": rows(0, 1), "_links": {"next": none}})
        assert answer.complete


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
async def test_a_server_that_ignores_the_offset_is_not_queried_indefinitely(page: Any, version: str) -> None:
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
async def test_a_page_read_ahead_that_failed_raises_nothing_once_the_listing_is_left(
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
    assert listing.count == 5
    assert walk.next_url(URL(f"https://vbo1{PATH}"), listing, news=True) is None
    assert not walk.complete


@pytest.mark.parametrize("limit", ["", "many", "9" * 5000, "-1", "0"])
def test_an_invalid_limit_counts_as_none(limit: str) -> None:
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


BOUND = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_list_is_requested_in_large_pages(version: Any) -> None:
    """Whatever it lists; the default of the API would be 30."""
    async with (
        BackupServer(World(sessions=2), version=version) as backup,
        Client(server_of(backup)) as client,
    ):
        one = (await client.restore_sessions())[0]
        await one.events()
        organization = await one.fetch_organization()
        for contents in (organization.mailboxes(), organization.one_drives(), organization.sites()):
            await contents
        await client.organizations()
        await client.job_sessions()
        await client.query("Jobs")
        # The probe for a version has no token and gets no list.
        lists = [one for one in backup.requests if one.status == 200 and one.resource.lower().endswith("s")]
    assert len(lists) == 8
    for request in lists:
        assert "limit=1000" in request.query, request
