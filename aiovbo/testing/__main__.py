"""Backup servers on the command line: `python -m aiovbo.testing --servers 20`.

Knows arguments, signals and what to print. Must not know how a server works.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from aiovbo.testing import BackupFleet

_USAGE_ERROR = 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiovbo.testing",
        description="Run backup servers on loopback until Ctrl-C.",
    )
    parser.add_argument("--servers", type=int, default=3, help="how many (default 3)")
    parser.add_argument(
        "--port", type=int, default=0, help="of the first, the others follow (default: free ones)"
    )
    parser.add_argument("--seed", type=int, default=0, help="picks the worlds (default 0)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    return parser


def _describe(fleet: BackupFleet) -> str:
    lines = [f"{server.url}  {', '.join(server.versions)}" for server in fleet]
    lines += [
        f"CA file:  {fleet.ca_file}",
        f"Username: {fleet.username}",
        f"Password: {fleet.password}",
        "Press Ctrl-C to stop.",
    ]
    return "\n".join(lines)


async def _run(fleet: BackupFleet) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no signal handlers in loops; there Ctrl-C arrives as KeyboardInterrupt.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with fleet:
        print(_describe(fleet), flush=True)  # noqa: T201  # what the command is for
        await stopping.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.servers < 1:
        parser.error("--servers must be at least 1")
    fleet = BackupFleet(options.servers, seed=options.seed, host=options.host, port=options.port)
    try:
        asyncio.run(_run(fleet))
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201  # the command's one line
        return _USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
