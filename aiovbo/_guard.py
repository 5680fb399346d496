"""A guard against locking an account: one wrong password must not be tried on every server of a fleet.

Knows verdicts on credentials; how a logon is sent is handed in.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from aiovbo._config import Clock, Credentials, Server
from aiovbo._grant import LOGON_REFUSED
from aiovbo._wire import Reply
from aiovbo.errors import SkippedError

_NEVER = float("-inf")


class LockoutGuard:
    """Lets the same credentials be tried on a few servers only, until one of them accepts them.

    Whoever has refused them counts, and whoever still owes its verdict: with `limit` of these, and none that
    has accepted, no other server is asked, for as long as a verdict counts. Domain accounts lock after a few
    wrong passwords, on whichever server. Credentials that no more than `limit` servers share are none of its
    business.
    """

    def __init__(self, limit: int, verdicts_count_for: float, clock: Clock) -> None:
        self._limit = limit
        self._shared: Counter[Credentials] = Counter()
        self._counts_for = verdicts_count_for
        self._clock = clock
        self._trials: dict[Credentials, _Trial] = {}

    def expect(self, server: Server) -> None:
        """Note that one more server is logged on to with its credentials."""
        self._shared[server.credentials] += 1

    def forget(self, server: Server) -> None:
        """Note that it is one less."""
        self._shared[server.credentials] -= 1

    async def logon(
        self,
        server: Server,
        told: Credentials,
        post: Callable[[], Awaitable[Reply]],
        sign_of_life: Callable[[], Awaitable[None]],
        *,
        doubtful_since: float,
    ) -> Reply:
        """What `post()` is answered, once it may be sent; in doubt only where there is a sign of life.

        `told` are the server's credentials as they are now: a password that was changed is not on trial for
        the one before it. `doubtful_since`, by the monotonic clock, is when the server ceased to take what it
        had granted: what others accepted before that proves nothing, as all may have ceased.

        Raises: SkippedError where the credentials were refused too often already; what `sign_of_life` raises.
        """
        if self._shared[server.credentials] <= self._limit:
            return await post()
        trial = self._trials.setdefault(told, _Trial())
        if not self._counts(trial.accepted_at, doubtful_since):
            # A server that does not answer at all would keep the others waiting for its verdict.
            await sign_of_life()
        await self._wait_for_turn(trial, doubtful_since)
        trial.undecided += 1
        try:
            reply = await post()
            self._note(trial, server.name, reply)
            return reply
        finally:
            trial.undecided -= 1
            trial.tell()

    async def _wait_for_turn(self, trial: "_Trial", doubtful_since: float) -> None:
        """Wait until one more server may be tried.

        Raises: SkippedError once enough have refused.
        """
        while not self._counts(trial.accepted_at, doubtful_since):
            refused = sum(self._counts(at) for at in trial.refused.values())
            if refused >= self._limit:
                what = (
                    f"not asked: {self._limit} other servers refused the same credentials, none accepted them"
                )
                hint = (
                    "Check the credentials before the account is locked. They are tried again after "
                    f"{self._counts_for:g} s; others, that a provider gives, at once."
                )
                raise SkippedError(what, reason="lockout_guard", hint=hint)
            if refused + trial.undecided < self._limit:
                return
            await trial.news.wait()

    def _note(self, trial: "_Trial", server: str, reply: Reply) -> None:
        now = self._clock.monotonic()
        if reply.status not in LOGON_REFUSED:
            trial.accepted_at = now
            trial.accepted_by.add(server)
            trial.refused.pop(server, None)
            return
        trial.refused[server] = now
        if server in trial.accepted_by:
            # The password was changed: that others accepted it proves nothing any more.
            trial.accepted_at = _NEVER

    def _counts(self, verdict_at: float, since: float = _NEVER) -> bool:
        return verdict_at >= max(self._clock.monotonic() - self._counts_for, since)


class _Trial:
    """What servers said of the same credentials, and when; and how many still owe their verdict."""

    def __init__(self) -> None:
        self.accepted_at = _NEVER
        self.accepted_by: set[str] = set()
        self.refused: dict[str, float] = {}
        self.undecided = 0
        self.news = asyncio.Event()

    def tell(self) -> None:
        """Have all that wait look again."""
        self.news.set()
        self.news = asyncio.Event()
