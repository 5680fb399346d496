"""Section: one question to many servers, warm and cold, plain and TLS; and how its cost grows with them.

Knows workers and stubs; what a client does is in `contestants`.
"""

import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

from contestants import Aims, present
from rounds import Table, Turn, against, interleaved, median, percentile, short
from stub import Stub
from worker import Worker

ITEMS = 30
_TARGETS_SIZE = 200
"""Servers that the targets are about, between two sizes of the growth."""


def _turn(worker: Worker, command: str, servers: int, stub: Stub, repeat: int) -> dict[str, Any]:
    before = stub.accepted()
    found = worker.do(command, repeat=repeat)
    found["made"] = stub.accepted() - before
    assert found["items"] == servers * ITEMS, (found["items"], servers)
    return found


def _summary(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {
        "cpu": median(one["cpu"] for one in rounds) * 1e6,
        "wall": median(one["wall"] for one in rounds) * 1e3,
        "p99": median(percentile(one["seconds"], 0.99) for one in rounds) * 1e3,
        "made": float(max(one["made"] for one in rounds)),
        "rounds": float(len(rounds)),
    }


def _measure(urls: list[str], stub: Stub, *, quick: bool) -> dict[str, dict[str, dict[str, float]]]:
    """What everybody's rounds cost, by phase; cold comes first, while nothing is kept."""
    servers = len(urls)
    repeat = max(1, 200 // servers)
    budgets = {"cold": 2.0 if quick else 9.0, "warm": 1.5 if quick else 9.0 if servers < 1_000 else 18.0}
    found: dict[str, dict[str, dict[str, float]]] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(name, Aims(urls, stub.ca))) for name in present(servers)}
        for phase, budget in budgets.items():
            # Imports and first times are not part of a round, be it warm or cold.
            ready = {"cold": "touch", "warm": "connect"}[phase]
            turns: dict[str, Turn[dict[str, Any]]] = {}
            for name, worker in workers.items():
                try:
                    worker.do(ready)
                except RuntimeError as error:
                    print(f"failed: {name}: {error}", file=sys.stderr)
                    continue
                times = 1 if phase == "cold" else repeat
                turns[name] = partial(_turn, worker, phase, servers, stub, times)
            least = 1 if quick else 2
            rounds = interleaved(turns, most=5 if quick else 15, budget=budget, least=least)
            found[phase] = {name: _summary(one) for name, one in rounds.items()}
    return found


def _table(title: str, found: dict[str, dict[str, float]]) -> Table:
    columns = ("", "CPU us/server", "ratio", "wall ms", "ratio", "p99 ms", "rounds")
    ours = found["aiovbo"]
    rows = [
        (
            name + (" (reconnects)" if "warm" in title and one["made"] else ""),
            f"{one['cpu']:,.0f}",
            against(one["cpu"], ours["cpu"]),
            short(one["wall"]),
            against(one["wall"], ours["wall"]),
            short(one["p99"]),
            f"{one['rounds']:.0f}",
        )
        for name, one in found.items()
    ]
    return Table(title, columns, rows)


def fanout(figures: dict[str, float], *, quick: bool) -> list[Table]:
    """A table for each kind, number and phase; a last one on growth."""
    plan = {"plain": (10, 100, 1_000), "TLS": (10, 100, _TARGETS_SIZE, 1_000)}
    if quick:
        plan = {"plain": (100,), "TLS": (100,)}
    tables: list[Table] = []
    with Stub(plain=plan["plain"][-1], tls=plan["TLS"][-1], items=ITEMS) as stub:
        for kind, sizes in plan.items():
            for servers in sizes:
                urls = (stub.tls if kind == "TLS" else stub.plain)[:servers]
                for phase, found in _measure(urls, stub, quick=quick).items():
                    for name, one in found.items():
                        for key, value in one.items():
                            figures[f"{phase} {kind} {servers} {name} {key}"] = value
                    tables.append(_table(f"Fan-out, {phase}, {kind}, {servers:,} servers", found))
                    print(tables[-1].text(), flush=True)
    return [*tables, _growth(figures, plan)]


def _growth(figures: dict[str, float], plan: dict[str, tuple[int, ...]]) -> Table:
    shown = [
        (phase, kind, size)
        for phase in ("warm", "cold")
        for kind, sizes in plan.items()
        for size in sizes
        if size != _TARGETS_SIZE
    ]
    columns = ("CPU us/server", *(f"{phase} {kind} {size:,}" for phase, kind, size in shown))
    rows = [
        (name, *(short(figures.get(f"{phase} {kind} {size} {name} cpu")) for phase, kind, size in shown))
        for name in present(1)
    ]
    return Table("Growth with the number of servers", columns, rows)
