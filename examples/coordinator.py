"""A coordinator: one poll for many listeners, in the manner of Home Assistant's DataUpdateCoordinator.

Whatever shows something of the backup servers listens to the coordinator, and asks nothing by itself. It
keeps the last good data of each server, says for each whether its last update succeeded, and asks one that
fails ever more rarely.
"""

import asyncio
import logging
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from _servers import arguments, servers_of

from aiovbo import Fleet, RestoreSession, ServerError

log = logging.getLogger(__name__)

DAY = timedelta(days=1)


class Coordinator:
    """What is known of a fleet, and who wants to hear of it: `async with coordinator.polling():`."""

    def __init__(self, fleet: Fleet, *, every: float = 30.0, at_most: float = 900.0) -> None:
        """Update `every` so many seconds; a server that fails is left alone for up to `at_most`."""
        self.data: dict[str, tuple[RestoreSession, ...]] = {}
        """The last good data of each server; none of one that has never answered."""
        self.errors: dict[str, ServerError] = {}
        """Why the last update of a server failed; only of those whose did."""
        self._fleet = fleet
        self._every, self._at_most = every, at_most
        self._delays: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._listeners: list[Callable[[], None]] = []
        self._asking = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def last_update_success(self) -> dict[str, bool]:
        """Whether the last update of each server succeeded."""
        return {name: name not in self.errors for name in self._fleet}

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` once after each update, until what is returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def refresh(self) -> None:
        """Ask all servers now; those who call this at the same time share one update."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._update(list(self._fleet)))
        # Whoever stops waiting does not stop it for the others.
        await asyncio.shield(self._refreshing)

    async def _poll(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._every)
            due = [name for name in self._fleet if self._due.get(name, 0.0) <= now()]
            try:
                await self._update(due)
            except Exception:
                # A bug, since servers' troubles are values here; going quietly stale would be worse.
                log.exception("the update failed")

    async def _update(self, names: list[str]) -> None:
        if not names:
            return
        async with self._asking:
            queries = [self._fleet[name].restore_sessions(started_after=DAY) for name in names]
            for answer in await asyncio.gather(*(query.answer() for query in queries)):
                if answer.error is None:
                    self.data[answer.server] = answer.items
                    self.errors.pop(answer.server, None)
                    self._delays.pop(answer.server, None)
                    self._due.pop(answer.server, None)
                else:
                    self._back_off(answer.server, answer.error)
        for listener in list(self._listeners):
            try:
                listener()
            except Exception:
                log.exception("a listener failed; the others are told all the same")

    def _back_off(self, name: str, error: ServerError) -> None:
        self.errors[name] = error
        # What does not pass by itself, such as a refused password, is not worth asking about soon.
        longer = 2 * self._delays.get(name, self._every) if error.retryable else self._at_most
        self._delays[name] = min(longer, self._at_most)
        self._due[name] = asyncio.get_running_loop().time() + self._delays[name]

    @asynccontextmanager
    async def polling(self) -> AsyncGenerator[None]:
        """Poll as long as the block lasts; the first data are there when it begins."""
        await self._update(list(self._fleet))
        tasks = {asyncio.create_task(self._poll())}
        try:
            yield
        finally:
            tasks |= {self._refreshing} if self._refreshing else set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def main(options: Namespace) -> int:
    """Two listeners, for a while; 1 where a server fails at the end."""
    async with servers_of(options) as servers, Fleet(servers, deadline=10) as fleet:
        coordinator = Coordinator(fleet, every=options.every)
        told: set[str] = set()

        def board() -> None:
            counts = (f"{name} {len(sessions)}" for name, sessions in coordinator.data.items())
            print("sessions in a day:", ", ".join(counts), flush=True)

        def alarm() -> None:
            for name in coordinator.errors.keys() - told:
                print(coordinator.errors[name], file=sys.stderr, flush=True)
            told.clear()
            told.update(coordinator.errors)

        coordinator.listen(board)
        coordinator.listen(alarm)
        async with coordinator.polling():
            await asyncio.sleep(options.seconds)
        return 1 if coordinator.errors else 0


if __name__ == "__main__":
    parser = arguments("One poll of a fleet, for many listeners.")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between updates (default 0.5)")
    parser.add_argument("--seconds", type=float, default=1.2, help="how long to run (default 1.2)")
    sys.exit(asyncio.run(main(parser.parse_args())))
