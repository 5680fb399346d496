"""Watching a fleet: every change at least once, in each server's order, and none lost over a crash.

Knows when to look, what to ask, and what has been delivered; what a look means is in `_changes`, where the
place is kept in `_checkpoint`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from attrs import define, frozen

from aiovbo._changes import Change, Heartbeat, Place, Recovered, Step, Tracker, Unreachable
from aiovbo._checkpoint import CheckpointStore
from aiovbo._client import Client
from aiovbo._config import Clock
from aiovbo.errors import ClosedError, ForbiddenError, NotFoundError, ResponseError, ServerError
from aiovbo.models import RestoreSession

log = logging.getLogger("aiovbo.watch")

_WAITING = 100
"""Changes of all servers that wait for the consumer; no more are looked for until it is through."""
_ONE_BY_ONE = 10
"""Sessions up to which each is fetched by its id; more are listed."""
_SPREAD = 5.0
"""Seconds over which the first looks are spread, at most."""
_LONGEST_BACKOFF = 300.0
_FEED_PAGE = 1000
_FEED_PAUSE = 1.0
_LONGEST_POLL = 25.0


@frozen(kw_only=True)
class WatchOptions:
    """How a fleet is watched."""

    every: timedelta
    """From one look at a server to the next."""
    since: datetime | None
    """On the very first start: sessions created after are told, even if they have ended already."""
    overlap: timedelta
    """How far each look reaches back before the newest session, for rows that appear late."""
    full_look_every: timedelta
    """How often everything that is remembered is looked at."""
    remember: timedelta
    """How long sessions that have ended are remembered, before the newest one."""
    heartbeat: timedelta | None
    """After how long a silence there is a `Heartbeat`."""
    ack_by_hand: bool
    """Whether changes are acknowledged by `ack`, instead of by asking for the next."""
    clock: Clock


@frozen(kw_only=True)
class WatchStatus:
    """How the watch of one server goes."""

    server: str
    """The server's name."""
    up: bool
    """Whether the last look succeeded; False before the first one."""
    last_success: datetime | None
    """When; None while there was none."""
    lag: timedelta | None
    """How long ago that is: nothing newer is known of the server."""
    next_look: datetime | None
    """When it is looked at again; None while it is being looked at."""
    backlog: int
    """Changes that were found and not yet delivered."""
    errors: int
    """Looks that failed, in a row."""
    overruns: int
    """Looks that were left out because the one before took too long."""


@define
class _Watched:
    """One server that is being watched."""

    client: Client
    tracker: Tracker
    up: bool = False
    was_told: bool = False
    """Whether its being out of reach was told."""
    last_success: datetime | None = None
    next_look: datetime | None = None
    backlog: int = 0
    errors: int = 0
    overruns: int = 0
    full_look_at: float = float("-inf")
    token: str | None = None
    """Where the change feed goes on; None: it is not used."""
    task: "asyncio.Task[None] | None" = None


