"""A guard against locking an account: one wrong password must not be tried on every server of a fleet.

Knows verdicts on credentials; how a logon is sent is handed in.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from aiovbo._config import Clock, Credentials, Server
from aiovbo._grant import VERDICTS
from aiovbo._wire import Reply
from aiovbo.errors import SkippedError

PATIENCE = 1.0
"""Seconds after which a server that owes its verdict no longer keeps others from being tried."""


class LockoutGuard:
    """Lets the same credentials be tried on a few servers at once, until one of them accepts them.

    Once `limit` servers have refused them and none has accepted, the others are not asked, for as long as a
    verdict counts. Domain accounts lock after a few wrong passwords, on whichever server. Credentials that no
    more than `limit` servers share are none of its business.
    """

    def __init__(
        self, limit: int, servers: Iterable[Server], verdicts_count_for: float, clock: Clock
    ) -> None:
        self._limit = limit
        self._shared = Counter(server.credentials for server in servers)
        self._counts_for = verdicts_count_for
        self._clock = clock
        self._trials: dict[Credentials, _Trial] = {}

    def expect(self, server: Server) -> None:
        """Note that one more server is logged on to with its credentials."""
        self._shared[server.credentials] += 1

    async def logon(
        self,
        server: str,
        credentials: Credentials,
        post: Callable[[], Awaitable[Reply]],
        sign_of_life: Callable[[], Awaitable[None]],
    ) -> Reply:
        """What `post()` is answered, once it may be sent; in doubt only where there is a sign of life.

        Raises: SkippedError where the credentials were refused too often already; what `sign_of_life` raises.
        """
        if self._shared[credentials] <= self._limit:
            return await post()
        trial = self._trials.setdefault(credentials, _Trial(self._limit))
        turn = _Turn(trial.turns)
        if not self._lately(trial.accepted):
            # A server that does not answer would keep its turn, and all others waiting for theirs.
            await sign_of_life()
            await turn.take()
        try:
            if self._lately(trial.accepted):
                turn.give_back()
            elif len(self._lately(trial.refused)) >= self._limit:
                what = (
                    f"not asked: {self._limit} other servers refused the same credentials, none accepted them"
                )
                hint = "Check the credentials before the account is locked."
                raise SkippedError(what, reason="lockout_guard", hint=hint)
            reply = await post()
            self._note(trial, server, reply)
            return reply
        finally:
            turn.give_back()

    def _note(self, trial: "_Trial", server: str, reply: Reply) -> None:
        trial.accepted.pop(server, None)
        trial.refused.pop(server, None)
        if reply.status in VERDICTS:
            trial.refused[server] = self._clock.monotonic()
        else:
            trial.accepted[server] = self._clock.monotonic()

    def _lately(self, verdicts: dict[str, float]) -> dict[str, float]:
        oldest = self._clock.monotonic() - self._counts_for
        for server in [server for server, at in verdicts.items() if at < oldest]:
            del verdicts[server]
        return verdicts


class _Trial:
    """What servers said of the same credentials, and when; and whose turn it is to be asked."""

    def __init__(self, limit: int) -> None:
        self.accepted: dict[str, float] = {}
        self.refused: dict[str, float] = {}
        self.turns = asyncio.Semaphore(limit)


class _Turn:
    """One server's turn; given back once, by itself after a while."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._parked: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Wait for it."""
        await self._turns.acquire()
        self._parked = asyncio.get_running_loop().call_later(PATIENCE, self.give_back)

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._parked is not None:
            self._parked.cancel()
            self._parked = None
            self._turns.release()
