"""A headless Chromium with one page, steered over its own protocol; no driver is needed."""

import asyncio
import base64
import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session: str | None = None
        self._calls = 0
        self.complaints: list[str] = []
        """What stands in its console: errors, and what its policy has forbidden."""

    async def attach(self) -> None:
        """Open the page, and listen to its console."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        self._calls += 1
        message: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        async with asyncio.timeout(30):
            while True:
                heard = await self._socket.receive_json()
                if heard.get("id") == self._calls:
                    assert "error" not in heard, heard
                    return heard["result"]
                self._note(heard)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(about["exceptionDetails"]))
            case "Log.entryAdded" if about["entry"]["level"] == "error":
                self.complaints.append(about["entry"]["text"])
            case _:
                pass

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the window a size, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    async def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}]
        )

    async def open(self, url: str) -> None:
        """Go there."""
        await self.call("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """What an expression is on the page."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str, seconds: float = 20) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(seconds):
            while not await self.evaluate(script):
                await asyncio.sleep(0.05)

    async def violations(self) -> list[tuple[str, str]]:
        """What axe-core finds wrong for people who do not see or use a mouse: rules, each with an element.

        The test is skipped where axe-core is not installed.
        """
        package = importlib.util.find_spec("axe_core_python")
        if package is None or package.origin is None:
            pytest.skip("axe-core-python is not installed")
        script = Path(package.origin).with_name("axe.min.js").read_text(encoding="utf-8")
        await self.evaluate(f"{script}; 0")
        found = await self.evaluate(
            "axe.run().then(all => all.violations.map(one => [one.id, one.nodes[0].html]))"
        )
        return [(str(rule), str(element)) for rule, element in found]

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what can be seen, or all of it, as PNG."""
        found = await self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Page]:
    """A browser of one's own, gone at the end of the block."""
    assert PROGRAM is not None
    command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(  # noqa: ASYNC220  # begins at once, and is waited for in a thread
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            where = profile / "DevToolsActivePort"
            async with asyncio.timeout(30):
                while not (where.exists() and where.read_text().count("\n")):
                    await asyncio.sleep(0.05)
            port, path = where.read_text().splitlines()[:2]
            async with (
                aiohttp.ClientSession() as http,
                http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
            ):
                page = Page(socket)
                await page.attach()
                yield page
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.to_thread(process.wait)