class Watch:
    """Changes of all servers of a fleet: `async with fleet.watch(...) as changes`, then iterate.

    A change counts as delivered when the next one is asked for, or by `ack` where that was chosen. The place
    is saved after that: a crash repeats changes, with the same `id`, and loses none.
    """

    def __init__(
        self, clients: Iterable[Client], options: WatchOptions, checkpoint: CheckpointStore,
        running: "set[Watch]",
    ) -> None:  # fmt: skip
        self._clients = list(clients)
        self._options = options
        self._checkpoint = checkpoint
        self._running = running
        self._watched: dict[str, _Watched] = {}
        self._queue: asyncio.Queue[tuple[Change, Step | None] | None] = asyncio.Queue(_WAITING)
        self._unacked: OrderedDict[str, tuple[Change, Step | None]] = OrderedDict()
        self._to_save: dict[str, list[Step]] = {}
        self._news = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._closed = False

    # ------------------------------------------------------------------------------- the consumer

    async def __aenter__(self) -> Self:
        await self._checkpoint.open()
        self._running.add(self)
        self._saver = asyncio.create_task(self._save_forever(), name="aiovbo watch saves")
        for client in self._clients:
            self.add(client)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        if not self._options.ack_by_hand:
            self._ack_all()
        wait = self._options.heartbeat
        while True:
            self._check()
            try:
                async with asyncio.timeout(None if wait is None else wait.total_seconds()):
                    found = await self._queue.get()
            except TimeoutError:
                return self._heartbeat()
            if found is not None:
                break
        change, step = found
        watched = self._watched.get(change.server)
        if watched is not None and step is not None:
            watched.backlog -= 1
        if step is not None:
            self._unacked[change.id] = found
        return change

    def ack(self, change: Change) -> None:
        """Note that a change is dealt with, and with it all earlier ones of its server.

        The place is saved a moment later; a crash before repeats the change.
        """
        if change.id not in self._unacked:
            return
        for name, (earlier, step) in list(self._unacked.items()):
            if earlier.server == change.server:
                del self._unacked[name]
                if step is not None:
                    self._to_save.setdefault(change.server, []).append(step)
            if name == change.id:
                break
        self._news.set()

    def _ack_all(self) -> None:
        for change, _ in list(self._unacked.values()):
            self.ack(change)

    def status(self) -> dict[str, WatchStatus]:
        """How the watch of each server goes, by name."""
        now = self._options.clock.now()
        return {
            name: WatchStatus(
                server=name,
                up=one.up,
                last_success=one.last_success,
                lag=None if one.last_success is None else now - one.last_success,
                next_look=one.next_look,
                backlog=one.backlog,
                errors=one.errors,
                overruns=one.overruns,
            )
            for name, one in self._watched.items()
        }

    async def aclose(self) -> None:
        """Stop looking, save what was acknowledged, let go of the checkpoint; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._running.discard(self)
        tasks = [one.task for one in self._watched.values() if one.task is not None]
        if self._saver is not None:
            tasks.append(self._saver)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        try:
            if self._failure is None:
                await self._save()
        finally:
            await self._checkpoint.close()
            # Whoever still waits for a change hears that there will be none.
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(None)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            message = "the watch is closed"
            raise ClosedError(message)

    def _heartbeat(self) -> Heartbeat:
        now = self._options.clock.now()
        up = sum(one.up for one in self._watched.values())
        return Heartbeat(server="", id=f"heartbeat/{now.isoformat()}", up=up)

    # --------------------------------------------------------------------------------- the place

    async def _save_forever(self) -> None:
        try:
            while True:
                await self._news.wait()
                await self._save()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # it is the consumer's to hear
            self._fail(error)

    async def _save(self) -> None:
        while self._to_save:
            self._news.clear()
            server = next(iter(self._to_save))
            steps = self._to_save.pop(server)
            watched = self._watched.get(server)
            try:
                horizon = None if watched is None else watched.tracker.horizon
                await self._checkpoint.save(server, steps, horizon)
            except BaseException:
                # Not saved is not lost: it goes before what came since.
                self._to_save[server] = [*steps, *self._to_save.get(server, [])]
                raise
        self._news.clear()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    # -------------------------------------------------------------------------------- the servers

    def add(self, client: Client) -> None:
        """Watch one more server."""
        watched = _Watched(client, self._tracker(client, None))
        self._watched[client.name] = watched
        watched.task = asyncio.create_task(self._follow(watched), name=f"aiovbo watch {client.name}")

    def _tracker(self, client: Client, place: Place | None) -> Tracker:
        return Tracker(client.name, place, self._options.since, self._options.remember)

    def remove(self, name: str) -> None:
        """Watch a server no more; what waits of it is still delivered, its place stays saved."""
        watched = self._watched.pop(name, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    async def _follow(self, watched: _Watched) -> None:
        clock, every = self._options.clock, self._options.every.total_seconds()
        phase = _phase(watched.client.name)
        try:
            place = await self._checkpoint.load(watched.client.name)
            watched.tracker = self._tracker(watched.client, place)
            await self._pause(watched, phase * min(every, _SPREAD))
            while True:
                watched.next_look = None
                began = clock.monotonic()
                pause = await self._try_to_look(watched)
                if pause is None:
                    passed = clock.monotonic() - began
                    beats = int(passed // every)
                    if beats:
                        watched.overruns += beats
                        name = watched.client.name
                        log.info("%s: a look took %.1f s, longer than %g s", name, passed, every)
                    # The next beat of its own, which is the same before and after a restart.
                    pause = (phase * every - clock.now().timestamp()) % every
                    if pause < every / 4 and passed < every / 2:
                        pause += every
                await self._pause(watched, pause)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  # a bug, or a checkpoint that fails: the consumer's to hear
            self._fail(error)

    async def _pause(self, watched: _Watched, seconds: float) -> None:
        watched.next_look = self._options.clock.now() + timedelta(seconds=seconds)
        await self._options.clock.sleep(seconds)

    async def _try_to_look(self, watched: _Watched) -> float | None:
        """Look, and tell how it went; seconds until the next look where that is not the next beat."""
        clock, name = self._options.clock, watched.client.name
        # A server that is down is probed by a single request.
        watched.client.begin_operation(may_retry=watched.errors == 0)
        try:
            pause = await self._look(watched)
        except ServerError as error:
            watched.errors += 1
            log.info("%s: look %d in a row that failed: %s", name, watched.errors, error)
            watched.up = False
            # All may have changed when it is back.
            watched.full_look_at, watched.token = float("-inf"), None
            if not watched.was_told:
                watched.was_told = True
                key = f"{name}/unreachable/{clock.now().isoformat()}"
                await self._deliver(watched, [(Unreachable(server=name, id=key, error=error), None)])
            every = self._options.every.total_seconds()
            longest = max(every, _LONGEST_BACKOFF)
            backoff: float = min(longest, every * 2 ** min(watched.errors - 1, 16))
            return backoff * (0.5 + clock.random() / 2)
        watched.errors = 0
        watched.up = True
        watched.last_success = clock.now()
        return pause

    async def _deliver(self, watched: _Watched, told: Sequence[tuple[Change, Step | None]]) -> None:
        for change, step in told:
            if step is not None:
                watched.backlog += 1
            await self._queue.put((change, step))

    async def _heard(self, watched: _Watched) -> None:
        """The server has answered: if it had been out of reach, that is over."""
        if watched.was_told:
            watched.was_told = False
            now = self._options.clock.now()
            gap = now - watched.last_success if watched.last_success else timedelta()
            name = watched.client.name
            told = Recovered(server=name, id=f"{name}/recovered/{now.isoformat()}", gap=gap)
            await self._deliver(watched, [(told, None)])

    # ---------------------------------------------------------------------------------- one look

    async def _look(self, watched: _Watched) -> float | None:
        clock = self._options.clock
        if clock.monotonic() >= watched.full_look_at:
            # The token first: what changes during the look is in the feed after it.
            watched.token = await self._latest_token(watched.client)
            await self._look_at_all(watched)
            every = self._options.full_look_every.total_seconds()
            watched.full_look_at = clock.monotonic() + every * (0.9 + clock.random() / 5)
            return None
        if watched.token is not None:
            return await self._look_at_feed(watched)
        await self._look_at_latest(watched)
        return None

    async def _look_at_all(self, watched: _Watched) -> None:
        """Everything that is remembered, and all that is unfinished; what is gone is noticed."""
        tracker = watched.tracker
        sessions = await self._list(watched, tracker.horizon)
        steps = tracker.begin(sessions)
        await self._checkpoint.save(watched.client.name, steps, tracker.horizon)
        await self._observe(watched, sessions)
        gone = tracker.missing([one.id for one in sessions], tracker.horizon)
        await self._confirm_removed(watched, gone)
        if tracker.horizon is not None:
            await self._fetch_each(watched, tracker.open_before(tracker.horizon))
        forgotten = tracker.forget()
        if forgotten:
            self._to_save.setdefault(watched.client.name, []).extend(forgotten)
            self._news.set()

    async def _look_at_latest(self, watched: _Watched) -> None:
        """What is new since the newest session, with the overlap, and what is unfinished."""
        tracker = watched.tracker
        newest = tracker.cursor
        start = None if newest is None else newest - self._options.overlap
        unfinished: list[UUID] = []
        if start is not None:
            unfinished = tracker.open_before(start)
            if len(unfinished) > _ONE_BY_ONE:
                # One list that reaches further back is cheaper than many requests.
                start = min(tracker.known[key].created for key in unfinished)
                unfinished = []
        sessions = await self._list(watched, start)
        await self._observe(watched, sessions)
        gone = tracker.missing([one.id for one in sessions], start)
        if gone:
            # Where something vanished that had just been there, more may have.
            await self._look_at_all(watched)
            return
        await self._fetch_each(watched, unfinished)

    async def _list(self, watched: _Watched, start: datetime | None) -> list[RestoreSession]:
        """All sessions created at or after `start`."""
        # The API's bound is exclusive, and knows more digits than we do.
        after = None if start is None else start - timedelta(microseconds=1)
        answer = await watched.client.restore_sessions(started_after=after).answer()
        if answer.error is not None:
            raise answer.error
        await self._heard(watched)
        return sorted(answer.items, key=lambda one: one.creation_time)

    async def _observe(self, watched: _Watched, sessions: Iterable[RestoreSession]) -> None:
        for session in sessions:
            await self._deliver(watched, watched.tracker.observe(session))

    async def _fetch_each(self, watched: _Watched, ids: Iterable[UUID]) -> None:
        gone: list[UUID] = []
        for key in ids:
            try:
                session = await watched.client.fetch_restore_session(key)
            except NotFoundError:
                gone.append(key)
            else:
                await self._observe(watched, [session])
        await self._deliver(watched, watched.tracker.remove(gone))

    async def _confirm_removed(self, watched: _Watched, ids: list[UUID]) -> None:
        """Rows that move while a list is read may be missed; only who is not found is gone."""
        if len(ids) <= _ONE_BY_ONE:
            await self._fetch_each(watched, ids)
            return
        sessions = await self._list(watched, watched.tracker.horizon)
        there = {one.id for one in sessions}
        await self._observe(watched, sessions)
        gone = [key for key in ids if key not in there]
        await self._deliver(watched, watched.tracker.remove(gone))

    # ------------------------------------------------------------------------- the feed, since v8

    async def _latest_token(self, client: Client) -> str | None:
        """Where the change feed goes on from now; None on servers that have none.

        Source: operation Events_Get, v8, read 2026-11-23.
        """
        if await client.fetch_api_version() != "v8":
            return None
        try:
            page = await client.fetch("Events?from=latest&limit=1")
        except (NotFoundError, ForbiddenError) as error:
            log.info("%s: no change feed, lists are polled: %s", client.name, error.what)
            return None
        token = page.get("nextChangeToken")
        return token if isinstance(token, str) and token.isprintable() else None

    async def _look_at_feed(self, watched: _Watched) -> float | None:
        seconds = int(min(self._options.every.total_seconds(), _LONGEST_POLL, watched.client.patience / 2))
        path = f"Events?from={watched.token}&limit={_FEED_PAGE}&timeoutSeconds={seconds}"
        try:
            page = await watched.client.fetch(path)
        except ResponseError as error:
            if error.error_code != "OutdatedChangeToken":
                raise
            watched.token = await self._latest_token(watched.client)
            await self._look_at_all(watched)
            return None
        await self._heard(watched)
        updated: dict[UUID, None] = {}
        deleted: list[UUID] = []
        for event in cast("list[object]", page.get("results") or []):
            kind, key = _of_a_session(event)
            if key is not None and kind == "RestoreSessionUpdate":
                updated[key] = None
            elif key is not None and kind == "RestoreSessionDelete":
                deleted.append(key)
        if len(updated) > _ONE_BY_ONE or len(deleted) > _ONE_BY_ONE:
            await self._look_at_all(watched)
        else:
            await self._fetch_each(watched, dict.fromkeys([*updated, *deleted]))
        watched.token = str(page.get("nextChangeToken") or "") or None
        if watched.token is None:
            watched.full_look_at = float("-inf")
        # A poll that waited took the interval itself; only a busy feed needs a rest.
        return min(_FEED_PAUSE, self._options.every.total_seconds()) if seconds else None


def _of_a_session(event: object) -> tuple[str, UUID | None]:
    if isinstance(event, dict):
        members = cast("dict[str, object]", event)
        kind, key = str(members.get("eventType")), members.get("id")
        if kind.startswith("RestoreSession") and isinstance(key, str):
            try:
                return kind, UUID(key)
            except ValueError:
                pass
    return "", None


def _phase(name: str) -> float:
    """A server's own steady place in every interval, from 0 to 1, the same in every process."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
