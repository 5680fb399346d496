"""Backup servers on the command line: `python -m aiovbo.testing --servers 20`.

Knows arguments, signals and what to print. Must not know how a server works.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from aiovbo.testing import QUIRK_NAMES, BackupFleet, Quirks
from aiovbo.testing._answers import VERSIONS
from aiovbo.testing._server import PASSWORD, USERNAME

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
    parser.add_argument(
        "--version",
        choices=VERSIONS,
        help="newest API version of every server (default: another one for each)",
    )
    parser.add_argument("--user", default=USERNAME, help=f"user name of the login (default {USERNAME})")
    parser.add_argument("--password", default=PASSWORD, help="password of the login (default: a known one)")
    parser.add_argument(
        "--ca-file",
        metavar="PATH",
        help="file of the CA, kept between runs with its key in PATH.key (default: a temporary file)",
    )
    parser.add_argument(
        "--inventory",
        metavar="PATH",
        help="write an inventory of these servers, with their password; it is removed at the end",
    )
    parser.add_argument(
        "--quirk",
        action="append",
        default=[],
        metavar="NAME",
        choices=QUIRK_NAMES,
        help=f"a quirk of every server; may be repeated: {', '.join(QUIRK_NAMES)}",
    )
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


def _literal(text: str) -> str:
    """A text as TOML writes it: a string of JSON, but without escapes of half a character."""
    return json.dumps(text, ensure_ascii=False)


@contextmanager
def _inventory(fleet: BackupFleet, path: str | None) -> Generator[None, None, None]:
    """An inventory of the running servers, as long as the block; a file that exists is not replaced."""
    if path is None:
        yield
        return
    login = f"username = {_literal(fleet.username)}, password = {_literal(fleet.password)}"
    lines = [
        "allow_literal_secrets = true  # servers for tests only",
        "[defaults]",
        f"credentials = {{ {login} }}",
        f"tls = {{ ca_file = {_literal(os.path.abspath(fleet.ca_file))} }}",
        "[servers]",
        *(f"{server.name} = {{ url = {_literal(server.url)} }}" for server in fleet),
    ]
    # Only its owner may read it, because of the password.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write("\n".join([*lines, ""]))
    try:
        yield
    finally:
        os.remove(path)


async def _run(fleet: BackupFleet, inventory: str | None) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no signal handlers in loops; there Ctrl-C arrives as KeyboardInterrupt.
        with suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with fleet:
        with _inventory(fleet, inventory):
            print(_describe(fleet), flush=True)  # what the command is for
            await stopping.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until interrupted; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.servers < 1:
        parser.error("--servers must be at least 1")
    fleet = BackupFleet(
        options.servers,
        seed=options.seed,
        versions=VERSIONS[::-1] if options.version is None else (options.version,),
        username=options.user,
        password=options.password,
        host=options.host,
        port=options.port,
        quirks=Quirks.named(*options.quirk),
        ca_file=options.ca_file,
    )
    try:
        asyncio.run(_run(fleet, options.inventory))
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError, ImportError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # the command's one line
        return _USAGE_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
