"""In an application: a web server that polls a fleet in the background, and serves what it knows.

The fleet lives as long as the application, so that tokens and connections are kept between polls.
"""

import asyncio
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import suppress
from datetime import timedelta

from _servers import arguments, run_until_ended, servers_of
from aiohttp import web

from aiovbo import Fleet, FleetResult, RestoreSession

DAY = timedelta(days=1)


class Board:
    """The last answers of all servers, renewed every few seconds."""

    def __init__(self, fleet: Fleet, every: float) -> None:
        self._fleet = fleet
        self._every = every
        self._latest: FleetResult[RestoreSession] | None = None

    async def poll(self, _: web.Application) -> AsyncGenerator[None]:
        """Ask again and again, from the application's start to its end."""
        polling = asyncio.create_task(self._poll())
        yield
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling

    async def _poll(self) -> None:
        while True:
            # It never raises for a server: what failed is in the result.
            self._latest = await self._fleet.restore_sessions(started_after=DAY)
            await asyncio.sleep(self._every)

    async def show(self, _: web.Request) -> web.Response:
        """How many sessions each server has, or what is wrong with it."""
        if self._latest is None:
            return web.json_response({"error": "the first answers are under way"}, status=503)
        return web.json_response(
            {
                name: {"sessions": len(answer.items), "error": str(answer.error or "") or None}
                for name, answer in self._latest.answers.items()
            }
        )


async def main(options: Namespace) -> None:
    """Serve for a while."""
    async with servers_of(options) as servers, Fleet(servers, deadline=10) as fleet:
        board = Board(fleet, options.every)
        app = web.Application()
        app.cleanup_ctx.append(board.poll)
        app.router.add_get("/", board.show)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", options.port).start()
        host, port = runner.addresses[0][:2]
        print(f"http://{host}:{port}/ for {options.seconds:g} s", flush=True)
        try:
            await asyncio.sleep(options.seconds)
        finally:
            await runner.cleanup()


parser = arguments("Poll servers, and serve what is known of them.")
parser.add_argument("--port", type=int, default=0, help="to serve on (default: a free one)")
parser.add_argument("--every", type=float, default=5.0, help="seconds between polls (default 5)")
parser.add_argument("--seconds", type=float, default=30.0, help="how long to run (default 30)")
run_until_ended(main(parser.parse_args()))
