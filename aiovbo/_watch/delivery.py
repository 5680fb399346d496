"""Changes on their way: saved, delivered, acknowledged; the servers take turns.

Knows changes and the keys of their records; does no I/O. They are saved before they come here.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define, field

from aiovbo._watch.changes import AnyChange, Change, CheckpointEntry
from aiovbo._watch.pending import PendingChange

MOST_WAITING = 100
"""Changes of one server that wait for the consumer; its next poll waits until there are fewer."""


@define(eq=False)
class _Found:
    """One change, until its acknowledgement is saved."""

    pending: PendingChange
    is_acknowledged: bool = False
    transaction: str | None = None
    """The consumer's transaction that has acknowledged it, until its outcome is known."""

    @property
    def change(self) -> AnyChange:
        """What is delivered."""
        return self.pending.change

    @property
    def step(self) -> CheckpointEntry:
        """What is saved once it is acknowledged: its record is deleted."""
        return CheckpointEntry(self.pending.key, None)

    @property
    def is_processed(self) -> bool:
        """Whether it is not delivered any more, unless a transaction is rolled back."""
        return self.is_acknowledged or self.transaction is not None


@define(eq=False)
class _ServerChanges:
    """The changes of one server whose acknowledgement is not saved yet."""

    waiting: deque[_Found] = field(factory=deque[_Found])
    """Not delivered yet, in the order in which they were found."""
    held: dict[UUID, _Found] = field(factory=dict[UUID, _Found])
    """All of them, by the keys of their records, in the order in which they were found."""
    unsaved: dict[UUID, deque[_Found]] = field(factory=dict[UUID, deque[_Found]])
    """By session: not acknowledged, or behind one that is not."""
    steps: list[CheckpointEntry] = field(factory=list[CheckpointEntry])
    """What is to be saved of those that are acknowledged."""
    has_room: asyncio.Event = field(factory=asyncio.Event)


