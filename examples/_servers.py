r"""Which servers an example asks: those named on the command line, or three embedded ones.

Without arguments an example starts its own servers on loopback. For yours, set VBO_PASSWORD, and then:

    python examples/many_servers.py --user 'TECH\monitor' vbo1.tech.local
    python examples/many_servers.py --fleet fleet.toml
"""

import argparse
import asyncio
import os
import re
import signal
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager, suppress

from aiovbo import TLS, Fleet, Password, Server


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser for what all examples have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "urls", nargs="*", metavar="URL", help="servers, with or without NAME= before; none: embedded ones"
    )
    parser.add_argument("--fleet", help="inventory of servers, in place of addresses")
    parser.add_argument("--user", default="TECH\\monitor", help="the password is in VBO_PASSWORD")
    parser.add_argument("--ca-file", help="PEM file of the authority to trust; none: the system's")
    return parser


@asynccontextmanager
async def servers_of(options: argparse.Namespace) -> AsyncGenerator[list[Server]]:
    """The servers that were named, or embedded ones that run as long as the block."""
    if options.fleet:
        inventory = await asyncio.to_thread(Fleet.from_toml, options.fleet)
        yield [inventory[name].server for name in inventory]
        return
    if options.urls:
        login = Password(options.user, os.environ.get("VBO_PASSWORD", ""))
        tls = TLS(ca_file=options.ca_file)
        named = [re.fullmatch(r"(?:([^=/:]+)=)?(.+)", text) for text in options.urls]
        yield [Server(found[2], login, name=found[1], tls=tls) for found in named if found]
        return
    # Only here, so that with real servers the extra is not needed.
    from aiovbo.testing import BackupFleet

    async with BackupFleet(3, versions=("v8", "v6", "v4")) as fleet:
        login, tls = Password(fleet.username, fleet.password), TLS(ca_file=fleet.ca_file)
        yield [Server(one.url, login, name=one.name, tls=tls) for one in fleet]


def run_until_ended(service: Coroutine[None, None, None]) -> None:
    """Run what ends with Ctrl-C, or as service managers end it: its `async with` blocks are left in order."""

    async def work() -> None:
        task = asyncio.ensure_future(service)
        # Not through Ctrl-C's signal: a program that was started in the background ignores that one.
        with suppress(NotImplementedError):  # Windows has no such signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await task

    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(work())
