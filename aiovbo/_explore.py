"""A restore session that is started and stopped again, whatever happens in between.

Knows tasks and cancellation; how a session is started and stopped is handed in.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from aiovbo.errors import ConflictError, NotFoundError, ServerError
from aiovbo.models import RestoreSession

log = logging.getLogger("aiovbo.explore")

GRACE = 5.0
"""Seconds for which a cancellation waits until a session that may have been started is stopped again."""


class Exploration:
    """A restore session to be started: `await` it, or enter it, which stops the session at the end.

    Cancelled while it starts, it stops what may have been started already before the cancellation goes on.
    """

    def __init__(
        self,
        start: Callable[[], Coroutine[Any, Any, RestoreSession]],
        stop: Callable[[RestoreSession], Awaitable[None]],
    ) -> None:
        self._start = start
        self._stop = stop
        self._session: RestoreSession | None = None

    def __await__(self) -> Generator[Any, None, RestoreSession]:
        return self._begin().__await__()

    async def __aenter__(self) -> RestoreSession:
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
        ending = asyncio.create_task(self._end(session), name="aiovbo end of exploration")
        try:
            failure = await asyncio.shield(ending)
        except asyncio.CancelledError as cancelled:
            await asyncio.wait([ending], timeout=GRACE)
            failure = None if ending.cancelled() or not ending.done() else ending.result()
            if failure is not None or not ending.done():
                cancelled.add_note(_left_open(session))
            raise
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not None:
            error.add_note(f"{_left_open(session)}: {failure}")

    async def _begin(self) -> RestoreSession:
        starting = asyncio.create_task(self._start(), name="aiovbo start of exploration")
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError as cancelled:
            # The request may have arrived: its answer alone tells which session is to be stopped.
            await asyncio.wait([starting], timeout=GRACE)
            if not starting.done():
                starting.cancel()
                cancelled.add_note("a restore session may have been started, and be open still")
            elif not starting.cancelled() and starting.exception() is None:
                session = starting.result()
                if await self._end(session) is not None:
                    cancelled.add_note(_left_open(session))
            raise

    async def _end(self, session: RestoreSession) -> ServerError | None:
        """Stop the session; what went wrong, if anything did."""
        try:
            await self._stop(session)
        except (ConflictError, NotFoundError):
            log.debug("%s: restore session %s had ended already", session.server, session.id)
        except ServerError as failure:
            return failure
        return None


def _left_open(session: RestoreSession) -> str:
    return f"restore session {session.id} on {session.server} may be open still"
