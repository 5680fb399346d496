"""Leases: which servers of a watch this process watches, where several processes share one store.

Depends on the store through a protocol. Starts and stops servers through functions of the watch.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from attrs import frozen

from aiovbo._watch.changes import CheckpointEntry

log = logging.getLogger("aiovbo.watch")

_DRAIN_CHECK = 0.2
"""Seconds between two checks whether everything of a server that is handed over was delivered."""
_CLAIM_DELAY = 0.05
"""Seconds from the end of another process's lease until its servers are claimed."""
_ACK_RENEWALS = 3
"""Renewals in which the consumer can still acknowledge what was delivered of such a server."""


@frozen
class Leases:
    """What one renewal has found."""

    epochs: Mapping[str, int]
    """The servers that this process watches; each with a number that grows with every new lease."""
    surplus: int
    """How many of them are above the share of this process."""
    valid_until: float
    """When the process stops delivering unless it has renewed its leases, by `time.monotonic()`."""
    next_end: float = float("inf")
    """When the lease of another process ends unless that renews it, by `time.monotonic()`."""


@runtime_checkable
class LeaseStore(Protocol):
    """What a `CheckpointStore` has in addition if several processes share the servers of a watch."""

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals."""
        ...

    async def renew(self, servers: Collection[str]) -> Leases:
        """Renew this process's leases, and claim free servers up to its share; joins the group if needed."""
        ...

    async def release(self, servers: Collection[str]) -> Collection[str]:
        """Make servers free for other processes; those that are, because no transaction uses their leases."""
        ...

    async def leave(self) -> None:
        """End all leases of this process. The next renewal joins the group as a new process."""
        ...

    async def save_within(self, connection: object, steps: Mapping[str, Sequence[CheckpointEntry]]) -> str:
        """Write steps of several servers in the caller's transaction, and return the transaction's ID.

        Raises: LeaseLostError where another process has claimed one of the servers.
        """
        ...

    async def abort(self, connection: object) -> None:
        """Make sure that the caller's transaction cannot be committed."""
        ...

    async def outcomes(self, transactions: Collection[str]) -> dict[str, bool]:
        """Whether each transaction was committed; one that is still open is absent."""
        ...


class LeaseKeeper:
    """Renews the leases of one watch, and starts and stops its servers accordingly.

    - `members`: the servers of the fleet, by name.
    - `start`: begins to watch a server.
    - `revoke`: stops servers at once and discards what was found; the tasks that are still ending.
    - `drain`: stops polling a server; what was found of it is still delivered.
    - `is_delivered`: whether all of it was delivered, and is in no transaction that is still open.
    - `is_drained`: whether all of it was acknowledged and saved, too.
    - `settle`: updates what was acknowledged in transactions.
    """

    def __init__(
        self,
        store: LeaseStore,
        members: Mapping[str, Any],
        *,
        start: Callable[[str], None],
        revoke: Callable[[Collection[str]], Collection[asyncio.Task[None]]],
        drain: Callable[[str], None],
        is_delivered: Callable[[str], bool],
        is_drained: Callable[[str], bool],
        settle: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._store = store
        self._members = members
        self._start, self._revoke, self._drain = start, revoke, drain
        self._is_delivered, self._is_drained = is_delivered, is_drained
        self._settle = settle
        self._epochs: dict[str, int] = {}
        self._draining: dict[str, float] = {}
        self._releasing: dict[str, int] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._valid_until = float("-inf")
        self._must_rejoin = False
        self._wake = asyncio.Event()

    @property
    def is_valid(self) -> bool:
        """Whether the process may deliver: no other process can have claimed its servers yet."""
        return time.monotonic() < self._valid_until

    def wake(self) -> None:
        """Renew now, as after a server was added or lost."""
        self._wake.set()

    def lose(self, servers: Collection[str]) -> None:
        """Stop servers of which a lease was lost; whether others are lost is checked at once."""
        lost = [name for name in servers if self._epochs.pop(name, None) is not None]
        if lost:
            log.warning("the lease of %s has ended: watched here no more", ", ".join(sorted(lost)))
            self._stop(lost)
            self.wake()

    def expire(self) -> None:
        """Stop all servers: the leases were not renewed in time."""
        if self._epochs:
            log.warning("the leases of %d servers were not renewed in time", len(self._epochs))
        # Under the same ID, a transaction of before could still be committed.
        self._must_rejoin = True
        self._valid_until = float("-inf")
        self._stop(list(self._epochs))
        self._epochs.clear()
        self.wake()

    def _stop(self, servers: Collection[str]) -> None:
        for name in servers:
            self._draining.pop(name, None)
        self._ending |= set(self._revoke(servers))

    async def run(self) -> None:
        """Renew until cancelled.

        Raises: CheckpointError where the store could not be reached, after its own retries.
        """
        while True:
            self._wake.clear()
            if self._ending:
                # What they still do must not be taken for work under a later lease.
                await asyncio.wait(self._ending)
                self._ending.clear()
            if self._must_rejoin:
                await self._store.leave()
                self._must_rejoin = False
            began = time.monotonic()
            leases = await self._store.renew(list(self._members))
            if not self._must_rejoin:
                self._follow(leases)
            await self._settle()
            # Live processes renew long before. What a dead one had is claimed as soon as it is free.
            await self._release_until(min(began + self._store.renew_every, leases.next_end + _CLAIM_DELAY))

    def _follow(self, leases: Leases) -> None:
        lost = [name for name, epoch in self._epochs.items() if leases.epochs.get(name) != epoch]
        if lost:
            log.warning("the leases of %d servers have ended", len(lost))
            for name in lost:
                del self._epochs[name]
            self._stop(lost)
        self._valid_until = leases.valid_until
        self._releasing = {
            name: epoch for name, epoch in self._releasing.items() if leases.epochs.get(name) == epoch
        }
        for name in leases.epochs.keys() - self._epochs.keys() - self._releasing.keys():
            self._epochs[name] = leases.epochs[name]
            if name in self._members:
                self._start(name)
            else:
                self.hand_over(name)
        surplus = leases.surplus - len(self._draining.keys() & self._members.keys())
        for name in [name for name in self._epochs if name not in self._draining][: max(0, surplus)]:
            self.hand_over(name)

    def hand_over(self, name: str) -> None:
        """Stop polling a server, and release it once what was found of it was delivered."""
        if name in self._epochs and name not in self._draining:
            self._draining[name] = time.monotonic()
            self._drain(name)

    async def _release_until(self, moment: float) -> None:
        """Release servers as they are drained, until the next renewal is due."""
        while not self._wake.is_set() and (left := moment - time.monotonic()) > 0:
            self._end_draining()
            if self._releasing:
                for name in await self._store.release(list(self._releasing)):
                    self._releasing.pop(name, None)
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    min(left, _DRAIN_CHECK) if self._draining or self._releasing else left
                ):
                    await self._wake.wait()
            if self._draining:
                await self._settle()

    def _end_draining(self) -> None:
        now = time.monotonic()
        for name, since in list(self._draining.items()):
            if not self._is_delivered(name):
                self._draining[name] = now
            elif self._is_drained(name) or now - since > _ACK_RENEWALS * self._store.renew_every:
                # Under this lease nothing more is done, also if a transaction keeps it for a while.
                self._releasing[name] = self._epochs.pop(name)
                self._stop([name])
