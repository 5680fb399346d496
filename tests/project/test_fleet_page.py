"""The page that shows a fleet live: as a program, its events, and in a real browser."""

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from attrs import frozen
from harness.devtools import PROGRAM
from harness.readme import ROOT

from aiovbo import (
    Added,
    Finished,
    Recovered,
    Removed,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    Unreachable,
    UnreachableError,
)
from aiovbo.testing import BackupFleet, BackupServer

EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "fleet_page.html").read_text(encoding="utf-8")
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
MINUTE = timedelta(minutes=1)

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


# ------------------------------------------------------------------------------------------- helpers


@frozen
class Event:
    """One server-sent event."""

    kind: str
    id: str
    data: Any


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """What a browser would hear."""
    text = b""
    async for chunk in answer.content.iter_any():
        text += chunk
        while b"\n\n" in text:
            block, text = text.split(b"\n\n", 1)
            fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
            if "event" in fields:
                yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))


@asynccontextmanager
async def listening(url: str, last: str = "") -> AsyncIterator[AsyncIterator[Event]]:
    """A browser's stream of events, without those that only have the time."""
    headers = {"Last-Event-ID": last} if last else {}
    async with (
        aiohttp.ClientSession() as http,
        http.get(url + "events", headers=headers) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield (event async for event in events_of(answer) if event.kind != "now")


@asynccontextmanager
async def program(
    *arguments: str, password: str = "", ends: int | None = signal.SIGTERM
) -> AsyncIterator[str]:
    """The example as it is run; at the end it is interrupted, and must have nothing to complain about.

    - `ends`: the signal that interrupts it; None: it ends by itself.
    """
    with subprocess.Popen(  # noqa: ASYNC220  # begins at once, and is waited for in threads
        [sys.executable, "-W", "error", "examples/fleet_page.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "VBO_PASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            address = (await asyncio.to_thread(process.stdout.readline)).strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), process.stderr
            yield address
            if ends is not None:
                process.send_signal(ends)
            _, errors = await asyncio.to_thread(process.communicate, None, 30)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()


def named(fleet: BackupFleet) -> list[str]:
    """Arguments that name running servers, looked at often."""
    return [*fleet.urls, "--user", fleet.username, "--ca-file", fleet.ca_file, "--every", "0.2"]


def name_of(server: BackupServer) -> str:
    """What it is called on the page, where only its address is known."""
    return server.url.removeprefix("https://")


async def heard(events: AsyncIterator[Event], seconds: float = 15) -> Event:
    """The next event."""
    async with asyncio.timeout(seconds):
        return await anext(events)


async def state_of(events: AsyncIterator[Event], server: str, state: str) -> dict[str, Any]:
    """Wait until a server is said to be in a state."""
    while True:
        event = await heard(events)
        servers = event.data["servers"] if event.kind == "snapshot" else [event.data.get("server")]
        for one in servers:
            if one and (one["name"], one["state"]) == (server, state):
                return dict(one)


def session(server: str = "vbo1", number: int = 0, **fields: Any) -> RestoreSession:
    """One that has just ended."""
    now = datetime.now(UTC)
    ended: dict[str, Any] = {
        "creation_time": now - MINUTE,
        "end_time": now,
        "state": RestoreSessionState.STOPPED,
        "result": RestoreSessionResult.SUCCESS,
        "name": f"session {number}",
    }
    return RestoreSession(server=server, id=uuid4(), **{**ended, **fields})


def finished(number: int = 0, **fields: Any) -> Finished:
    """That a session has ended."""
    return Finished(server="vbo1", id=str(number), session=session("vbo1", number, **fields))


# -------------------------------------------------------------------------------------- what is served


async def test_the_page_may_do_nothing_but_what_it_is_for(page: ModuleType) -> None:
    """Its policy names its own script and style by their hashes, and no other source."""
    async with (
        page.serving(page.Board(["vbo1"]), "127.0.0.1", 0) as url,
        aiohttp.ClientSession() as http,
        http.get(url) as answer,
    ):
        text = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
    assert text == PAGE
    for tag in ("script", "style"):
        (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_outside_resource_and_parses_nothing() -> None:
    """No address but that of SVG itself, no style attribute, and no way from text to markup."""
    assert set(re.findall(r"https?://[^\s\"']+", PAGE)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|DOMParser", PAGE)
    assert not re.search(r"<[^>]+ (style|on\w+)=", PAGE)


async def test_a_browser_gets_a_snapshot_and_then_each_change() -> None:
    """Also one that comes late: it knows at once what the first has heard step by step."""
    async with BackupFleet(2, sessions=0) as fleet:
        world = fleet[0].world
        async with (
            program(*named(fleet), password=fleet.password) as url,
            listening(url) as events,
        ):
            first = await heard(events)
            assert first.kind == "snapshot"
            assert {one["name"] for one in first.data["servers"]} == {name_of(one) for one in fleet}
            waiting = {one["name"] for one in first.data["servers"] if one["state"] != "up"}
            while waiting:
                # Both before anything happens: each reports its state by an event of its own.
                server = (await heard(events)).data.get("server") or {}
                if server.get("state") == "up":
                    waiting.discard(server["name"])
            added = world.add(type="Vex", end_time=None, initiated_by="TECH\\anna", name=HOSTILE)
            event = await heard(events)
            while "session" not in event.data:
                event = await heard(events)
            shown = event.data["session"]
            assert (shown["id"], shown["outcome"], shown["end"]) == (str(added.id), "running", None)
            assert (shown["who"], shown["kind"], shown["server"]) == (
                "TECH\\anna",
                "Exchange",
                name_of(fleet[0]),
            )
            world.change(added.id, state="Stopped", result="Failed", end_time=world.now)
            ended = await heard(events)
            assert ended.data["session"]["outcome"] == "failed"
            assert "failed" in ended.data["entry"]["text"]
            async with listening(url) as late:
                snapshot = await heard(late)
            assert (snapshot.kind, snapshot.id) == ("snapshot", ended.id)
            assert snapshot.data["sessions"] == [ended.data["session"]]
            assert snapshot.data["latest"][0] == ended.data["entry"]


async def test_many_browsers_are_one_watch() -> None:
    """Servers are not asked more often for them."""
    async with BackupFleet(1, versions=["v7"]) as fleet, asyncio.TaskGroup() as group:
        async with program(*named(fleet), password=fleet.password) as url:
            async with listening(url) as events:
                await state_of(events, name_of(fleet[0]), "up")

            async def browse() -> None:
                async with listening(url) as one:
                    assert (await heard(one)).kind == "snapshot"

            browsers = [group.create_task(browse()) for _ in range(20)]
            await asyncio.gather(*browsers)
            async with listening(url) as events:
                fleet[0].world.add(end_time=None)
                await heard(events)
                await heard(events)
        assert fleet[0].logins == 1


async def test_an_unreachable_server_is_shown_with_its_hint_and_its_return_too() -> None:
    """Each once."""
    async with (
        BackupFleet(2, sessions=3) as fleet,
        program(*named(fleet), password=fleet.password) as url,
        listening(url) as events,
    ):
        name = name_of(fleet[1])
        await state_of(events, name, "up")
        await fleet[1].stop()
        down = await state_of(events, name, "down")
        assert down["what"]
        assert down["hint"]
        await fleet[1].start()
        await state_of(events, name, "up")


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
async def test_it_ends_politely_and_so_do_the_streams(ends: signal.Signals) -> None:
    """With embedded servers, and a browser that still listens: it hears the end."""
    async with aiohttp.ClientSession() as http:
        async with program(ends=ends) as url:
            answer = await http.get(url + "events")
            events = events_of(answer)
            assert (await heard(events)).kind == "now"
            snapshot = await heard(events)
            assert [one["name"] for one in snapshot.data["servers"]] == ["vbo1", "vbo2", "vbo3"]
            listener = asyncio.create_task(drain(events))
        async with asyncio.timeout(20):
            await listener
        answer.close()


async def drain(events: AsyncIterator[Event]) -> None:
    """Listen until the end."""
    async for _ in events:
        pass


async def test_it_ends_by_itself_after_the_seconds_given() -> None:
    """Status 0, and nothing to complain about."""
    async with program("--seconds", "0.5", ends=None) as url:
        assert url


# ------------------------------------------------------------------------------------ places and news


async def test_who_comes_back_hears_what_it_has_missed(page: ModuleType) -> None:
    """From where it was, and no snapshot again."""
    board = page.Board(["vbo1"])
    async with page.serving(board, "127.0.0.1", 0) as url:
        async with listening(url) as events:
            snapshot = await heard(events)
            board.hear(finished(1))
            assert (await heard(events)).data["session"]["name"] == "session 1"
        for number in (2, 3):
            board.hear(finished(number))
        async with listening(url, snapshot.id) as events:
            missed = [(await heard(events)).data["session"]["name"] for _ in range(3)]
        assert missed == ["session 1", "session 2", "session 3"]


@pytest.mark.parametrize("last", ["00000000-1", "nonsense", "-", "🦄", "{era}-99999", "{era}--1", "{era}-²"])
async def test_a_place_that_is_not_ours_leads_to_a_snapshot(page: ModuleType, last: str) -> None:
    """Of another process, of the future, or nonsense."""
    board = page.Board(["vbo1"])
    board.hear(finished())
    async with page.serving(board, "127.0.0.1", 0) as url:
        async with listening(url) as events:
            era = (await heard(events)).id.partition("-")[0]
        async with listening(url, last.format(era=era)) as events:
            assert (await heard(events)).kind == "snapshot"


async def test_who_is_too_far_behind_gets_a_snapshot(page: ModuleType) -> None:
    """The news are kept for a while only."""
    board = page.Board(["vbo1"])
    async with page.serving(board, "127.0.0.1", 0) as url:
        async with listening(url) as events:
            early = (await heard(events)).id
        for number in range(page.NEWS + 1):
            board.hear(finished(number))
        async with listening(url, early) as events:
            snapshot = await heard(events)
        assert snapshot.kind == "snapshot"
        assert len(snapshot.data["sessions"]) == page.NEWS + 1


@pytest.fixture
def sleeper(page: ModuleType) -> Iterator[tuple[Any, socket.socket]]:
    """A board, and a browser's socket with little room, not connected yet."""
    with socket.socket() as asleep:
        asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        asleep.settimeout(0)
        yield page.Board(["vbo1"]), asleep


async def fall_asleep(asleep: socket.socket, url: str) -> None:
    """Ask for the events, and read none."""
    loop = asyncio.get_running_loop()
    host, port = url.removeprefix("http://").strip("/").split(":")
    await loop.sock_connect(asleep, (host, int(port)))
    await loop.sock_sendall(asleep, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")


async def flood(board: Any) -> AsyncIterator[int]:
    """News of over 6 MB in portions: more than a system keeps for a connection that is not read."""
    fields = ("name", "initiated_by", "organization", "reason", "details")
    texts = {field: field[0] * 120 for field in fields}
    for number in range(5_000):
        change = finished(number, **texts)
        board.hear(change)
        board.hear(Removed(server="vbo1", id="", session_id=change.session.id))
        if number % 100 == 99:
            await asyncio.sleep(0.001)
            yield number


async def test_a_slow_browser_delays_no_other_and_starts_over(
    page: ModuleType, sleeper: tuple[Any, socket.socket]
) -> None:
    """Others hear everything meanwhile; what is kept for it is bounded; awake, it is up to date."""
    board, asleep = sleeper
    loop = asyncio.get_running_loop()
    async with page.serving(board, "127.0.0.1", 0) as url, listening(url) as quick:
        await fall_asleep(asleep, url)
        await heard(quick)
        sent = 0
        async for number in flood(board):
            while sent < 2 * (number + 1):
                event = await heard(quick, 2)
                assert event.kind == "change"
                sent += 1
        board.hear(finished(name="the last word"))
        assert len(board._news) == page.NEWS
        received = b""
        async with asyncio.timeout(20):
            while b"the last word" not in received[-10_000:]:
                received += await loop.sock_recv(asleep, 10_000)
        assert received.count(b"event: snapshot") == 2
        # It was spared what it could not take.
        assert 1000 < received.count(b"event: change") < sent - 1000


async def test_a_browser_that_never_reads_is_given_up(
    page: ModuleType, sleeper: tuple[Any, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while its connection is cut in the middle, although the browser would never have ended it."""
    monkeypatch.setattr(page, "PATIENCE", 0.5)
    board, asleep = sleeper
    loop = asyncio.get_running_loop()
    async with page.serving(board, "127.0.0.1", 0) as url:
        await fall_asleep(asleep, url)
        async for _ in flood(board):
            pass
        await asyncio.sleep(1)
        board.hear(finished(name="the last word"))
        received = b""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(20):
                while chunk := await loop.sock_recv(asleep, 1_000_000):
                    received += chunk
        assert b"the last word" not in received
        assert not received.endswith(b"0\r\n\r\n")


async def test_browsers_that_read_nothing_do_not_hold_up_the_end(
    page: ModuleType, sleeper: tuple[Any, socket.socket]
) -> None:
    """A second or two for goodbyes, and no more."""
    board, asleep = sleeper
    loop = asyncio.get_running_loop()
    async with page.serving(board, "127.0.0.1", 0) as url:
        await fall_asleep(asleep, url)
        async for _ in flood(board):
            pass
        began = loop.time()
    assert loop.time() - began < 5


async def test_a_silent_fleet_is_distinguished_from_a_dead_program(
    page: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then a browser hears what time it is, without a place of its own."""
    monkeypatch.setattr(page, "SILENCE", 0.05)
    async with (
        page.serving(page.Board(["vbo1"]), "127.0.0.1", 0) as url,
        aiohttp.ClientSession() as http,
        http.get(url + "events") as answer,
    ):
        events = events_of(answer)
        kinds = [(await heard(events)) for _ in range(4)]
    assert [event.kind for event in kinds] == ["now", "snapshot", "now", "now"]
    assert kinds[-1].id == ""
    assert abs(kinds[-1].data / 1000 - datetime.now(UTC).timestamp()) < 5


async def test_what_ended_a_day_ago_is_forgotten(page: ModuleType) -> None:
    """Memory follows the window, not the life of the program."""
    board = page.Board(["vbo1"])
    long_ago = datetime.now(UTC) - page.SPAN - MINUTE
    old = session(creation_time=long_ago - MINUTE, end_time=long_ago)
    running = session(creation_time=long_ago, end_time=None, state=RestoreSessionState.WORKING)
    board.hear(Added(server="vbo1", id="1", session=old))
    board.hear(Added(server="vbo1", id="2", session=running))
    board._seen_to = 0
    board.hear(finished())
    names = {row["id"] for row in board._sessions.values()}
    assert str(old.id) not in names
    assert str(running.id) in names
    assert len(board._sessions) == 2


async def test_texts_of_servers_are_short_lines_before_they_are_sent(page: ModuleType) -> None:
    """No line break can end an event early, no control character gets through, nothing is long."""
    board = page.Board(["vbo1"])
    text = "a\r\n\r\nevent: snapshot\ndata: {}\n\n\x1b[31m\u202e" + "x" * 1000
    board.hear(finished(name=text, initiated_by=text, organization=text, reason=text, details=text))
    error = UnreachableError(text, server="vbo1", hint=text)
    board.hear(Unreachable(server="vbo1", id="1", error=error))
    board.hear(Recovered(server="vbo1", id="2", gap=MINUTE))
    events, _ = board.after(0)
    assert events.count(b"\n\n") == 3
    assert b"\\n" not in events
    assert b"\\u001b" not in events
    assert b"\\u202e" not in events
    assert len(events) < 6000
