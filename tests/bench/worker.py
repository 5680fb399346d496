"""One contestant in a process of its own: runs the command of each line, and answers with its cost.

A process for each, so that no garbage collector searches another contestant's heap, and CPU and memory are
one contestant's alone. Between two commands it waits, and costs nothing. Knows no tables.
"""

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Coroutine
from time import perf_counter, process_time
from types import TracebackType
from typing import Any, Self, TypeVar

from contestants import ENTRIES, Aims, Contestant, Share
from limits import raise_file_limit, resident

T = TypeVar("T")


class Worker:
    """The program below as a context."""

    def __init__(self, name: str, aims: Aims) -> None:
        self._start = json.dumps({"name": name, "urls": aims.urls, "ca": aims.ca, "version": aims.version})

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._report(self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            # It closes its connections by itself; it need not, since no task waits for them.
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def do(self, command: str, **arguments: object) -> dict[str, Any]:
        """What the process answers.

        Raises: RuntimeError where it fails.
        """
        self._report(json.dumps({"do": command, **arguments}))
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it died"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def _report(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


class _Bench:
    """The other end: one event loop, and one client that is kept warm."""

    def __init__(self, name: str, aims: Aims) -> None:
        self._entry = ENTRIES[name]
        self._aims = aims
        factory = None
        if self._entry.uvloop:
            import uvloop

            factory = uvloop.new_event_loop
        self._runner = asyncio.Runner(loop_factory=factory)
        self._client: Contestant | None = None

    def close(self) -> None:
        """Close client and loop."""
        if self._client is not None:
            self._run(self._client.close())
        self._runner.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def _warm(self) -> Contestant:
        if self._client is None:
            self._client = self._entry.cls(self._aims)
            self._run(self._client.open())
            self._run(self._client.ask())
        return self._client

    def warm(self, repeat: int) -> dict[str, Any]:
        """Rounds over connections and tokens that are there."""
        client = self._warm()
        return self._measured([client] * repeat)

    def connect(self) -> dict[str, Any]:
        """Nothing but that: connections and tokens are there afterwards."""
        self._warm()
        return {}

    def touch(self) -> dict[str, Any]:
        """One server once, by a client of its own: whatever is imported late is imported now."""
        one = self._entry.cls(Aims(self._aims.urls[:1], self._aims.ca, self._aims.version))
        self._run(self._once(one))
        return {}

    async def _once(self, client: Contestant) -> None:
        await client.open()
        await client.ask()
        await client.close()

    def cold(self, repeat: int) -> dict[str, Any]:
        """Rounds of new clients: connections, logins, lists."""
        clients = [self._entry.cls(self._aims) for _ in range(repeat)]
        found = self._measured(clients, cold=True)
        for client in clients:
            self._run(client.close())
        return found

    def _measured(self, clients: list[Contestant], *, cold: bool = False) -> dict[str, Any]:
        async def one(client: Contestant) -> list[Share]:
            if cold:
                await client.open()
            return await client.ask()

        gc.collect()
        walls, cpu, seconds, items = [], 0.0, [], 0
        for client in clients:
            burnt, began = process_time(), perf_counter()
            shares = self._run(one(client))
            walls.append(perf_counter() - began)
            cpu += process_time() - burnt
            seconds += [share.seconds for share in shares]
            items += sum(len(share.items) for share in shares)
            del shares
        return {
            "wall": sum(walls) / len(walls),
            "cpu": cpu / len(clients) / len(self._aims.urls),
            "seconds": seconds,
            "items": items / len(clients),
        }

    def resident(self) -> dict[str, Any]:
        """What keeping every server connected takes of the process's memory, per server."""
        self.touch()
        gc.collect()
        before = resident()
        self._run(self._warm().ask())
        gc.collect()
        return {"resident": (resident() - before) / len(self._aims.urls)}

    def traced(self) -> dict[str, Any]:
        """The same, of what Python allocates itself."""
        self.touch()
        gc.collect()
        tracemalloc.start()
        self._run(self._warm().ask())
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return {"traced": grown / len(self._aims.urls)}


def main() -> None:
    """Obey until standard input ends."""
    raise_file_limit()
    start = json.loads(sys.stdin.readline())
    bench = _Bench(start["name"], Aims(start["urls"], start["ca"], start["version"]))
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(bench, command.pop("do"))(**command)
        except Exception as error:  # the parent process reports it
            answer = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps(answer), flush=True)
    bench.close()


if __name__ == "__main__":
    main()
