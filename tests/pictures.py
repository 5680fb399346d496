"""Draws the pictures of README and docs, of embedded servers, into docs/pictures; `nox -s pictures` runs it.

Chromium, where it is installed, draws the report and the live page; without it, these two stay as they are.
"""

import asyncio
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.devtools import PROGRAM, chromium
from harness.readme import ROOT
from rich.console import Console
from rich.text import Text

from aiovbo.testing import BackupFleet

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 108
AUDITED = ("--since", "yesterday", "--until", "today")
"""As the page of the pictures prints it."""


@contextmanager
def inventory() -> Iterator[Path]:
    """An inventory of five servers that run as long as the block, some with a restore that failed."""
    with BackupFleet(5, seed=3).run_in_thread() as servers, TemporaryDirectory() as folder:
        for backup in (servers[1], servers[3]):
            now = backup.world.now
            # One in the last hours, and one yesterday, for the report.
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            for began in (now - timedelta(hours=3), midnight - timedelta(hours=2)):
                end = began + timedelta(minutes=35)
                backup.world.add(creation_time=began, end_time=end, state="Stopped", result="Failed")
        os.environ["VBO_PICTURES_PASSWORD"] = servers.password
        login = f"{{ username = '{servers.username}', password.env = 'VBO_PICTURES_PASSWORD' }}"
        lines = [f"defaults.credentials = {login}", f"defaults.tls.ca_file = '{servers.ca_file}'"]
        lines += [f"servers.vbo{number}.url = '{url}'" for number, url in enumerate(servers.urls, start=1)]
        file = Path(folder, "fleet.toml")
        file.write_text("\n".join(lines), encoding="utf-8")
        yield file


def command(*words: str) -> list[str]:
    """How to run `aiovbo` with this Python."""
    return [sys.executable, "-m", "aiovbo", *words, "--no-token-store", "--utc"]


def in_a_terminal(words: list[str]) -> str:
    """What a command writes to a terminal, with its colours."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = bytearray()
        with suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 65_536):
                written += part
        os.close(ours)
        process.wait()
    return written.decode().replace("\r\n", "\n")


def draw_table(file: Path) -> None:
    """The table of `aiovbo sessions`, as text that an SVG contains."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    written = in_a_terminal(command("sessions", "--fleet", str(file), "--since", "24h"))
    # What follows the last erasure of the line of progress.
    table = re.sub(r"\x1b\[\??[0-9;]*[A-LN-Za-ln-z]", "", written).rpartition("\r")[2] or written
    console.print(Text.from_ansi(f"$ aiovbo sessions\n{table.strip()}"))
    svg = console.export_svg(title="", unique_id="table")
    # The fonts of the web are not needed, and would be a request to another host.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL).replace(
        "Fira Code, monospace", "monospace"
    )
    (PICTURES / "sessions.svg").write_text(svg + "\n", encoding="utf-8")


async def draw_pages(file: Path, folder: Path) -> None:
    """The report and the live page."""
    report = folder / "audit.html"
    subprocess.run(  # noqa: ASYNC221  # nothing else runs
        command("report", "--fleet", str(file), *AUDITED, "--html", str(report)), check=True
    )
    example = [sys.executable, "examples/fleet_page.py", "--fleet", str(file), "--every", "1"]
    with subprocess.Popen(example, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220  # the same
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        async with chromium(folder / "profile") as browser:
            await browser.size(1100, 760)
            await browser.open(report.as_uri())
            await browser.until("document.querySelectorAll('table').length > 0")
            await browser.screenshot(PICTURES / "report.png")
            await browser.open(address)
            await browser.until("document.querySelectorAll('#servers .bar').length > 5")
            await asyncio.sleep(1)
            await browser.screenshot(PICTURES / "page.png")
        process.terminate()


def main() -> None:
    """Draw all of them."""
    PICTURES.mkdir(exist_ok=True)
    with inventory() as file, TemporaryDirectory() as folder:
        subprocess.run(
            command("timeline", "--fleet", str(file), "--svg", str(PICTURES / "timeline.svg")), check=True
        )
        draw_table(file)
        if PROGRAM is not None:
            asyncio.run(draw_pages(file, Path(folder)))
    for picture in sorted(PICTURES.iterdir()):
        sys.stdout.write(f"{picture.relative_to(ROOT)}  {picture.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
