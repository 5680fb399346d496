"""Who can use the fleet's page: browsers that know it by its own name, and people without a mouse."""

import importlib
import json
import re
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from harness.devtools import PROGRAM, Page, chromium
from harness.readme import ROOT

from aiovbo import Finished, RestoreSession, RestoreSessionType, Server, Unreachable, UnreachableError

MINUTE = timedelta(minutes=1)
RESULTS = ("Success", "Warning", "Failed", "Odd", None)
KEYS = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "Home": 36}

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example as a module."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    yield importlib.import_module("fleet_page")
    for name in ("fleet_page", "_servers"):
        sys.modules.pop(name, None)


async def board_of(page: ModuleType) -> Any:
    """Two servers: one with a session of each colour, one that does not answer."""
    board = page.Board(["vbo1", "vbo2"])
    now = datetime.now(UTC)
    # Not in the order of time, as a server may list them.
    for number in (3, 0, 4, 1, 2):
        result = RESULTS[number]
        session = RestoreSession.from_dict(
            {
                "id": str(UUID(int=number)),
                "type": "Vex",
                "creationTime": (now - (60 - 10 * number) * MINUTE).isoformat(),
                "endTime": result and (now - (55 - 10 * number) * MINUTE).isoformat(),
                "state": "Stopped" if result else "Working",
                "result": result,
                "name": f"restore {number}",
                "initiatedBy": f"person{number}@tech.local",
                "details": f"details {number}",
            },
            server="vbo1",
        )
        board.hear(Finished(server="vbo1", id=str(number), session=session))
    error = UnreachableError("it refused the connection", server="vbo2", hint="Check the port.")
    board.hear(Unreachable(server="vbo2", id="down", error=error))
    return board


@asynccontextmanager
async def shown(page: ModuleType, folder: Path) -> AsyncGenerator[Page]:
    """The page in a browser, with all bars drawn."""
    board = await board_of(page)
    async with page.serving(board, "127.0.0.1", 0) as url, chromium(folder / "profile") as browser:
        await browser.size(1280, 800)
        await browser.open(url)
        await browser.until("document.querySelectorAll('.bar').length === 5")
        yield browser
        assert browser.complaints == []


async def press(browser: Page, key: str) -> None:
    """One key, down and up."""
    for kind in ("keyDown", "keyUp"):
        await browser.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=KEYS[key])


# ------------------------------------------------------------------------------------ names and origins


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:{port}", None, 200),
        ("localhost:{port}", "http://localhost:{port}", 200),
        ("LOCALHOST.:1", None, 200),
        ("[::1]:{port}", None, 200),
        ("fleet.tech.local", "https://fleet.tech.local", 200),
        ("other.example:{port}", None, 403),
        ("other.example:{port}", "http://other.example:{port}", 403),
        ("localhost.other.example", None, 403),
        ("fleet.tech.local.other.example", None, 403),
        ("localhost:{port}", "http://other.example", 403),
        ("localhost:{port}", "http://localhost:1", 403),
        ("127.0.0.1:{port}", "null", 403),
        ("127.0.0.1:{port}", "http://[", 403),
        ("", None, 403),
        ("localhost:port", None, 403),
    ],
)
async def test_only_its_own_names_and_origin_are_answered(
    page: ModuleType, host: str, origin: str | None, status: int
) -> None:
    """The page and the event stream alike; what is refused says nothing of the servers."""
    board = page.Board(["vbo1"])
    async with (
        page.serving(board, "127.0.0.1", 0, ["Fleet.Tech.local"]) as url,
        aiohttp.ClientSession() as http,
    ):
        port = url.strip("/").rpartition(":")[2]
        headers = {"Host": host.format(port=port)}
        if origin is not None:
            headers["Origin"] = origin.format(port=port)
        for path in ("", "events"):
            async with http.get(url + path, headers=headers) as answer:
                assert answer.status == status
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                if status != 200:  # the one that is not refused
                    assert "vbo1" not in await answer.text()


@needs_chromium
async def test_a_page_of_another_name_for_this_machine_reads_no_event(
    page: ModuleType, tmp_path: Path
) -> None:
    """A browser resolves it to 127.0.0.1, and lets its script read what comes from there."""
    board = await board_of(page)
    async with page.serving(board, "127.0.0.1", 0) as url, chromium(tmp_path / "profile") as browser:
        await browser.open(url.replace("127.0.0.1", "other.localhost"))
        await browser.until(
            "location.host.startsWith('other.localhost') && document.readyState === 'complete'"
        )
        assert "not allowed" in await browser.evaluate("document.body.textContent")
        found = await browser.evaluate(
            "fetch('/events').then(async one => [one.status, await one.text()], String)"
        )
        assert "vbo1" not in str(found)


