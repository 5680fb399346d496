"""Checkpoints of servers that got another name: found by the installation that each server reports.

Knows the store and which names are watched; does not know what a checkpoint contains.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol
from uuid import UUID

from attrs import evolve

from aiovbo._watch.changes import CheckpointEntry, ServerCheckpoint
from aiovbo._watch.checkpoint import CheckpointStore

log = logging.getLogger("aiovbo.watch")

_FEW = 3
_KEPT = " (installation "
"""Follows the name of a server whose checkpoint is kept for another name that has not requested it yet."""


class WatchedServer(Protocol):
    """What is needed of the poller of a server."""

    @property
    def reported(self) -> UUID | None:
        """The installation that the server has reported; None where it has not."""
        ...

    async def wait_for_report(self) -> None:
        """Wait until it was polled, successfully or not."""
        ...

    async def adopt(self, place: ServerCheckpoint) -> None:
        """Continue from another checkpoint."""
        ...


class FormerNames:
    """Where the checkpoint of an installation is that is new under its name, or was swapped with another."""

    def __init__(
        self, store: CheckpointStore, poller_of: Callable[[str], WatchedServer | None], *, is_shared: bool
    ) -> None:
        """For the servers that have a poller; `is_shared` where other processes watch the rest."""
        self._store = store
        self._poller_of = poller_of
        self._is_shared = is_shared
        # Two servers that were swapped take over each other's checkpoint one after the other.
        self._turn = asyncio.Lock()

    async def adopt(
        self,
        name: str,
        installation: UUID | None,
        known: UUID | None,
        members: Collection[str],
        poller: WatchedServer,
    ) -> bool | None:
        """Let a server continue from the checkpoint of its installation; whether there is one.

        None where it has to wait: changes that were found under the former name are not acknowledged yet, and
        what is found under this one must not overtake them.

        - `known`: the installation that its own checkpoint is of; None where it has none.
        - `members`: the names that are in use.
        - `poller`: what continues.
        """
        if known is None:
            await self._wait_for_others(name, installation)
        elif self._is_shared:
            # Only the process that watches a server may change its checkpoint.
            return False
        async with self._turn:
            kept = await self._store.servers()
            former = self._find(name, installation, is_new=known is None, kept=kept)
            if former is None:
                if known is None:
                    await self._warn(name, installation, kept, members)
                return False
            place = await self._store.load(former)
            if place is None:
                return False
            is_used = former in members
            own = None if known is None else await self._store.load(name)
            if is_used and self._is_shared:
                # Another process may watch it, and delivers what is pending. That may take long: do not wait.
                place = _without_pending(place)
            if (is_used and _has_pending(place)) or (own is not None and _has_pending(own)):
                log.info("%s was called %s: waits for changes that are not acknowledged", name, former)
                return None
            log.warning("%s is the installation that was called %s, and goes on there", name, former)
            # One that was kept by an earlier swap is outdated.
            others = {its for other, its in kept.items() if other != name and _KEPT not in other}
            if known is not None and known not in others:
                await self._keep(name, known)
            await poller.adopt(place)
            if not is_used and not self._is_shared:
                await self._clear(former, place)
            return True

    async def _wait_for_others(self, name: str, installation: UUID | None) -> None:
        """Wait until servers have reported their installation whose checkpoint is of this one."""
        for other, its in (await self._store.servers()).items():
            if its is not None and its == installation and other != name:
                poller = self._poller_of(other)
                if poller is not None:
                    await poller.wait_for_report()

    def _find(
        self, name: str, installation: UUID | None, *, is_new: bool, kept: Mapping[str, UUID | None]
    ) -> str | None:
        for other in reversed(list(kept)):
            if other == name or installation is None or kept[other] != installation:
                continue
            poller = self._poller_of(other)
            # A clone beside its original, or a second view on it, has a checkpoint of its own.
            if not is_new or poller is None or poller.reported != installation:
                return other
        return None

    async def _keep(self, name: str, installation: UUID) -> None:
        """Keep the checkpoint of a name for the server that had it, until that requests it."""
        place = await self._store.load(name)
        if place is not None:
            kept = f"{name}{_KEPT}{installation})"
            before = await self._store.load(kept)
            entries = [CheckpointEntry(key, None) for key in (before.known if before else ())]
            entries += [CheckpointEntry(key, one) for key, one in place.known.items()]
            await self._store.save(kept, entries, place.horizon, installation)

    async def _clear(self, former: str, place: ServerCheckpoint) -> None:
        """Leave nothing under a name that is not used: its server may get it back, and is further by then."""
        await self._store.save(former, [CheckpointEntry(key, None) for key in place.known], None, None)

    async def _warn(
        self, name: str, installation: UUID | None, kept: Mapping[str, UUID | None], members: Collection[str]
    ) -> None:
        left = [other for other in reversed(list(kept)) if other not in members and _KEPT not in other]
        unknown: list[str] = []
        for other in left:
            if kept[other] is None or installation is None:
                place = await self._store.load(other)
                if place is not None and place.known and len(unknown) < _FEW:
                    unknown.append(other)
        if unknown:
            log.warning(
                "%s is new, and its watch begins now; if it was called %s before, give it that name again",
                name,
                " or ".join(unknown),
            )


def _has_pending(place: ServerCheckpoint) -> bool:
    return any(one.kind == "pending" for one in place.known.values())


def _without_pending(place: ServerCheckpoint) -> ServerCheckpoint:
    return evolve(place, known={key: one for key, one in place.known.items() if one.kind != "pending"})
