"""Section: a million sessions of many servers, read by a consumer that is slower than they are.

Knows the stub and this process's memory; runs itself as a program, so that only its own memory counts.
"""

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from time import perf_counter
from typing import Any

from contestants import PASSWORD, USER
from limits import raise_file_limit, resident
from rounds import Table, short
from stub import Stub

ON_A_PAGE = 1_000
SHARES = (1, 10, 25, 50, 75, 100)
"""Per cent of the sessions after which memory is looked at."""

_PAUSE = 0.005
"""Seconds that the consumer takes for each thousand sessions."""

_MIB = 2**20


async def _read(urls: list[str], ca: str, expected: int, *, keep: bool) -> dict[str, Any]:
    from aiovbo import TLS, Fleet, NotFoundError, Password, Server  # where it is measured

    login, tls = Password(USER, PASSWORD), TLS(ca_file=ca)
    servers = [Server(url, login, api_version="v8", tls=tls) for url in urls]
    looks = {expected * share // 100 for share in SHARES}
    grown: list[float] = []
    kept: list[Any] = []
    async with Fleet(servers, deadline=600.0) as fleet:
        for client in map(fleet.__getitem__, fleet):
            # Connected and logged in: what is measured is the sessions.
            with suppress(NotFoundError):
                await client.fetch("Nothing")
        before, began, first, count = resident(), perf_counter(), 0.0, 0
        async for session in fleet.restore_sessions():
            count += 1
            first = first or perf_counter() - began
            if keep:
                kept.append(session)
            if count % ON_A_PAGE == 0 and not keep:
                await asyncio.sleep(_PAUSE)
            if count in looks:
                grown.append((resident() - before) / _MIB)
        assert count == expected, count
        return {"first": first, "all": perf_counter() - began, "grown": grown}


def streaming(figures: dict[str, float], *, quick: bool) -> Table:
    """Seconds to the first session and to the last, and by how much memory has grown on the way."""
    servers, pages = (10, 5) if quick else (100, 10)
    expected = servers * pages * ON_A_PAGE
    rows: list[tuple[str, ...]] = []
    with Stub(tls=servers, items=ON_A_PAGE, pages=pages) as stub:
        for name in ("streamed, slowly", "all kept"):
            start = {"urls": stub.tls, "ca": stub.ca, "expected": expected, "keep": name == "all kept"}
            done = subprocess.run(
                [sys.executable, __file__],
                input=json.dumps(start),
                capture_output=True,
                text=True,
                check=False,
            )
            if not done.stdout:
                print(done.stderr[-500:], file=sys.stderr)
                rows.append((name, *("failed" for _ in range(2 + len(SHARES)))))
                continue
            found = json.loads(done.stdout)
            figures[f"streaming {name} grown"] = found["grown"][-1]
            rows.append((name, *map(short, (found["first"], found["all"], *found["grown"]))))
    columns = (f"{expected:,} sessions", "first, s", "all, s", *(f"MiB at {share} %" for share in SHARES))
    note = (
        f"{servers} TLS servers with v8 pages of {ON_A_PAGE:,} sessions, asked at once; the slow consumer "
        f"takes {_PAUSE * 1e3:g} ms for each thousand. MiB of resident memory beyond the connected fleet."
    )
    return Table("A million sessions, streamed and kept", columns, rows, note)


if __name__ == "__main__":
    raise_file_limit()
    print(json.dumps(asyncio.run(_read(**json.loads(sys.stdin.read())))))
