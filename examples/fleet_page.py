"""A web page that shows a fleet live: one poll for all browsers, which receive it as server-sent events.

    pip install '.[testing]'
    python examples/fleet_page.py --port 8080

No browser has a queue, and a slow one delays no other: the last few hundred events are kept once for all
browsers, and each has a position among them. A browser whose position no longer exists, because it is new or
slow, was asleep, or because this program was restarted, starts over with a snapshot of everything.
"""

import asyncio
import base64
import hashlib
import json
import re
from argparse import Namespace
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import UUID

from _servers import arguments, run_until_ended, servers_of
from aiohttp import web
from yarl import URL

from aiovbo import (
    Added,
    Answer,
    Change,
    Changed,
    Finished,
    Fleet,
    Recovered,
    Removed,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionType,
    Unreachable,
)
from aiovbo.errors import printable

PAGE = Path(__file__).with_suffix(".html")
SPAN = timedelta(days=1)
"""How far back the page can show."""
MARGIN = 60_000
"""Milliseconds by which an answer may begin later than that."""
NEWS = 500
"""News that are kept; a browser that is further behind gets a snapshot."""
LATEST = 12
"""Changes that are listed below the timeline."""
SILENCE = 10.0
"""Seconds without news after which a browser hears that we are still here."""
PATIENCE = 30.0
"""Seconds in which a browser must take what it was sent."""

