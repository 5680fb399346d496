"""A restore session that is started and stopped again, whatever happens in between.

Knows tasks and cancellation; how a session is started and stopped is handed in.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from aiovbo._core.timers import wait_at_most
from aiovbo._settings.clock import TimeSource
from aiovbo.errors import BEFORE_SENDING, ClosedError, PayloadError, ServerError
from aiovbo.models import RestoreSession

log = logging.getLogger("aiovbo.explore")

GRACE = 5.0
"""Seconds for which a cancellation waits until a session that may have been started is stopped again."""

T = TypeVar("T")
Failure = ServerError | ClosedError

_under_way: set[asyncio.Task[Any]] = set()
"""Starts and stops that are not over: asyncio itself would not keep them from the garbage collector."""


class Exploration:
    """A restore session to be started: `await` it, or enter it, which stops the session at the end.

    Cancelled at any moment, it stops what was started or may have been before the cancellation goes on, for
    five seconds at most, or until it is cancelled once more. Where that does not do, the `CancelledError` has
    a note and the log a warning with the session's id, and the stop goes on until the client closes.
    """

    def __init__(
        self,
        server: str,
        start: Callable[[], Coroutine[Any, Any, RestoreSession]],
        stop: Callable[[RestoreSession], Coroutine[Any, Any, None]],
        clock: TimeSource,
    ) -> None:
        self._server = server
        self._clock = clock
        self._start = start
        self._stop = stop
        self._session: RestoreSession | None = None
        self._is_entered = False

    def __await__(self) -> Generator[Any, None, RestoreSession]:
        return self._begin().__await__()

    async def __aenter__(self) -> RestoreSession:
        if self._is_entered:
            message = "an exploration is one session: call explore(...) again for another"
            raise ClosedError(message)
        self._is_entered = True
        self._session = await self._begin()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        ending = _in_task(self._end(session))
        if isinstance(error, asyncio.CancelledError):
            await self._outlast(ending, error, session)
            return
        try:
            failure = await asyncio.shield(ending)
        except asyncio.CancelledError as cancelled:
            await self._outlast(ending, cancelled, session)
            raise
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not None:
            error.add_note(f"{self._left_open(session)}: {failure}")

    async def _begin(self) -> RestoreSession:
        starting = _in_task(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError as cancelled:
            await self._outlast(_in_task(self._undo(starting)), cancelled, starting)
            raise

    async def _undo(self, starting: asyncio.Task[RestoreSession]) -> Failure | None:
        """Stop what is being started; what went wrong, if anything may be open."""
        # The request may have arrived: only its response identifies the session to stop.
        await asyncio.wait([starting])
        if starting.cancelled():
            return ClosedError("its start was cut off")
        failure = starting.exception()
        if failure is None:
            return await self._end(starting.result())
        return failure if isinstance(failure, Failure) and _may_have_arrived(failure) else None

    async def _end(self, session: RestoreSession) -> Failure | None:
        """Stop the session; what went wrong, if anything did."""
        try:
            await self._stop(session)
        except (ServerError, ClosedError) as failure:
            return failure
        return None

    async def _outlast(
        self,
        ending: asyncio.Task[Failure | None],
        cancelled: asyncio.CancelledError,
        session: RestoreSession | asyncio.Task[RestoreSession],
    ) -> None:
        """Wait for the end for as long as a cancellation can wait, and report where that was too short."""
        try:
            await wait_at_most(GRACE, self._clock, ending)
        except asyncio.CancelledError as again:
            cancelled = again
            raise
        finally:
            if not ending.done() or ending.cancelled() or ending.result() is not None:
                warning = self._left_open(session)
                cancelled.add_note(warning)
                log.warning("%s", warning)

    def _left_open(self, session: RestoreSession | asyncio.Task[RestoreSession]) -> str:
        if isinstance(session, asyncio.Task):
            known = session.done() and not session.cancelled() and session.exception() is None
            if not known:
                return f"a restore session may have been started on {self._server}, and be open still"
            session = session.result()
        return f"restore session {session.id} on {self._server} may be open still"


def _may_have_arrived(failure: Failure) -> bool:
    if isinstance(failure, ServerError) and not isinstance(failure, PayloadError):
        return failure.retryable and failure.phase not in BEFORE_SENDING
    return True


def _in_task(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.create_task(coroutine, name="aiovbo exploration")
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return task