# ------------------------------------------------------------------------------------------- keyboard


@needs_chromium
async def test_the_tab_key_reaches_every_bar_and_shows_its_details(page: ModuleType, tmp_path: Path) -> None:
    """In the order of time; arrows move between the bars of a server, and Escape hides the details."""
    details = "(one => one.hidden ? null : one.textContent)(document.getElementById('details'))"
    async with shown(page, tmp_path) as browser:
        await browser.evaluate("[...document.querySelectorAll('#spans button')].at(-1).focus()")
        for number in range(5):
            await press(browser, "Tab")
            text = await browser.evaluate(details)
            for part in (
                f"restore {number}",
                f"person{number}@tech.local",
                f"details {number}",
                "Microsoft Exchange",
            ):
                assert part in text
                assert part in await browser.evaluate("document.activeElement.getAttribute('aria-label')")
        await press(browser, "ArrowLeft")
        assert "restore 3" in await browser.evaluate(details)
        await press(browser, "Home")
        assert "restore 0" in await browser.evaluate(details)
        await press(browser, "Escape")
        assert await browser.evaluate(details) is None
        assert await browser.evaluate("document.activeElement.getAttribute('class')") == "bar success"


# ------------------------------------------------------------------------------- small, and for everyone


@needs_chromium
async def test_the_legend_has_an_entry_for_each_colour_on_the_narrowest_phone(
    page: ModuleType, tmp_path: Path
) -> None:
    """With how many there are, and inside of 320 pixels."""
    async with shown(page, tmp_path) as browser:
        await browser.size(320, 640, phone=True)
        await browser.until("innerWidth === 320")
        entries = await browser.evaluate(
            """[...document.querySelectorAll('#legend li')].map(one => {
                const { left, right, height } = one.getBoundingClientRect();
                return [one.textContent, left >= 0 && right <= 320 && height > 0];
            })"""
        )
        expected = ("running", "succeeded", "warnings", "failed", "other result", "no answer")
        assert entries == [[f"1{words}", True] for words in expected]
        assert await browser.evaluate("document.documentElement.scrollWidth") == 320


@needs_chromium
async def test_axe_finds_no_violation(page: ModuleType, tmp_path: Path) -> None:
    """In light on a desk and in dark on a phone, with the details of a bar shown."""
    async with shown(page, tmp_path) as browser:
        for scheme, width in (("light", 1280), ("dark", 320)):
            await browser.scheme(scheme)
            await browser.size(width, 800, phone=width < 500)
            await browser.evaluate("document.querySelector('.bar').focus()")
            assert await browser.violations() == [], (scheme, width)


# ---------------------------------------------------------------------------------------------- names


async def servers_of(page: ModuleType, *arguments: str) -> list[Server]:
    """The servers that the example would watch."""
    options = page.arguments("").parse_args(arguments)
    async with page.servers_of(options) as servers:
        return list(servers)


async def test_servers_have_the_names_that_they_were_given(
    page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before an address, or in an inventory; an address alone is its own name."""
    monkeypatch.setenv("VBO_PASSWORD", "secret")
    given = await servers_of(page, "athens=10.0.0.7", "https://vbo2.tech.local:4443/a=b", "vbo3.tech.local")
    assert [one.name for one in given] == ["athens", "vbo2.tech.local", "vbo3.tech.local"]
    assert str(given[0].url) == "https://10.0.0.7:4443"
    file = tmp_path / "fleet.toml"
    file.write_text(
        "[defaults]\ncredentials = { username = 'x', password = { env = 'VBO_PASSWORD' } }\n"
        "[servers]\nathens = { url = '10.0.0.7' }\n",
        encoding="utf-8",
    )
    (read,) = await servers_of(page, "--fleet", str(file))
    assert (read.name, read.url.host) == ("athens", "10.0.0.7")


def test_products_and_people_have_names(page: ModuleType) -> None:
    """Not the server's short codes, and no addresses where a name is enough."""
    assert page.KINDS.keys() == set(RestoreSessionType)
    assert page.name_of_user("TECH\\anna") == page.name_of_user("anna@tech.local") == "anna"
    assert page.name_of_user("@tech.local") == "@tech.local"
    (products,) = re.findall(r"const PRODUCTS = (\{.*\});", page.PAGE.read_text(encoding="utf-8"))
    assert json.loads(re.sub(r"(\w+):", r'"\1":', products)).keys() == set(page.KINDS.values())