KINDS = {
    RestoreSessionType.VEX: "Exchange",
    RestoreSessionType.VEOD: "OneDrive",
    RestoreSessionType.VESP: "SharePoint",
    RestoreSessionType.VET: "Teams",
}
OUTCOMES = {
    RestoreSessionResult.SUCCESS: "success",
    RestoreSessionResult.WARNING: "warning",
    RestoreSessionResult.FAILED: "failed",
}
WORDS = {
    "success": "succeeded",
    "warning": "ended with warnings",
    "failed": "failed",
    "running": "is running",
    "other": "has ended",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Row = dict[str, Any]
"""What the page receives of a session, a server or a change: plain JSON."""


def milliseconds(moment: datetime) -> int:
    """A time as JavaScript counts it."""
    return round(moment.timestamp() * 1000)


def row_of(session: RestoreSession) -> Row:
    """What the page shows of a session; every text is a line, and short."""
    outcome = "running"
    if session.has_ended:
        # Before that, what it shows as its result is no outcome yet.
        outcome = "other" if session.result is None else OUTCOMES.get(session.result, "other")
    texts = {
        "kind": "" if session.type is None else KINDS.get(session.type, session.type.value),
        "who": session.initiated_by,
        "name": session.name,
        "organization": session.organization,
        "reason": session.reason,
        "details": session.details,
    }
    return {
        "server": session.server,
        "id": str(session.id),
        "outcome": outcome,
        "begin": milliseconds(session.creation_time),
        "end": None if session.end_time is None else milliseconds(session.end_time),
        **{name: printable(text or "", 120) for name, text in texts.items()},
    }


def name_of_user(account: str) -> str:
    r"""The name in `DOMAIN\name` or `name@domain`; the whole account is in the session's details."""
    return account.rpartition("\\")[2].partition("@")[0] or account


class Board:
    """What is known of a fleet, and what is new of it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._servers: dict[str, Row] = {name: {"name": name, "state": "waiting"} for name in names}
        self._sessions: dict[tuple[str, str], Row] = {}
        self._latest: list[Row] = []
        # A place is good in the process that gave it.
        self._era = token_hex(4)
        self._count = 0
        self._news: deque[bytes] = deque(maxlen=NEWS)
        self._snapshot: tuple[int, bytes] = (-1, b"")
        self._seen_to = 0.0
        self.bell = asyncio.Event()
        """Rings at the next news; then there is another."""
        self.is_closed = False
        """Whether there will be no news any more."""

    # -------------------------------------------------------------------------- what the poll reports

    def take(self, answer: Answer[RestoreSession]) -> None:
        """Store the answer of a server, and send the browsers what differs from the one before."""
        name = answer.server
        if answer.error is not None:
            if self._servers[name]["state"] != "down":
                self.hear(Unreachable(server=name, id="", error=answer.error))
            return
        state = self._servers[name]["state"]
        if state == "waiting":
            self._send(self._set_server(name, "up"))
        elif state == "down":
            self.hear(Recovered(server=name, id="", gap=timedelta()))
        for session in sorted(answer.items, key=lambda one: one.creation_time):
            before = self._sessions.get((name, str(session.id)))
            if before != row_of(session):
                kind = Finished if session.has_ended else Added if before is None else Changed
                self.hear(kind(server=name, id="", session=session))
        there = {str(session.id) for session in answer.items}
        # What ended a day ago is in no answer any more, and is not removed.
        horizon = milliseconds(datetime.now(UTC) - SPAN) + MARGIN
        for server, key in list(self._sessions) if answer.complete else ():
            if server == name and key not in there and self._sessions[server, key]["begin"] > horizon:
                self.hear(Removed(server=name, id="", session_id=UUID(key)))

    def hear(self, change: Change) -> None:
        """Store a change, and send it to the browsers."""
        match change:
            case Added(session=session) | Changed(session=session) | Finished(session=session):
                self._receive_session(change, row_of(session))
            case Removed(server=server, session_id=key):
                self._sessions.pop((server, str(key)), None)
                gone = {"server": server, "id": str(key)}
                self._send({"gone": gone}, self._entry(server, "other", "a session was removed"))
            case Unreachable(server=server, error=error):
                about = {"what": printable(error.what), "hint": printable(error.hint, 400)}
                entry = self._entry(server, "down", f"does not answer: {about['what']}")
                self._send(self._set_server(server, "down", **about), entry)
            case Recovered(server=server):
                self._send(self._set_server(server, "up"), self._entry(server, "up", "answers again"))
            case _:
                pass
        now = asyncio.get_running_loop().time()
        if now >= self._seen_to:
            self._seen_to = now + 1
            self._forget_old()

    def _receive_session(self, change: Change, row: Row) -> None:
        self._sessions[row["server"], row["id"]] = row
        has_ended = row["outcome"] != "running"
        if isinstance(change, Added) and has_ended:
            # Its end follows, and is worth an entry of its own.
            self._send({"session": row})
            return
        subject = row["name"] or f"{row['kind']} restore".strip()
        by = f" by {name_of_user(row['who'])}" if row["who"] else ""
        at = row["end"] if has_ended else row["begin"]
        entry = self._entry(row["server"], row["outcome"], f"{subject}{by} {WORDS[row['outcome']]}", at)
        self._send({"session": row}, entry)

    def _forget_old(self) -> None:
        """Discard what is out of sight."""
        horizon = milliseconds(datetime.now(UTC) - SPAN)
        old = [key for key, row in self._sessions.items() if row["end"] is not None and row["end"] < horizon]
        for key in old:
            del self._sessions[key]

    def _set_server(self, name: str, state: str, **about: str) -> Row:
        row = {"name": name, "state": state, "since": milliseconds(datetime.now(UTC)), **about}
        self._servers[name] = row
        return {"server": row}

    def _entry(self, server: str, outcome: str, text: str, at: int | None = None) -> Row:
        at = milliseconds(datetime.now(UTC)) if at is None else at
        entry: Row = {"server": server, "outcome": outcome, "text": text, "at": at}
        self._latest.append(entry)
        # By when it happened: at the start, servers report a whole day at once.
        self._latest.sort(key=lambda one: one["at"], reverse=True)
        del self._latest[LATEST:]
        return entry

    def _send(self, news: Row, entry: Row | None = None) -> None:
        if entry is not None and entry in self._latest:
            news["entry"] = entry
        self._count += 1
        self._news.append(self._event("change", news))
        self.bell.set()
        self.bell = asyncio.Event()

    def close(self) -> None:
        """Let every stream end."""
        self.is_closed = True
        self.bell.set()

    # ---------------------------------------------------------------------- what browsers receive

    def place(self, event_id: str) -> int | None:
        """Where a browser is that has last heard of this event; None: at no place of ours."""
        era, _, count = event_id.partition("-")
        if era != self._era or not re.fullmatch(r"[0-9]{1,15}", count):
            return None
        return int(count)

    def after(self, place: int | None) -> tuple[bytes, int]:
        """What a browser has to hear that is at a place, and its place after that."""
        if place is None or not self._count - len(self._news) <= place <= self._count:
            return self._everything(), self._count
        missed = self._count - place
        return b"".join(list(self._news)[len(self._news) - missed :]), self._count

    def _everything(self) -> bytes:
        # Many browsers come at once after a restart.
        count, event = self._snapshot
        if count != self._count:
            event = self._event(
                "snapshot",
                {
                    "span": SPAN // timedelta(milliseconds=1),
                    "servers": list(self._servers.values()),
                    "sessions": list(self._sessions.values()),
                    "latest": self._latest,
                },
            )
            self._snapshot = self._count, event
        return event

    def _event(self, kind: str, data: Row) -> bytes:
        return f"event: {kind}\nid: {self._era}-{self._count}\ndata: {json.dumps(data)}\n\n".encode()


# ----------------------------------------------------------------------------------------- the web


def now_event() -> bytes:
    """The event that shows a browser that the connection works, with the server's time."""
    return f"event: now\ndata: {milliseconds(datetime.now(UTC))}\n\n".encode()


def policy(page: str) -> str:
    """What the page may do: run its own script, use its own style, listen to us, and nothing else."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in re.findall(r"<(style|script)>(.*?)</\1>", page, re.DOTALL)
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def is_ours(request: web.Request, names: Collection[str]) -> bool:
    """Whether a request is for this program under a name of its own, and from no page of another origin.

    The owner of another name can let it resolve to this machine: a browser then lets the pages of that name
    read what is served here. The name in Host is still theirs, and it is never an address.
    """
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    try:
        named = URL(f"http://{host}").host or ""
        if not (named.rstrip(".") in names or is_address(named)):
            return False
        sender = None if origin is None else URL(origin)
        return sender is None or sender.origin() == URL(f"{sender.scheme}://{host}").origin()
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def application(board: Board, names: Collection[str]) -> web.Application:
    """The page, and the events that it listens to, for browsers that know it by one of these names."""
    page = PAGE.read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": policy(page),
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    @web.middleware
    async def refuse_others(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_ours(request, names):
            return await handler(request)
        text = "This name or origin is not allowed. Start the program with --name for a name of its own.\n"
        return web.Response(status=403, text=text, headers=headers)

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html", headers=headers)

    async def stream(request: web.Request) -> web.StreamResponse:
        plain = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers={**headers, **plain})
        await response.prepare(request)
        try:
            await send(board, response, board.place(request.headers.get("Last-Event-ID", "")))
        except TimeoutError:
            # It does not read: not even a polite end would reach it.
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            pass
        return response

    app = web.Application(middlewares=[refuse_others])
    app.router.add_get("/", show)
    app.router.add_get("/events", stream)
    return app


async def send(board: Board, response: web.StreamResponse, place: int | None) -> None:
    """Send one browser what it does not know, until there is nothing more to come."""
    events = b"retry: 2000\n\n" + now_event()
    while True:
        async with asyncio.timeout(PATIENCE):
            await response.write(events)
        while True:
            bell = board.bell
            events, place = board.after(place)
            if events or board.is_closed:
                break
            try:
                async with asyncio.timeout(SILENCE):
                    await bell.wait()
            except TimeoutError:
                events = now_event()
                break
        if board.is_closed:
            return


@asynccontextmanager
async def serving(board: Board, host: str, port: int, names: Collection[str] = ()) -> AsyncGenerator[str]:
    """The page's address; at the end of the block all streams end.

    - `names`: of this machine, under which browsers may ask for the page; `host` and addresses always may.
    """
    known = {"localhost", host.lower(), *(name.lower() for name in names)}
    runner = web.AppRunner(application(board, known), handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    finally:
        board.close()
        await runner.cleanup()


async def main(options: Namespace) -> None:
    """Poll, and serve what is known, until the program is ended."""
    every = timedelta(seconds=options.every)
    async with (
        servers_of(options) as servers,
        Fleet(servers, deadline=20) as fleet,
        fleet.poll(every=every) as poll,
    ):
        board = Board(fleet)
        async with serving(board, options.host, options.port, options.name) as address:
            print(address, flush=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(options.seconds):
                    async for answer in poll:
                        board.take(answer)


if __name__ == "__main__":
    parser = arguments("A web page that shows a fleet live.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve on (default: only this machine)"
    )
    parser.add_argument("--port", type=int, default=0, help="to serve on (default: a free one)")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        help="name of this machine under which browsers may open the page; repeatable",
    )
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two polls (default 10)")
    parser.add_argument("--seconds", type=float, help="how long to run (default: until it is interrupted)")
    run_until_ended(main(parser.parse_args()))
