r"""In FastAPI: one fleet for the application's life, and a route that says what was restored in the last day.

    pip install '.[testing]' fastapi uvicorn
    python examples/in_fastapi.py --port 8000 vbo1.tech.local vbo2.tech.local

Nothing is polled: the servers are queried when a request arrives. Requests that arrive at the same time,
or within a few seconds, share one question.
"""

import asyncio
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

from _servers import arguments, servers_of
from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel

from aiovbo import Fleet, FleetResult, RestoreSession

DAY = timedelta(days=1)


class Failed(BaseModel):
    """A server that could not be asked."""

    server: str
    what: str
    hint: str


class Restores(BaseModel):
    """What the route answers."""

    asked_at: datetime
    complete: bool
    sessions: list[RestoreSession]
    failed: list[Failed]


class Restored:
    """The last day's sessions, asked for when needed."""

    def __init__(self, fleet: Fleet, fresh: float) -> None:
        """`fresh`: for how many seconds an answer is good."""
        self._fleet = fleet
        self._fresh = timedelta(seconds=fresh)
        self._asking = asyncio.Lock()
        self._latest: tuple[datetime, FleetResult[RestoreSession]] | None = None

    async def latest(self) -> tuple[datetime, FleetResult[RestoreSession]]:
        """When the servers were asked, and what they answered."""
        async with self._asking:
            # A request that waited for the lock finds the answer that the previous request has fetched.
            now = datetime.now(UTC)
            if self._latest is None or now - self._latest[0] >= self._fresh:
                self._latest = now, await self._fleet.restore_sessions(started_after=DAY)
            return self._latest


def restored(request: Request) -> Restored:
    """What the lifespan made, for routes that depend on it."""
    kept: Restored = request.app.state.restored
    return kept


async def restores(known: Annotated[Restored, Depends(restored)], response: Response) -> Restores:
    """The sessions of the last day, and the servers that failed; 502 where all did."""
    asked_at, result = await known.latest()
    if result.failed and len(result.failed) == len(result.answers):
        response.status_code = 502
    return Restores(
        asked_at=asked_at,
        complete=all(answer.complete for answer in result.answers.values()),
        sessions=[*result.items],
        failed=[
            Failed(server=answer.server, what=answer.error.what, hint=answer.error.hint)
            for answer in result.failed
            if answer.error
        ],
    )


def application(options: Namespace) -> FastAPI:
    """The application, whose fleet lives as long as it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with servers_of(options) as servers, Fleet(servers, deadline=10) as fleet:
            app.state.restored = Restored(fleet, options.fresh)
            yield

    app = FastAPI(title="Restores", lifespan=lifespan)
    app.get("/restores")(restores)
    return app


if __name__ == "__main__":
    parser = arguments("Serve what a fleet has restored in the last day.")
    parser.add_argument("--port", type=int, default=8000, help="to serve on (default 8000)")
    parser.add_argument("--fresh", type=float, default=5.0, help="seconds that an answer is good (default 5)")
    given = parser.parse_args()

    import uvicorn  # any other ASGI server would do

    uvicorn.run(application(given), port=given.port)
