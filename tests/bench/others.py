"""Sections: memory per server, healthy servers beside dead ones, and what an import costs.

Knows workers, stubs and subprocesses.
"""

import asyncio
import importlib.util
import subprocess
import sys
from functools import partial
from time import perf_counter

from contestants import PASSWORD, USER, Aims, present
from rounds import Table, Turn, against, interleaved, median, short
from stub import Stub
from worker import Worker

FLOOR, FLOOR_UVLOOP = "aiohttp + orjson", "aiohttp + orjson, uvloop"


def _memory(name: str, urls: list[str], ca: str, command: str) -> float:
    with Worker(name, Aims(urls, ca)) as worker:
        (value,) = worker.do(command).values()
        return float(value) / 1024


def server_memory(figures: dict[str, float], *, quick: bool) -> Table:
    """KiB that a connected server takes."""
    sizes = (100,) if quick else (100, 1_000)
    ours = [name for name in present(sizes[-1]) if name.startswith(("aiovbo", "aiohttp"))]
    rows: list[tuple[str, ...]] = []
    # Hardly any sessions, so that it is the connection that is measured.
    with Stub(tls=sizes[-1], items=1) as stub:
        for name in ours if quick else present(sizes[-1]):
            row: list[str] = [name]
            for command in ("resident", "traced"):
                for size in sizes:
                    if command == "traced" and size > sizes[0] and name not in ours:
                        row.append("")
                        continue
                    urls = stub.tls[:size]
                    most = 3 if command == "resident" and size == sizes[0] and not quick else 1
                    turns = {name: partial(_memory, name, urls, stub.ca, command)}
                    values = interleaved(turns, most=most, budget=10, least=1).get(name)
                    if values:
                        figures[f"memory {command} {size} {name}"] = median(values)
                    row.append(short(median(values)) if values else "failed")
            rows.append(tuple(row))
    kinds = ("resident", "traced by Python")
    columns = ("KiB per server", *(f"{kind}, {size:,}" for kind in kinds for size in sizes))
    note = (
        "A server connected over TLS and logged in, one session; growth since the first server. uvloop "
        "reserves a buffer for each connection that Python's tracer counts, but hardly any of it is ever "
        "touched, so it is not resident."
    )
    return Table("Memory per connected TLS server", columns, rows, note)


async def _last_healthy(urls: list[str], ca: str, healthy: set[str], again: int) -> list[float]:
    """Seconds until the last healthy server has answered, in each of `again` rounds of one fleet."""
    from aiovbo import TLS, Fleet, Password, Server  # where it is measured

    tls, login = TLS(ca_file=ca), Password(USER, PASSWORD)
    servers = [Server(url, login, name=url, api_version="v4", tls=tls) for url in urls]
    found: list[float] = []
    async with Fleet(servers, connect_timeout=2.0, read_timeout=2.0, deadline=3.0, retries=0) as fleet:
        for number in range(again):
            began, missing, last = perf_counter(), set(healthy), 0.0
            async with fleet.restore_sessions() as query:
                async for answer in query.answers():
                    if answer.server in missing and answer.error is None:
                        missing.discard(answer.server)
                        last = perf_counter() - began
                    if not missing and number + 1 == again:
                        break
            assert not missing, len(missing)
            found.append(last)
    return found


def dead_servers(figures: dict[str, float], *, quick: bool) -> Table:
    """Seconds until the last healthy server's answer, beside servers that never answer."""
    total = 100 if quick else 500
    most = total * 30 // 100
    cases = {
        "none dead": (total, 0),
        "5 % dead": (total - total // 20, total // 20),
        "30 % dead": (total - most, most),
        "30 % left out": (total - most, 0),
    }
    with Stub(tls=total, silent=most, items=30, delay=0.05) as stub:

        def ask(healthy: int, dead: int) -> list[float]:
            # In the way: asked first.
            urls = stub.silent[:dead] + stub.tls[:healthy]
            return asyncio.run(_last_healthy(urls, stub.ca, set(urls[dead:]), 2))

        turns: dict[str, Turn[list[float]]] = {name: partial(ask, *counts) for name, counts in cases.items()}
        found = interleaved(turns, most=1 if quick else 3, budget=50, least=1)
    rows: list[tuple[str, ...]] = []
    for name, values in found.items():
        row = [name]
        for number, phase in enumerate(("first", "second")):
            figures[f"dead {phase} {name}"] = median(value[number] for value in values)
            base = figures[f"dead {phase} none dead"]
            row += [short(figures[f"dead {phase} {name}"]), against(figures[f"dead {phase} {name}"], base)]
        rows.append(tuple(row))
    columns = ("seconds until the last healthy answer", "first round", "ratio", "second round", "ratio")
    note = (
        f"{total} TLS servers that answer after 50 ms, part of them replaced by ones that accept and never "
        "say a word, first in the fleet; ratio to none dead. Left out: the fleet without them. First round: "
        "cold, with login. Second: same fleet, warm."
    )
    return Table("Healthy servers beside dead ones", columns, rows, note)


_IMPORTS = {
    "nothing": "pass",
    "aiohttp, attrs, cattrs, msgspec, yarl": "import aiohttp, attrs, cattrs, msgspec, yarl",
    "aiovbo (the door)": "import aiovbo",
    "aiovbo (Fleet)": "from aiovbo import Fleet",
    "httpx2": "import httpx2",
    "veeam_365 (client)": "import veeam_365.client",
    "veeam_365 (client and one operation)": (
        "import veeam_365.client as c; c.VeeamClient('https://x', 'u', 'p', 'v8')"
        ".api('restore_session.restore_session_get_page')"
    ),
}


def _import_time(code: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return (perf_counter() - began) * 1e3


def _own_import_time() -> float:
    code = (
        "import aiohttp, attrs, cattrs, cattrs.gen, msgspec, yarl; from time import perf_counter as now; "
        "began = now(); from aiovbo import Fleet; print(now() - began)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) * 1e3


def imports(figures: dict[str, float], *, quick: bool) -> Table:
    """Milliseconds of an import, in a fresh interpreter."""
    turns: dict[str, Turn[float]] = {
        name: partial(_import_time, code) for name, code in _IMPORTS.items() if _installed(name)
    }
    turns["aiovbo (Fleet), once what it needs is there"] = _own_import_time
    found = interleaved(turns, most=3 if quick else 9, budget=3 if quick else 14)
    nothing = median(found.pop("nothing"))
    rows: list[tuple[str, ...]] = []
    ours = median(found["aiovbo (Fleet)"]) - nothing
    for name, values in found.items():
        value = median(values) - (0 if name.endswith("is there") else nothing)
        figures[f"import {name}"] = value
        rows.append((name, short(value), against(value, ours)))
    note = (
        f"Wall clock beyond an interpreter that imports nothing ({nothing:.0f} ms); what is left once others "
        "are there."
    )
    return Table("Import", ("ms", "median", "ratio"), rows, note)


def _installed(name: str) -> bool:
    first = name.partition(" ")[0].partition(",")[0]
    return first == "nothing" or importlib.util.find_spec(first) is not None
