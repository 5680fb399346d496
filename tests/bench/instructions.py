"""User instructions per server and round, counted by callgrind, which a busy machine does not change.

Each figure is the difference of two processes under valgrind, one of which goes on for some rounds. The
servers are in another process, which is not counted. Run as a program, it is the process that is counted.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys

from contestants import ENTRIES, Aims, present
from rounds import Table, against
from stub import Stub

from aiovbo._auth import probe_limiter

SERVERS, ROUNDS, ITEMS = 30, 3, 30
SLOWER = 50
"""How many times as long an instruction takes under valgrind; more servers are probed where time passes."""
NAMES = ("aiovbo", "aiohttp + msgspec, typed", "aiohttp + orjson")
PHASES = {
    "nothing changed": "",
    "one of 30 changed": "one of 30 changed",
    "one rejected row": "one rejected row",
    "all changed": "all changed",
    "cold": "",
}
"""The kinds of rounds, and the variant of the listings that are requested."""


def instructions(names: tuple[str, ...] = NAMES) -> Table | None:
    """The table; None, and a message, where valgrind is missing."""
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: no instructions are counted (on Debian: apt install valgrind)")
        return None
    entrants = [name for name in names if name in present(SERVERS)]
    found: dict[str, dict[str, float]] = {name: {} for name in entrants}
    before: dict[tuple[str, str], int] = {}
    for phase, variant in PHASES.items():
        with Stub(tls=SERVERS, items=ITEMS, variant=variant) as stub:
            for name in entrants:
                if (name, variant) not in before:
                    before[name, variant] = _counted(name, phase, 0, stub)
                after = _counted(name, phase, ROUNDS, stub)
                found[name][phase] = (after - before[name, variant]) / ROUNDS / SERVERS
    rows = [
        (name, *(text for phase in PHASES for text in _cells(figures[phase], found[entrants[-1]][phase])))
        for name, figures in found.items()
    ]
    columns = ("thousand instructions", *(text for phase in PHASES for text in (phase, "ratio")))
    note = (
        f"Per server and round; {SERVERS} TLS servers, {ROUNDS} rounds, {ITEMS} sessions each. One of "
        "30 and all changed: that many sessions of each listing differ from the one before. Cold: new "
        "connections and logins, also by hand."
    )
    return Table("User instructions", columns, rows, note)


def _cells(figure: float, other: float) -> tuple[str, str]:
    return f"{figure / 1000:,.0f}", against(figure, other)


def _counted(name: str, phase: str, rounds: int, stub: Stub) -> int:
    order = json.dumps({"name": name, "phase": phase, "rounds": rounds, "urls": stub.tls, "ca": stub.ca})
    callgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    # The order of sets, and with it what is done, must not differ from one process to the next.
    done = subprocess.run(
        [*callgrind, sys.executable, __file__, order],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    collected = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or collected is None:
        message = f"{name}, {phase}: {done.stderr[-2000:]}"
        raise RuntimeError(message)
    return int(collected[1])


async def _rounds(name: str, phase: str, rounds: int, aims: Aims) -> None:
    """Everything once, so that it is there; then so many rounds."""
    make = ENTRIES[name].cls
    client = make(aims)
    await client.open()
    for _ in range(2):
        await client.ask()
    for _ in range(rounds):
        asked = make(aims) if phase == "cold" else client
        if asked is not client:
            await asked.open()
        shares = await asked.ask()
        assert sum(len(share.items) for share in shares) == ITEMS * len(aims.urls)
    # Closing is no part of a round, and ends after so many seconds, which mean nothing here.
    os._exit(0)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    # Else this would count requests that are sent only because valgrind is slow.
    probe_limiter.PROBE_PATIENCE *= SLOWER
    aims = Aims(given["urls"], given["ca"], deadline=3600)
    asyncio.run(_rounds(given["name"], given["phase"], given["rounds"], aims))
