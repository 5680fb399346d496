"""Changes on their way: found, delivered, acknowledged, ready to save; the servers take turns.

Knows changes and their steps; does no I/O. What is saved where is in `_watch` and `_checkpoint`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from uuid import UUID

from attrs import define, field

from aiovbo._watch.changes import AnyChange, Change, CheckpointEntry

MOST_WAITING = 100
"""Changes of one server that wait for the consumer; its next poll waits until there are fewer."""


@define(eq=False)
class _Found:
    """One change, until its step is saved."""

    change: AnyChange
    step: CheckpointEntry
    is_acknowledged: bool = False


@define(eq=False)
class _ServerChanges:
    """The changes of one server that are not saved yet."""

    waiting: deque[_Found] = field(factory=deque[_Found])
    """Not delivered yet, in the order in which they were found."""
    unsaved: dict[UUID, deque[_Found]] = field(factory=dict[UUID, deque[_Found]])
    """By session: not acknowledged, or behind one that is not."""
    steps: list[CheckpointEntry] = field(factory=list[CheckpointEntry])
    """Acknowledged, to be saved."""
    is_saving: bool = False
    has_room: asyncio.Event = field(factory=asyncio.Event)


class Delivery:
    """The changes of all servers, from when they are found until they are saved.

    The consumer gets a change of each server in turn, the changes of one server in their order. They are
    acknowledged in any order. The steps of one session are saved in the order of its changes: a step replaces
    what was saved of the session, and would hide an earlier change that has to be delivered again.
    """

    def __init__(self, only: Callable[[Change], object] | None = None) -> None:
        """Changes for which `only` is true; the others are acknowledged as they are found."""
        self._only = only
        self._servers: dict[str, _ServerChanges] = {}
        self._turns: asyncio.Queue[str | None] = asyncio.Queue()
        self._delivered: dict[str, list[_Found]] = {}
        self._to_save: dict[str, None] = {}

    # ------------------------------------------------------------------------------- the servers

    async def put(self, server: str, changes: Sequence[tuple[AnyChange, CheckpointEntry]]) -> None:
        """Add changes of one server, and wait until few enough of them wait for the consumer.

        All of them are added, also where this is cancelled: they are known already, and never found again.
        """
        its = self._servers.setdefault(server, _ServerChanges())
        left = deque(changes)
        try:
            while left:
                self._add(server, its, left.popleft())
                while len(its.waiting) > MOST_WAITING:
                    its.has_room.clear()
                    await its.has_room.wait()
        finally:
            for one in left:
                self._add(server, its, one)

    def _add(self, server: str, its: _ServerChanges, one: tuple[AnyChange, CheckpointEntry]) -> None:
        found = _Found(*one)
        if self._only is not None and not self._only(found.change):
            its.unsaved.setdefault(found.step.session_id, deque()).append(found)
            self._acknowledge(found)
            return
        if not its.waiting:
            self._turns.put_nowait(server)
        its.waiting.append(found)
        its.unsaved.setdefault(found.step.session_id, deque()).append(found)

    def backlog(self, server: str) -> int:
        """How many changes of a server wait for the consumer."""
        its = self._servers.get(server)
        return 0 if its is None else len(its.waiting)

    def unsaved(self, server: str) -> set[UUID]:
        """The sessions of which changes are still to be delivered or acknowledged."""
        its = self._servers.get(server)
        return set() if its is None else set(its.unsaved)

    def forget(self, server: str) -> bool:
        """Discard the record of a server of which nothing is left to deliver or save; whether it was."""
        its = self._servers.get(server)
        if its is not None:
            if its.waiting or its.unsaved or its.steps or its.is_saving:
                return False
            del self._servers[server]
        return True

    # ------------------------------------------------------------------------------ the consumer

    async def get(self) -> AnyChange | None:
        """The next change; None once there will be no more."""
        server = await self._turns.get()
        if server is None:
            # For other tasks that wait.
            self._turns.put_nowait(None)
            return None
        its = self._servers[server]
        found = its.waiting.popleft()
        its.has_room.set()
        if its.waiting:
            self._turns.put_nowait(server)
        self._delivered.setdefault(found.change.id, []).append(found)
        return found.change

    def interrupt(self) -> None:
        """Let every task that waits for a change get None."""
        self._turns.put_nowait(None)

    def close(self) -> None:
        """Deliver nothing more; what was acknowledged is still to be saved."""
        while not self._turns.empty():
            self._turns.get_nowait()
        self.interrupt()

    # --------------------------------------------------------------------------- what is to be saved

    def acknowledge(self, change: Change) -> None:
        """Note that one delivered change is processed."""
        for found in self._delivered.pop(change.id, []):
            self._acknowledge(found)

    def acknowledge_all(self) -> None:
        """Note that every delivered change is processed."""
        delivered, self._delivered = self._delivered, {}
        for every in delivered.values():
            for found in every:
                self._acknowledge(found)

    def _acknowledge(self, found: _Found) -> None:
        found.is_acknowledged = True
        its, key = self._servers[found.change.server], found.step.session_id
        of_session = its.unsaved[key]
        while of_session and of_session[0].is_acknowledged:
            its.steps.append(of_session.popleft().step)
            self._to_save[found.change.server] = None
        if not of_session:
            del its.unsaved[key]

    def save_also(self, server: str, steps: Sequence[CheckpointEntry]) -> None:
        """Add steps that belong to no change."""
        self._servers.setdefault(server, _ServerChanges()).steps.extend(steps)
        self._to_save[server] = None

    @property
    def has_steps(self) -> bool:
        """Whether there is something to save."""
        return bool(self._to_save)

    def begin_save(self) -> tuple[str, list[CheckpointEntry]] | None:
        """The steps of one server that are to be saved; None where there are none. Followed by `end_save`."""
        if not self._to_save:
            return None
        server = next(iter(self._to_save))
        del self._to_save[server]
        its = self._servers[server]
        steps, its.steps, its.is_saving = its.steps, [], True
        return server, steps

    def end_save(self, server: str, unsaved: Sequence[CheckpointEntry] = ()) -> None:
        """Note that a save has ended; steps that were not saved come before those that were added since."""
        its = self._servers[server]
        its.is_saving = False
        if unsaved:
            its.steps[:0] = unsaved
            self._to_save[server] = None