class Delivery:
    """The changes of all servers, from when they are saved until their acknowledgement is.

    The consumer gets a change of each server in turn, the changes of one server in their order. They are
    acknowledged in any order. The records of one session's changes are deleted in their order: after a
    crash, an earlier change that is delivered again is followed by the later ones.
    """

    def __init__(self) -> None:
        self._servers: dict[str, _ServerChanges] = {}
        self._turns: asyncio.Queue[str | None] = asyncio.Queue()
        self._delivered: dict[str, list[_Found]] = {}
        self._to_save: dict[str, None] = {}
        self._discarded: WeakValueDictionary[int, Change] = WeakValueDictionary()
        self._committed: WeakValueDictionary[int, Change] = WeakValueDictionary()
        self.ignored_acks = 0
        """Acknowledgements that came after the server's changes were discarded."""

    # ------------------------------------------------------------------------------- the servers

    async def put(self, server: str, changes: Sequence[PendingChange]) -> None:
        """Add changes of one server, and wait until few enough of them wait for the consumer.

        All of them are added, also where this is cancelled. What is held already is left out.
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
            for pending in left:
                self._add(server, its, pending)

    def _add(self, server: str, its: _ServerChanges, pending: PendingChange) -> None:
        key = pending.key
        # Its changes may have been discarded while the poller waited for room.
        if self._servers.get(server) is not its or key in its.held:
            return
        if not its.waiting:
            self._turns.put_nowait(server)
        found = its.held[key] = _Found(pending)
        its.waiting.append(found)
        its.unsaved.setdefault(pending.subject, deque()).append(found)

    def backlog(self, server: str) -> int:
        """How many changes of a server wait for the consumer."""
        its = self._servers.get(server)
        return 0 if its is None else len(its.waiting)

    def is_delivered(self, server: str) -> bool:
        """Whether no change of a server waits for the consumer, or for the end of a transaction."""
        its = self._servers.get(server)
        return its is None or not (
            its.waiting or any(one.transaction is not None for one in its.held.values())
        )

    def held(self, server: str) -> set[UUID]:
        """The keys of a server's changes whose acknowledgement is not saved yet."""
        its = self._servers.get(server)
        return set() if its is None else set(its.held)

    def oldest(self, server: str) -> datetime | None:
        """When the oldest change of a server was found that is not acknowledged; None where all are."""
        its = self._servers.get(server)
        if its is None:
            return None
        # A copy: metrics are read in threads of their own.
        left = list(its.held.values())
        return next((one.pending.found_at for one in left if not one.is_processed), None)

    def forget(self, server: str) -> bool:
        """Discard what is known of a server of which nothing is left to deliver or save; whether it was."""
        its = self._servers.get(server)
        if its is not None and its.held:
            return False
        self._servers.pop(server, None)
        return True

    def discard(self, server: str) -> None:
        """Discard all changes of a server, which another process delivers from now on."""
        self._servers.pop(server, None)
        self._to_save.pop(server, None)
        for name, delivered in list(self._delivered.items()):
            for found in [found for found in delivered if found.change.server == server]:
                delivered.remove(found)
                self._discarded[id(found.change)] = found.change
            if not delivered:
                del self._delivered[name]

    def discarded(self, changes: Iterable[Change]) -> list[str]:
        """The servers of changes that were discarded after they were delivered."""
        return sorted({change.server for change in changes if self._is_discarded(change)})

    def _is_discarded(self, change: Change) -> bool:
        return self._discarded.get(id(change)) is change

    # ------------------------------------------------------------------------------ the consumer

    async def get(self) -> AnyChange | None:
        """The next change; None once there will be no more."""
        while (server := await self._turns.get()) is not None:
            its = self._servers.get(server)
            if its is None or not its.waiting:
                # Discarded meanwhile.
                continue
            found = its.waiting.popleft()
            its.has_room.set()
            if its.waiting:
                self._turns.put_nowait(server)
            if not found.is_processed:
                self._delivered.setdefault(found.change.id, []).append(found)
                return found.change
        # For other tasks that wait.
        self._turns.put_nowait(None)
        return None

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
        if self._is_discarded(change):
            self._discarded.pop(id(change), None)
            self.ignored_acks += 1
            return
        for found in self._delivered.pop(change.id, []):
            self._acknowledge(found)

    def acknowledge_all(self) -> None:
        """Note that every delivered change is processed."""
        delivered, self._delivered = self._delivered, {}
        for every in delivered.values():
            for found in every:
                self._acknowledge(found)

    def _acknowledge(self, found: _Found) -> None:
        if found.transaction is not None:
            # Processed if, and only if, that is committed.
            return
        found.is_acknowledged = True
        server = found.change.server
        self._release(server, self._servers[server], found.pending.subject)

    def _release(self, server: str, its: _ServerChanges, key: UUID) -> None:
        """Let the steps of a session be saved, up to the first change that is not acknowledged."""
        of_session = its.unsaved[key]
        while of_session and of_session[0].is_acknowledged:
            its.steps.append(of_session.popleft().step)
            self._to_save[server] = None
        if not of_session:
            del its.unsaved[key]

    @property
    def has_steps(self) -> bool:
        """Whether there is something to save."""
        return bool(self._to_save)

    def begin_save(self) -> tuple[str, list[CheckpointEntry]] | None:
        """What is to be saved of one server; None where there is nothing. Followed by `end_save`."""
        if not self._to_save:
            return None
        server = next(iter(self._to_save))
        del self._to_save[server]
        its = self._servers[server]
        steps, its.steps = its.steps, []
        return server, steps

    def end_save(
        self, server: str, saved: Sequence[CheckpointEntry] = (), unsaved: Sequence[CheckpointEntry] = ()
    ) -> None:
        """Note that a save has ended; steps that were not saved come before those that were added since."""
        its = self._servers.get(server)
        if its is None:
            return
        for step in saved:
            its.held.pop(step.session_id, None)
        if unsaved:
            its.steps[:0] = unsaved
            self._to_save[server] = None

    # --------------------------------------------------- what is saved in the consumer's transactions

    def _found(self, changes: Sequence[Change]) -> dict[str, dict[UUID, list[_Found]]]:
        """What is known of changes that are not acknowledged yet: by server and session, in their order."""
        wanted = {id(change) for change in changes}
        keys: dict[str, dict[UUID, list[_Found]]] = {}
        for change in changes:
            its = self._servers.get(change.server)
            if its is None or change.server in keys:
                continue
            chosen = keys[change.server] = dict[UUID, list[_Found]]()
            for key, of_session in its.unsaved.items():
                if found := [one for one in of_session if id(one.change) in wanted]:
                    chosen[key] = found
        return keys

    def steps(self, changes: Sequence[Change]) -> dict[str, list[CheckpointEntry]]:
        """What is to be saved of changes, by server."""
        return {
            server: [one.step for found in sessions.values() for one in found]
            for server, sessions in self._found(changes).items()
            if sessions
        }

    def is_blocked(self, changes: Sequence[Change], transaction: str | None = None) -> bool:
        """Whether an earlier change of one of their sessions is not saved, nor written in `transaction`."""
        for server, sessions in self._found(changes).items():
            for key, found in sessions.items():
                for one in self._servers[server].unsaved[key]:
                    if one is found[-1]:
                        break
                    if one not in found and (transaction is None or one.transaction != transaction):
                        return True
        return False

    def is_written(self, changes: Sequence[Change]) -> bool:
        """Whether one of them was written in a transaction that is open, or not known to be rolled back."""
        return any(
            one.transaction is not None
            for sessions in self._found(changes).values()
            for one in chain.from_iterable(sessions.values())
        )

    def is_committed(self, changes: Iterable[Change]) -> bool:
        """Whether one of them was saved in a transaction of the consumer."""
        return any(self._committed.get(id(change)) is change for change in changes)

    def write(self, changes: Sequence[Change], transaction: str) -> None:
        """Note that the steps of changes were written in a transaction."""
        for sessions in self._found(changes).values():
            for one in chain.from_iterable(sessions.values()):
                one.transaction = transaction
                self._undeliver(one)

    def settle(self, transaction: str, *, is_committed: bool) -> None:
        """Note what became of a transaction: its changes are saved, or are delivered again."""
        for server, its in list(self._servers.items()):
            written = {
                key: [one for one in of_session if one.transaction == transaction]
                for key, of_session in its.unsaved.items()
            }
            if not is_committed:
                self._deliver_again(server, its, list(chain.from_iterable(written.values())))
                continue
            for key, found in written.items():
                for one in found:
                    its.unsaved[key].remove(one)
                    its.held.pop(one.pending.key, None)
                    self._committed[id(one.change)] = one.change
                if found:
                    self._release(server, its, key)

    def redeliver(self, changes: Sequence[Change]) -> None:
        """Deliver changes again, unless they were discarded, before everything else of their servers."""
        for server, sessions in self._found(changes).items():
            found = {id(one.change): one for one in chain.from_iterable(sessions.values())}
            every = [found[id(change)] for change in changes if id(change) in found]
            every = [one for one in every if one.transaction is None]
            self._deliver_again(server, self._servers[server], every)

    def _deliver_again(self, server: str, its: _ServerChanges, every: Sequence[_Found]) -> None:
        for one in reversed(every):
            one.transaction = None
            self._undeliver(one)
            if one not in its.waiting:
                if not its.waiting:
                    self._turns.put_nowait(server)
                its.waiting.appendleft(one)

    def _undeliver(self, one: _Found) -> None:
        delivered = self._delivered.get(one.change.id, [])
        if one in delivered:
            delivered.remove(one)
            if not delivered:
                del self._delivered[one.change.id]
