"""The page that shows a fleet live, in a real browser."""

import re
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest
from harness.devtools import Page, chromium
from test_fleet_page import HOSTILE, finished, name_of, named, needs_chromium, program

from aiovbo import (
    Unreachable,
    UnreachableError,
)
from aiovbo.testing import BackupFleet, BackupServer, Fault, World


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Where the browser keeps what it keeps."""
    return tmp_path / "profile"


def with_a_hostile_session(number: int) -> World:
    """A few sessions, one of which bites."""
    world = World(f"page {number}", sessions=30, span=timedelta(hours=20))
    world.add(name=HOSTILE, initiated_by=HOSTILE, organization=HOSTILE, end_time=None)
    return world


async def shows_all(browser: Page, fleet: BackupFleet) -> None:
    """Wait until each server and each of its sessions is drawn, once."""
    names = [name_of(one) for one in fleet]
    await browser.until("document.querySelectorAll('.row.up').length === " + str(len(names)))
    shown = await browser.evaluate("[...document.querySelectorAll('.name')].map(one => one.textContent)")
    assert shown == names
    for number, server in enumerate(fleet, start=1):
        now = server.world.now
        recent = [one for one in server.world.sessions if (one.end_time or now) > now - timedelta(hours=24)]
        bars = f"document.querySelectorAll('#servers li:nth-child({number}) .bar').length"
        await browser.until(f"{bars} === {len(recent)}")


@needs_chromium
async def test_a_browser_shows_each_server_and_each_session(profile: Path) -> None:
    """And what comes, ends and vanishes while it looks; nothing in its console."""
    worlds = [with_a_hostile_session(number) for number in range(3)]
    servers = [BackupServer(world, version="v8") for world in worlds]
    async with (
        BackupFleet(servers) as fleet,
        program(*named(fleet), password=fleet.password) as url,
        chromium(profile) as browser,
    ):
        await browser.size(1280, 800)
        await browser.open(url)
        await shows_all(browser, fleet)
        assert await browser.evaluate("document.getElementById('link').textContent") == "live"
        added = worlds[0].add(end_time=None, initiated_by="TECH\\new.comer", creation_time=worlds[0].now)
        await shows_all(browser, fleet)
        failed = "document.querySelectorAll('#servers li:first-child .bar.failed').length"
        before = await browser.evaluate(failed)
        worlds[0].change(added.id, state="Stopped", result="Failed", end_time=worlds[0].now)
        await browser.until(f"{failed} === {before + 1}")
        await browser.until("document.getElementById('latest').textContent.includes('new.comer failed')")
        worlds[0].remove(added.id)
        await browser.until(f"{failed} === {before}")
        assert browser.complaints == []


@needs_chromium
async def test_what_runs_and_what_went_wrong_is_labelled_however_crowded_it_is(profile: Path) -> None:
    """Before the many that went well; and no label stands on a bar that is not its own."""
    world = World("crowded", sessions=0)
    for number in range(1, 46):
        began = world.now - number * timedelta(minutes=30)
        result = {20: "Failed", 21: "Failed", 40: "Warning"}.get(number, "Success")
        who = f"TECH\\{result.lower()}{number}"
        world.add(
            creation_time=began, end_time=began + timedelta(minutes=20), result=result, initiated_by=who
        )
    world.add(creation_time=world.now - timedelta(minutes=8), end_time=None, initiated_by="TECH\\running")
    async with (
        BackupFleet([BackupServer(world)]) as fleet,
        program(*named(fleet), password=fleet.password) as url,
        chromium(profile) as browser,
    ):
        await browser.size(1280, 800)
        await browser.open(url)
        await shows_all(browser, fleet)
        texts = await browser.evaluate(
            "[...document.querySelectorAll('.bar:not(.success) text')].map(one => one.textContent)"
        )
        who = sorted(text.split(" ")[0] for text in texts)
        assert who == ["failed20", "failed21", "running", "warning40"]
        covered = await browser.evaluate(
            """[...document.querySelectorAll('.bar text')].filter(one => one.textContent).flatMap(text => {
                const label = text.getBoundingClientRect();
                return [...document.querySelectorAll('.bar .fill')].filter(fill => {
                    const bar = fill.getBoundingClientRect();
                    const apart = bar.y + bar.height / 2 - label.y - label.height / 2;
                    return fill.parentNode !== text.parentNode && Math.abs(apart) < 8
                        && bar.left < label.right - 1 && bar.right > label.left + 1;
                }).map(() => text.textContent);
            })"""
        )
        assert covered == []
        assert browser.complaints == []


@needs_chromium
async def test_a_hostile_name_stays_text(profile: Path) -> None:
    """In the list, beside the bars and in the details; neither an image nor a script comes of it."""
    async with (
        BackupFleet([BackupServer(with_a_hostile_session(1))]) as fleet,
        program(*named(fleet), password=fleet.password) as url,
        chromium(profile) as browser,
    ):
        await browser.size(1280, 800)
        await browser.open(url)
        await shows_all(browser, fleet)
        await browser.until("document.getElementById('latest').textContent.includes('<img src=x')")
        details = await browser.evaluate(
            """[...document.querySelectorAll('.bar.running .hit')].map(bar => {
                bar.dispatchEvent(new MouseEvent('click', {bubbles: true}));
                return document.getElementById('details').textContent;
            }).join()"""
        )
        assert HOSTILE in details
        assert (
            await browser.evaluate("document.querySelectorAll('img, script:not(body > script)').length") == 0
        )
        assert "broken" not in await browser.evaluate("document.title")
        assert browser.complaints == []


@needs_chromium
async def test_a_server_that_does_not_answer_is_marked_and_its_hint_shown(profile: Path) -> None:
    """In its row, in the headline and in a list; and no longer once it answers."""
    async with BackupFleet(2) as fleet:
        fleet[1].fail(Fault.status(403), on="RestoreSessions", times=None)
        async with program(*named(fleet), password=fleet.password) as url, chromium(profile) as browser:
            await browser.open(url)
            await browser.until("document.querySelectorAll('.row.down').length === 1")
            row = await browser.evaluate("document.querySelector('.row.down').textContent")
            assert name_of(fleet[1]) in row
            assert "no answer since" in row
            assert "1 of 2 servers" in await browser.evaluate("document.body.textContent")
            failing = await browser.evaluate("document.getElementById('failing').textContent")
            assert "403" in failing
            assert "rights" in failing
            await fleet[1].stop()
            fresh = BackupServer(port=fleet[1].port, authority=fleet[1].authority)
            async with fresh:
                await browser.until("document.querySelectorAll('.row.down').length === 0", 30)
            assert browser.complaints == []


@needs_chromium
async def test_a_browser_finds_its_way_back(page: ModuleType, profile: Path) -> None:
    """To another process on the same port: it says that the connection is lost, and then knows all anew."""
    async with chromium(profile) as browser:
        board = page.Board(["old"])
        async with page.serving(board, "127.0.0.1", 0) as url:
            await browser.open(url)
            await browser.until("document.querySelector('.name')?.textContent.startsWith('old')")
        await browser.until("document.getElementById('link').textContent.includes('lost')")
        port = int(url.strip("/").rpartition(":")[2])
        async with page.serving(page.Board(["new"]), "127.0.0.1", port):
            await browser.until("document.querySelector('.name')?.textContent.startsWith('new')")
            assert await browser.evaluate("document.querySelectorAll('.name').length") == 1
            assert await browser.evaluate("document.getElementById('link').textContent") == "live"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_page_fits_phones_and_desks(
    page: ModuleType, profile: Path, width: int, scheme: str
) -> None:
    """Nothing sticks out to the side, however long a word is; dark is dark, and light is light."""
    board = page.Board(["vbo1", "a-name-without-any-blank-" * 4])
    board.hear(finished(name="x" * 200, initiated_by="y" * 200))
    error = UnreachableError("z" * 200, server="vbo1", hint="w" * 300)
    board.hear(Unreachable(server="vbo1", id="1", error=error))
    async with page.serving(board, "127.0.0.1", 0) as url, chromium(profile) as browser:
        await browser.size(width, 844, phone=width < 500)
        await browser.scheme(scheme)
        await browser.open(url)
        await browser.until("document.querySelectorAll('.bar').length === 1")
        assert await browser.evaluate("document.documentElement.scrollWidth") == width
        colour = await browser.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
        assert (brightness > 200) == (scheme == "light")
        assert browser.complaints == []
