r"""A shared session: the application's aiohttp.ClientSession, lent to a fleet, and still open afterwards.

An application that has such a session, with its connector, its limits, its tracing, need not have a second
one. Here it asks the servers, and when the fleet is closed it reports to a webhook over the same session:

    python examples/shared_session.py --webhook https://chat.tech.local/hooks/backup vbo1.tech.local

Without an address, the webhook is one on loopback that prints what it gets.
"""

import asyncio
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
from _servers import arguments, servers_of
from aiohttp import web

from aiovbo import Fleet, FleetResult, RestoreSession


def application_session() -> aiohttp.ClientSession:
    """The session as the application wants it."""
    return aiohttp.ClientSession(
        # Servers that do not answer hold their connections for a while: a limit over all hosts, which
        # aiohttp has by default, would let them hold up the others. The fleet limits each server by itself.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=300),
        # Cookies that one backup server sets are no other's business.
        cookie_jar=aiohttp.DummyCookieJar(),
        # For the application's own requests; the fleet's have its deadline and timeouts.
        timeout=aiohttp.ClientTimeout(total=10),
    )


async def ask(options: Namespace, http: aiohttp.ClientSession) -> FleetResult[RestoreSession]:
    """Borrow the session for one question; closing the fleet logs out and leaves the session open."""
    async with servers_of(options) as servers, Fleet(servers, deadline=20, http=http) as fleet:
        return await fleet.restore_sessions(started_after=timedelta(days=1))


async def main(options: Namespace) -> int:
    """Ask, then report; 1 where any server failed."""
    async with application_session() as http, webhook_of(options) as webhook:
        result = await ask(options, http)
        text = f"{len(result.items)} sessions in a day, {len(result.failed)} servers failed"
        async with http.post(webhook, json={"text": text}) as answer:
            answer.raise_for_status()
    for failed in result.failed:
        print(failed.error, file=sys.stderr)
    return 1 if result.failed else 0


@asynccontextmanager
async def webhook_of(options: Namespace) -> AsyncGenerator[str]:
    """The webhook that was named, or one on loopback that runs as long as the block."""
    if options.webhook:
        yield options.webhook
        return

    async def receive(request: web.Request) -> web.Response:
        said = await request.json()
        print(f"the webhook got: {said['text']}")
        return web.Response()

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = arguments("Report to a webhook what a fleet has restored, over one HTTP session.")
    parser.add_argument("--webhook", metavar="URL", help="where to report; none: one on loopback")
    sys.exit(asyncio.run(main(parser.parse_args())))
