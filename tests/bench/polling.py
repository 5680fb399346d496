"""Section: rounds of polls to 200 TLS servers, by how much of the listings has changed since the last round.

All contestants get the same responses. The first round of a poll, in which nothing is known yet, is that of
the section on fan-out; here it is "cold", with logins, also by hand. Knows workers and stubs.
"""

from contextlib import ExitStack
from functools import partial
from typing import Any

from contestants import Aims, present
from rounds import Table, Turn, against, interleaved, median
from stub import VARIANTS, Stub
from worker import Worker

SERVERS, ITEMS = 200, 30
TYPED = "aiohttp + msgspec, typed"
PROCESSES = 5
"""In how many processes each contestant is measured, one after the other: one alone may be a sixth off."""
NAMES = ("aiovbo", "aiohttp + orjson", TYPED)


def _turn(worker: Worker, command: str, repeat: int) -> dict[str, Any]:
    return worker.do(command, repeat=repeat)


def _rounds(names: list[str], stub: Stub, command: str, *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """What each round cost, by contestant; each in a new process."""
    with ExitStack() as stack:
        turns: dict[str, Turn[dict[str, Any]]] = {}
        for name in names:
            worker = stack.enter_context(Worker(name, Aims(stub.tls, stub.ca)))
            # Known from here on, as for a poll that has run for a while.
            worker.do(
                "warm" if command == "warm" else "touch", **({"repeat": 3} if command == "warm" else {})
            )
            turns[name] = partial(_turn, worker, command, 2 if command == "warm" else 1)
        return interleaved(turns, most=4, budget=1.5 if quick else 9)


def polling(figures: dict[str, float], *, quick: bool) -> Table:
    """Microseconds of CPU per server and round."""
    servers = 30 if quick else SERVERS
    kinds = {**dict.fromkeys(VARIANTS, "warm"), "cold": "cold"}
    names = [name for name in NAMES if name in present(servers)]
    cells: dict[str, list[str]] = {name: [name] for name in names}
    for kind, command in kinds.items():
        rounds: dict[str, list[dict[str, Any]]] = {}
        with Stub(tls=servers, items=ITEMS, variant=kind) as stub:
            for _ in range(1 if quick else PROCESSES):
                for name, found in _rounds(names, stub, command, quick=quick).items():
                    rounds.setdefault(name, []).extend(found)
        for name, found in rounds.items():
            figures[f"polling {kind} {name} cpu"] = median(one["cpu"] for one in found) * 1e6
        floor = figures.get(f"polling {kind} {names[min(1, len(names) - 1)]} cpu")
        for name in names:
            value = figures.get(f"polling {kind} {name} cpu")
            cells[name] += ["failed", "-"] if value is None else [f"{value:,.0f}", against(value, floor)]
    columns = ("CPU us per server", *(text for kind in kinds for text in (kind, "ratio")))
    note = (
        f"{servers} TLS servers, {ITEMS} sessions each; ratio to aiohttp + orjson, which makes dictionaries. "
        "By hand means a token that is loaded, without retries or deadlines; cold, all of them connect and "
        "log in. Recognition favours aiovbo where little has changed; the first round gains nothing by it."
    )
    return Table("Polling", columns, [tuple(row) for row in cells.values()], note)
