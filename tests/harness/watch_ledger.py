"""What tests of a watch use: a clock in steps, a store that notes what is saved, a consumer."""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiovbo import (
    Added,
    Change,
    Changed,
    CheckpointEntry,
    CheckpointStore,
    Finished,
    Recovered,
    Removed,
    ServerCheckpoint,
    SessionRecord,
    Unreachable,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)

OF_SERVER = UUID(int=0)
"""Stands for a session in what is saved of the server itself."""

Looks = tuple[str, str | None, datetime | None]


class StepClock:
    """Time that passes when a test says so; sleeping tasks are woken then."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.wrong = timedelta()
        """How far the wall clock is ahead of what it should be."""
        self.due: float | None = None
        """Until when the lookout sleeps; None while it is at work."""
        self.idle = asyncio.Event()
        self._morning = asyncio.Event()

    def monotonic(self) -> float:
        return self.elapsed

    def now(self) -> datetime:
        # A little ahead of the server's.
        return NOW + timedelta(minutes=5, seconds=self.elapsed) + self.wrong

    def random(self) -> float:
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self.due = self.elapsed + seconds
        self.idle.set()
        try:
            await self._morning.wait()
        finally:
            self.due = None
            self.idle.clear()
            self._morning.clear()

    def wake(self) -> None:
        """Let the sleeper go on."""
        self._morning.set()


class Ledger:
    """A store that notes which of the delivered changes are saved as acknowledged."""

    def __init__(self, store: CheckpointStore, delivered: list[Change]) -> None:
        self._store = store
        self._delivered = delivered
        self.pending: dict[UUID, str] = {}
        """The IDs of the changes that are saved and not acknowledged, by the keys of their records."""
        self.saved = set(range(len(delivered)))
        """Which of `delivered` are saved as acknowledged."""
        self.busy = 0
        """Saves that have not returned: what they have written may be on the disk already."""

    async def open(self) -> None:
        await self._store.open()

    async def load(self, server: str) -> ServerCheckpoint | None:
        place = await self._store.load(server)
        self._note([] if place is None else place.known.items())
        return place

    async def servers(self) -> dict[str, UUID | None]:
        return await self._store.servers()

    async def save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        self.busy += 1
        try:
            await self._store.save(server, steps, horizon, installation)
        finally:
            self.busy -= 1
        for step in steps:
            if step.known is None and step.session_id in self.pending:
                name = self.pending.pop(step.session_id)
                self.saved |= {
                    number
                    for number, change in enumerate(self._delivered)
                    if change.id == name and number not in self.saved
                }
        self._note([(step.session_id, step.known) for step in steps if step.known is not None])

    def _note(self, records: Iterable[tuple[UUID, SessionRecord]]) -> None:
        pending = {key: one for key, one in records if one.kind == "pending"}
        self.pending |= {key: json.loads(one.marks)["id"] for key, one in pending.items()}

    async def close(self) -> None:
        await self._store.close()


def session_of(change: Change) -> UUID:
    """The session that a change is about."""
    if isinstance(change, Unreachable | Recovered):
        return OF_SERVER
    if isinstance(change, Removed):
        return change.session_id
    assert isinstance(change, Added | Changed | Finished)
    return change.session.id


def looks_of(thing: Any) -> Looks:  # a session of the SDK's, or of the world's
    """What a watch reports of a session."""
    return str(thing.state), None if thing.result is None else str(thing.result), thing.end_time


class Consumer:
    """What a consumer knows that received these changes, in this order."""

    def __init__(
        self, delivered: Sequence[Change], unannounced: set[UUID], may_repeat: Callable[[UUID], bool]
    ) -> None:
        self.sessions: dict[UUID, Looks] = {}
        self.finished: set[UUID] = set()
        seen: set[str] = set()
        for change in delivered:
            key = session_of(change)
            assert change.id not in seen or may_repeat(key), f"delivered twice without a crash: {change}"
            seen.add(change.id)
            if key == OF_SERVER:
                continue
            if isinstance(change, Removed):
                assert key in self.sessions or key in unannounced, f"never heard of: {change}"
                self.sessions.pop(key, None)
                self.finished.discard(key)
                continue
            assert isinstance(change, Added | Changed | Finished)
            if isinstance(change, Added):
                assert key not in self.sessions or may_repeat(key), f"added twice: {change}"
                self.finished.discard(key)
            else:
                assert key in self.sessions or key in unannounced, f"not added: {change}"
            self.sessions[key] = looks = looks_of(change.session)
            if isinstance(change, Finished):
                assert key not in self.finished, f"finished twice: {change}"
                assert looks[0] == "Stopped", f"not finished at all: {change}"
                self.finished.add(key)
            elif isinstance(change, Changed):
                if looks[0] != "Stopped":
                    self.finished.discard(key)
                assert looks[0] != "Stopped" or key in self.finished or key in unannounced, (
                    f"an end: {change}"
                )
