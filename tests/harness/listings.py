"""Servers that page as a test says, and what a client makes of them."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiovbo import Answer, Client, Password, RestoreSession, Server
from harness.documents import session
from harness.raw import Connection, RawServer, json_answer, vbo_routes

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
