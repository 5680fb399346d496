r"""A Prometheus exporter: how a fleet does, and what it restores, under /metrics.

    pip install '.[prometheus,testing]'
    python examples/exporter.py --port 9877 vbo1.tech.local vbo2.tech.local

The fleet is polled on an interval of its own, however often Prometheus asks: a scrape costs the backup
servers nothing, and never waits for them. Alert rules and a dashboard are in the folder `monitoring`.
"""

import asyncio
from argparse import Namespace
from contextlib import suppress
from datetime import timedelta

from _servers import arguments, run_until_ended, servers_of
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from aiovbo import Fleet, FleetResult
from aiovbo.prometheus import FleetMetrics


async def count_sessions(fleet: Fleet, metrics: FleetMetrics, options: Namespace) -> None:
    """Poll all servers; requests are counted by the fleet's observer, sessions here."""
    query = fleet.restore_sessions(started_after=timedelta(days=options.days))
    async with fleet.poll(query, every=timedelta(seconds=options.every)) as poll:
        async for answer in poll:
            # It never raises for a server: one that failed has no sessions, and is down.
            metrics.sessions(FleetResult({answer.server: answer}))


def application(registry: CollectorRegistry) -> web.Application:
    """The web server's one page."""

    async def show(request: web.Request) -> web.Response:
        # Prometheus says which of its formats it likes best.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/metrics", show)
    return app


async def main(options: Namespace) -> None:
    """Serve while polling; a bug in one ends both, so that nothing goes stale in silence."""
    registry = CollectorRegistry()
    metrics = FleetMetrics(registry)
    runner = web.AppRunner(application(registry))
    await runner.setup()
    try:
        async with servers_of(options) as servers, Fleet(servers, deadline=30, observer=metrics) as fleet:
            await web.TCPSite(runner, options.host, options.port).start()
            host, port = runner.addresses[0][:2]
            print(f"http://{host}:{port}/metrics", flush=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(options.seconds):
                    await count_sessions(fleet, metrics, options)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = arguments("Metrics of a fleet for Prometheus.")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to serve on (default: a free one)")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between polls (default 60)")
    parser.add_argument("--days", type=float, default=1.0, help="how far back sessions count (default 1)")
    parser.add_argument("--seconds", type=float, help="how long to run (default: until stopped)")
    run_until_ended(main(parser.parse_args()))
