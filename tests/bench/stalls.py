"""Section: for how long one long answer holds the event loop.

A task that wants to run all the time notes the longest gap. Knows bodies and ways to structure them.
"""

import asyncio
import gc
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import perf_counter
from typing import Any

from bodies import body
from contestants import PASSWORD, USER
from decoders import decoders
from rounds import Table, median, short
from stub import BROKEN, TOKEN, Stub

COUNT = 10_000
MODES = ("collector on", "heap frozen", "collector off")


async def longest_gap(work: Callable[[], Awaitable[int]]) -> float:
    """The longest time that the loop was held while `work` was done, in milliseconds."""
    longest, stop = 0.0, False

    async def tick() -> None:
        nonlocal longest
        before = perf_counter()
        while not stop:
            await asyncio.sleep(0)
            now = perf_counter()
            longest = max(longest, now - before)
            before = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    assert await work() == COUNT
    # One more turn, so that what came last is seen too.
    await asyncio.sleep(0)
    stop = True
    await ticking
    return longest * 1e3


async def _sliced(content: bytes) -> int:
    """As the SDK's client goes about it."""
    from aiovbo._decoding.listing import decode_listing  # where it is measured
    from aiovbo.models import RestoreSession

    found: list[Any] = []
    for items, _ in decode_listing(content, RestoreSession, "bench", None).slices():
        found += items
        await asyncio.sleep(0)
    return len(found)


async def _asked(url: str, ca: str, version: Any) -> list[float]:  # a literal of the SDK's
    from aiovbo import TLS, Client, Password, Server  # where it is measured

    server = Server(url, Password(USER, PASSWORD), api_version=version, tls=TLS(ca_file=ca))
    async with Client(server) as client:

        async def ask() -> int:
            size = None if version == "v4" else COUNT
            return len(await client.restore_sessions(page_size=size))

        await ask()
        return [await longest_gap(ask) for _ in range(9)]


async def _by_hand(url: str, ca: str, version: str, decode: Callable[[bytes], Any]) -> list[float]:
    import aiohttp  # where it is measured

    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=ca))
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> int:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with session.get(f"{url}/{version}/RestoreSessions", headers=headers) as response:
                return len(decode(await response.read()))

        await ask()
        return [await longest_gap(ask) for _ in range(5)]


async def _bytes_only(version: str) -> list[float]:
    content = body(version, COUNT)
    await _sliced(content)
    return [await longest_gap(lambda: _sliced(content)) for _ in range(9)]


ASKED, BYTES, UVLOOP = "aiovbo, asked over TLS", "aiovbo, bytes in memory", "aiovbo, asked over TLS, uvloop"
RIVALS = (
    "orjson.loads (dicts)",
    "json.loads (dicts)",
    "json + cattrs",
    "pydantic validate_json",
    "veeam-365 from_dict",
)


def _one(name: str, mode: str, version: str, url: str, ca: str) -> list[float]:
    """In this process, which was made for it."""
    factory = None
    if name == UVLOOP:
        import uvloop  # it may be missing

        factory = uvloop.new_event_loop
    coroutine = (
        _bytes_only(version)
        if name == BYTES
        else _asked(url, ca, version)
        if name in (ASKED, UVLOOP)
        else _by_hand(url, ca, version, decoders()[name])
    )
    gc.collect()
    if mode == "heap frozen":
        gc.freeze()
    elif mode == "collector off":
        gc.disable()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(coroutine)


def stalls(figures: dict[str, float], *, quick: bool) -> Table:
    """Milliseconds, by version and state of the garbage collector."""
    names = (ASKED, UVLOOP, BYTES, *RIVALS)
    known = decoders()
    cells: dict[str, list[str]] = {}
    versions, modes = (("v4",), MODES[:1]) if quick else (("v4", "v8"), MODES)
    with Stub(tls=1, items=COUNT) as stub:
        for version in versions:
            for mode in modes:
                for name in names:
                    if name in RIVALS and name not in known:
                        continue
                    if name in RIVALS and mode != MODES[0]:
                        cells[name].append("")
                        continue
                    command = [sys.executable, __file__, name, mode, version, stub.tls[0], stub.ca]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    gaps = [float(word) for word in done.stdout.split()]
                    if gaps:
                        figures[f"stall {version} {mode} {name}"] = median(gaps)
                        cells.setdefault(name, []).append(f"{short(median(gaps))} / {short(max(gaps))}")
                    else:
                        cells.setdefault(name, []).append("failed")
                        print(done.stderr[-500:], file=sys.stderr)
    columns = ("median / longest, ms", *(f"{version}, {mode}" for version in versions for mode in modes))
    note = (
        "The longest gap in the event loop while one answer of 10,000 sessions is read and structured; "
        "median and longest of nine answers (others: five), each contestant in a process of its own."
    )
    rows = [(name, *line) for name, line in cells.items()]
    return Table("Longest stall of the event loop, 10,000 sessions in one answer", columns, rows, note)


async def _broken_gaps(url: str, ca: str) -> list[float]:
    from aiovbo import TLS, Client, Password, Server, ServerError  # where it is measured

    server = Server(url, Password(USER, PASSWORD), api_version="v4", tls=TLS(ca_file=ca))
    async with Client(server, retries=0, deadline=60) as client:

        async def ask() -> int:
            with suppress(ServerError):
                await client.restore_sessions()
            return COUNT

        await ask()
        return [await longest_gap(ask) for _ in range(5)]


def broken_stalls(figures: dict[str, float], *, quick: bool) -> Table:
    """Milliseconds, by what is wrong with a response of 4 MB."""
    rows: list[tuple[str, ...]] = []
    for kind in BROKEN[:2] if quick else BROKEN:
        with Stub(tls=1, items=30, broken=kind) as stub:
            gaps = asyncio.run(_broken_gaps(stub.tls[0], stub.ca))
        figures["stall broken"] = max(median(gaps), figures.get("stall broken", 0.0))
        rows.append((kind, f"{short(median(gaps))} / {short(max(gaps))}"))
    note = (
        "The longest gap in the event loop; median and longest of five responses, asked by aiovbo over TLS."
    )
    title = "Longest stall of the event loop, errors and invalid data of 4 MB"
    return Table(title, ("response", "median / longest, ms"), rows, note)


if __name__ == "__main__":
    print(*_one(*sys.argv[1:6]))
