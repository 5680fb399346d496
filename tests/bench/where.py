"""Where the time of a warm fan-out goes: `python tests/bench/where.py [--servers 1000] [--collect 50000]`.

First the whole and the garbage collector's share of it, then the functions. A profile exaggerates small ones;
it says where to look, the benchmark says what was gained.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
from time import perf_counter, process_time

from contestants import Aims, Aiovbo
from limits import raise_file_limit
from stub import Stub

_REQUESTS = 2_000
_GENERATIONS = ("what is new", "what is young", "everything")


class Collector:
    """The garbage collector's time, and how often it ran, by generation."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.runs = [0, 0, 0]
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """What the collector reports."""
        if phase == "start":
            self._began = perf_counter()
        else:
            self.seconds += perf_counter() - self._began
            self.runs[info["generation"]] += 1


async def ask(aims: Aims, lines: int) -> None:
    """The same rounds twice: timed as they are, and looked at."""
    client = Aiovbo(aims)
    await client.open()
    rounds = max(4, _REQUESTS // len(aims.urls))
    for _ in range(3):
        await client.ask()
    gc.collect()
    collector, began = Collector(), process_time()
    gc.callbacks.append(collector)
    for _ in range(rounds):
        await client.ask()
    whole = process_time() - began
    gc.callbacks.remove(collector)
    each = 1e6 / rounds / len(aims.urls)
    print(f"{whole * each:.0f} us of CPU time per server and round,")
    print(f"{collector.seconds * each:.0f} of them the garbage collector's, which ran in a round")
    for name, runs in zip(_GENERATIONS, collector.runs, strict=True):
        print(f"{runs / rounds:6.2f} times over {name}")
    profile = cProfile.Profile()
    with profile:
        for _ in range(rounds):
            await client.ask()
    await client.close()
    pstats.Stats(profile).sort_stats("tottime").print_stats(lines)


def main() -> None:
    """Time, profile, and print what took longest."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--lines", type=int, default=30)
    parser.add_argument("--collect", type=int, nargs="+", help="the collector's thresholds")
    options = parser.parse_args()
    if options.collect:
        gc.set_threshold(*options.collect)
    raise_file_limit()
    with Stub(tls=options.servers) as stub:
        asyncio.run(ask(Aims(stub.tls, stub.ca), options.lines))


if __name__ == "__main__":
    main()
