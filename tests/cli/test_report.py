"""The command `report`: every item in both files, what is missing, and a page that is safe and accessible."""

import asyncio
import csv
import importlib.util
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from harness import closed_port
from harness.devtools import PROGRAM, chromium

from aiovbo._cli._app import main
from aiovbo.testing import BackupServer, Fault

EVENTS = "RestoreSessions/*/Events"
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")


class Page(HTMLParser):
    """What a browser makes of a page: tags, attributes, text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag and its attributes."""
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data


class Report:
    """Runs the command, and reads what it wrote."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.html, self.csv = folder / "audit.html", folder / "audit.csv"
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *arguments: str, status: int = 0) -> tuple[list[dict[str, str]], Page]:
        """The rows of the table, and the page."""
        assert main(["report", "--html", str(self.html), "--csv", str(self.csv), *arguments]) == status
        self.out, self.err = self._capsys.readouterr()
        with self.csv.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
        return rows, Page(self.html.read_text(encoding="utf-8"))


@pytest.fixture
def report(inventory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Report:
    """Of the three servers of the inventory."""
    assert inventory.exists()
    return Report(tmp_path, capsys)


def test_every_item_is_in_both_files(report: Report, servers: list[BackupServer]) -> None:
    """With who, of which organization (also on v4), from where to where, why, and the result."""
    rows, page = report.run()
    items = [row for row in rows if row["itemName"]]
    sessions = {str(one.id): one for server in servers for one in server.world.sessions}
    assert {row["sessionId"] for row in items} == set(sessions)
    assert len(items) == len(rows) - 1
    assert page.tags.count("article") == 15
    assert page.tags.count("tr") == len(items) + 15 + 1 + 3
    for row in items:
        session = sessions[row["sessionId"]]
        assert (row["organization"], row["initiatedBy"]) == (session.organization, session.initiated_by)
        assert row["source"]
        assert row["target"]
        assert row["status"]
        assert row["sessionId"] in page.text
    assert f"15 restore sessions with {len(items)} items, from 3 of 3 servers\n" in report.out
    assert "All servers answered completely." not in page.text
    (gap,) = [row["gap"] for row in rows if row["gap"]]
    assert gap == "What servers of old versions do not report: vbo0: from which host, why, in 5 sessions."


def test_where_all_answered_completely_the_page_says_so(report: Report) -> None:
    """No gap in either file."""
    rows, page = report.run("--server", "vbo2")
    assert not any(row["gap"] for row in rows)
    assert "All servers answered completely." in page.text
    assert report.err == ""


def test_servers_that_could_not_be_queried_are_listed(
    report: Report, inventory: Path, servers: list[BackupServer]
) -> None:
    """In both files, with the others complete; so are rejected rows and sessions without their items."""

    def without_id(listing: dict[str, Any]) -> dict[str, Any]:
        listing["results"][0]["id"] = "none"
        return listing

    servers[1].fail(Fault.edit(without_id), on="RestoreSessions")
    servers[2].fail(Fault.status(403), on=EVENTS)
    with closed_port() as port, inventory.open("a", encoding="utf-8") as file:
        file.write(f"\nvbo9 = {{ url = 'https://127.0.0.1:{port}' }}\n")
        file.flush()
        rows, page = report.run("--retries", "0", status=3)
    gaps = {row["server"]: row["gap"] for row in rows if row["gap"]}
    assert gaps["vbo9"].startswith("Servers that could not be queried: vbo9: ")
    assert "refused" in gaps["vbo9"]
    assert gaps["vbo1"].startswith("Incomplete answers: vbo1: not listed, because $.id is invalid")
    assert "403" in gaps["vbo2"]
    assert all(gap.partition(": ")[2] in page.text for gap in gaps.values())
    assert page.text.count("The items could not be fetched.") == 1
    assert "from 2 of 4 servers" in report.out
    assert "vbo9" in report.err
    assert {row["server"] for row in rows if row["itemName"]} == {"vbo0", "vbo1", "vbo2"}


def test_all_servers_failing_is_a_report_too(report: Report, servers: list[BackupServer]) -> None:
    """It says so, with exit status 4."""
    for server in servers:
        server.fail(Fault.status(403), on="RestoreSessions", times=None)
    rows, page = report.run(status=4)
    assert {row["server"] for row in rows} == {"vbo0", "vbo1", "vbo2"}
    assert all(row["gap"] for row in rows)
    assert page.text.count("not queried") == 3
    assert "No restore session was selected." in page.text


def test_filters_select_and_the_page_states_them(report: Report, servers: list[BackupServer]) -> None:
    """--result finds sessions with it, and sessions with an item that has it; --item its items only."""
    every, _ = report.run()
    items = [row for row in every if row["itemName"]]
    rows, page = report.run("--result", "failed", "--label", "site=b")
    failed = {row["sessionId"] for row in items if "Failed" in (row["status"], row["sessionResult"])}
    assert {row["sessionId"] for row in rows} == {
        row["sessionId"] for row in items if row["server"] == "vbo1" and row["sessionId"] in failed
    }
    assert "Selected: result failed." in page.text
    rows, page = report.run("--item", "item 5")
    assert [row for row in rows if not row["gap"]] == [row for row in items if row["itemName"] == "Item 5"]
    servers[0].world.change(servers[0].world.sessions[1].id, initiated_by="TECH\\zoe")
    rows, page = report.run("--by", "zoe")
    assert page.tags.count("article") == 1


def test_a_session_that_has_not_ended_has_no_result(report: Report, servers: list[BackupServer]) -> None:
    """Whatever the server says."""
    began = servers[2].world.now - timedelta(minutes=5)
    key = str(servers[2].world.add(creation_time=began, end_time=None, state="Working", result="Success").id)
    rows, page = report.run("--server", "vbo2", "--since", "30m")
    assert {row["sessionResult"] for row in rows if row["sessionId"] == key} == {""}
    assert "Not ended" in page.text


def test_no_text_of_a_server_takes_effect(report: Report, servers: list[BackupServer]) -> None:
    """What would be a formula, markup, or turn text around is plain text in both files."""
    formulas = ["=1+1", "+1", "-1", "@SUM(1)", "\t=2", "\r=3", "\x1b=4", " =5", "\u202e=6", "\uff1d7"]
    world = servers[2].world
    began = world.now - timedelta(minutes=50)
    for formula in formulas:
        world.add(
            creation_time=began,
            end_time=began,
            reason=formula,
            initiated_by="<script>alert(1)</script>",
            result="x\" onclick='y'",
        )
    world.add(creation_time=began, end_time=began, reason="paid \u202efdp.exe", client_host="<b>&amp;</b>")

    def marked_up(listing: dict[str, Any]) -> dict[str, Any]:
        listing["results"][-1] |= {"itemName": "<img src=x>", "target": "=cmd()", "status": '"<i>'}
        return listing

    servers[2].fail(Fault.edit(marked_up), on=EVENTS, times=None)
    rows, page = report.run("--server", "vbo2")
    visible = ["".join(char for char in formula if char.isprintable()).strip() for formula in formulas]
    assert {row["reason"] for row in rows} >= {f"'{formula}" for formula in visible}
    cells = [cell for row in rows for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\uff1d")) or not cell.isprintable()]
    assert not {"script", "b", "i", "img", "link"} & set(page.tags)
    assert not {"onclick", "src", "href"} & set(page.attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "<img src=x>" in page.text
    assert "paid  fdp.exe" in page.text
    assert "<b>&amp;</b>" in page.text
    assert str(page.attributes["content"]).startswith("default-src 'none'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --html FILE, --csv FILE, or both"),
        (["--csv", "nowhere/audit.csv"], "there is no folder"),
        (["--html", "a.html", "--result", "faild"], "did you mean Failed?"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_sent(
    arguments: list[str],
    said: str,
    inventory: Path,
    servers: list[BackupServer],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit status 2."""
    assert inventory.exists()
    assert main(["report", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not any(server.requests for server in servers)


@needs_chromium
def test_axe_finds_no_violation_and_nothing_is_wider_than_the_screen(
    report: Report, servers: list[BackupServer], tmp_path: Path
) -> None:
    """On a desk in light, on a phone in dark; with gaps, failed items, and long words."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core-python is not installed")
    axe = Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    servers[0].fail(Fault.status(403), on="RestoreSessions", times=None)
    key = servers[2].world.sessions[0].id
    servers[2].world.change(key, reason="long " * 30 + "w" * 300, initiated_by="u" * 90)
    report.run("--since", "90m", status=3)
    asyncio.run(_inspect(report.html, axe, tmp_path / "profile"))


async def _inspect(file: Path, axe: str, profile: Path) -> None:
    async with chromium(profile) as browser:
        await browser.open(file.as_uri())
        await browser.until("document.readyState === 'complete'")
        await browser.evaluate(f"{axe}; 0")
        for scheme, width in (("light", 1280), ("dark", 390)):
            await browser.scheme(scheme)
            await browser.size(width, 800, phone=width < 500)
            await browser.until(f"innerWidth === {width}")
            assert await browser.evaluate("document.documentElement.scrollWidth") == width
            violations = await browser.evaluate(
                "axe.run().then(found => found.violations.map(one => [one.id, one.nodes[0].html]))"
            )
            assert violations == [], (scheme, width)
        await browser.size(320, 800, phone=True)
        await browser.until("innerWidth === 320")
        assert await browser.evaluate("document.documentElement.scrollWidth") == 320
        assert browser.complaints == []
