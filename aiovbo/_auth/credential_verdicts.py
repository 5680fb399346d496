"""What the servers of a fleet said of one secret, and whether it may be sent to one of them now.

Knows no secret: it is found by a digest (`_auth/lockout_guard`). Sends nothing.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from copy import copy
from types import TracebackType
from typing import Any, Self

from attrs import asdict, define

from aiovbo._auth.login_rounds import HOUR, HOURLY, NEVER, OPEN, LoginLimits, LoginRounds
from aiovbo._auth.probe_limiter import ProbeLimiter
from aiovbo._auth.shared_logins import dump_error, restore_error
from aiovbo._settings.clock import TimeSource
from aiovbo._settings.servers import Server
from aiovbo.errors import (
    BEFORE_SENDING,
    AuthenticationError,
    Phase,
    ServerError,
    ServerTimeoutError,
    SkippedError,
)

_POSTS_TO_ONE = 5
"""Most POSTs of one secret to one server in a cool-down, while its failures look temporary."""


@define
class _Failure:
    """What a server said last of a secret that it has not accepted."""

    error: ServerError
    hint: str
    """The error's own, to which it is added when the next try is."""
    cooldowns: int
    """Cool-downs that this server has begun since it last accepted the secret."""
    posts: int
    """POSTs in the current one."""
    ends: float
    """When the cool-down ends."""
    may_resend: bool
    """Whether the secret may be sent again before the cool-down ends."""
    is_alone: bool
    """Whether other servers accept the secret."""


class CredentialVerdicts:
    """What servers said of one secret.

    Servers that have not failed go first. While some server accepts the secret, they are tried without a
    limit, and the servers that fail are limited among themselves.
    """

    def __init__(self, limits: LoginLimits, clock: TimeSource) -> None:
        self._limits = limits
        self._clock = clock
        self._accepted_at = NEVER
        self._accepted_by: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._tried_at: dict[str, float] = {}
        self._waiting: set[str] = set()
        """Servers that wait for a turn."""
        self._rounds = LoginRounds(limits)
        self._rounds_alone = LoginRounds(limits)
        """Those of servers that fail while others accept."""
        self._news = asyncio.Event()
        self._probes = ProbeLimiter(limits.limit(0), clock)
        self.turns: int = 0
        """Turns that were given and are not saved yet."""

    def restore(self, stored: str) -> None:
        """Replace what is known by what another process has stored; what is broken is ignored."""
        try:
            state = json.loads(stored)
            failures = {key: self._failure_of(found) for key, found in state["failures"].items()}
            accepted_at, accepted_by = self._from_wall(state["accepted_at"]), set(state["accepted_by"])
            rounds, rounds_alone = (
                LoginRounds.restored(state[name], self._limits, self._from_wall)
                for name in ("rounds", "rounds_alone")
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        self._failures = failures
        self._accepted_by = accepted_by
        self._accepted_at = NEVER if accepted_at == OPEN else min(accepted_at, self._clock.monotonic())
        self._rounds.copy_from(rounds)
        self._rounds_alone.copy_from(rounds_alone)

    def dump(self) -> str:
        """What is known, as text for `restore`; it contains no secret."""
        return json.dumps(
            {
                "failures": {key: self._dump_failure(one) for key, one in self._failures.items()},
                "accepted_at": self._to_wall(self._accepted_at),
                "accepted_by": sorted(self._accepted_by),
                "rounds": self._rounds.dump(self._to_wall),
                "rounds_alone": self._rounds_alone.dump(self._to_wall),
            }
        )

    def _to_wall(self, at: float) -> float | None:
        """Seconds since 1970 of a monotonic time; None for never."""
        if math.isinf(at):
            return None
        return self._clock.now().timestamp() + at - self._clock.monotonic()

    def _from_wall(self, at: float | None) -> float:
        if at is None:
            return OPEN
        now, longest = self._clock.monotonic(), max(self._limits.cooldown, HOUR)
        # A clock that was set back must not make a cool-down longer.
        return now + min(float(at) - self._clock.now().timestamp(), longest)

    def _dump_failure(self, failure: _Failure) -> dict[str, object]:
        return {
            **asdict(failure, recurse=False),
            "error": dump_error(failure.error),
            "ends": self._to_wall(failure.ends),
        }

    def _failure_of(self, found: dict[str, Any]) -> _Failure:
        return _Failure(
            error=restore_error(found["error"]),
            hint=str(found["hint"]),
            cooldowns=int(found["cooldowns"]),
            posts=int(found["posts"]),
            ends=self._from_wall(found["ends"]),
            may_resend=bool(found["may_resend"]),
            is_alone=bool(found["is_alone"]),
        )

    def forget(self, server: Server) -> None:
        """Let no other server yield to this one."""
        self._waiting.discard(_key(server))

    def check(self, server: Server) -> None:
        """Return if the secret may be sent to this server, as far as its own responses go.

        Raises: the error of its last try, before its cool-down has ended.
        """
        failure = self._failures.get(_key(server))
        if failure is not None and not self._is_over(failure):
            error = copy(failure.error)
            error.phase, error.attempts, error.retryable = "queue", 0, False
            error.hint = failure.hint + self._until(failure.ends)
            raise error

    def is_trusted(self, doubtful_since: float) -> bool:
        """Whether a server has accepted the secret lately, and after the caller's reason to doubt it."""
        return self._accepted_at >= max(self._clock.monotonic() - self._limits.cooldown, doubtful_since)

    async def turn(self, server: Server, doubtful_since: float) -> "LoginTurn":
        """Wait until the secret may be sent to this server; then enter what is returned, and send it.

        `doubtful_since`, by the monotonic clock, is when the server stopped to accept what it had granted.

        Raises: SkippedError where it may not be sent now; the error of its last try.
        """
        key = _key(server)
        if self._limits.cooldown <= 0:
            self.turns += 1
            return LoginTurn(self, server, None)
        self._waiting.add(key)
        while True:
            self.check(server)
            failure = self._failures.get(key)
            has_failed = failure is not None and not failure.may_resend
            if not has_failed and self.is_trusted(doubtful_since):
                return self._begin(server, None)
            rounds = self._rounds_of(key)
            rounds.advance(self._clock.monotonic())
            if rounds.is_full:
                raise self._skipped(rounds)
            if failure is not None and self._yields(key, rounds):
                raise self._skipped(rounds)
            if rounds.free > 0:
                return self._begin(server, rounds)
            await self._news.wait()

    @asynccontextmanager
    async def probed(self, server: Server, doubtful_since: float) -> AsyncGenerator[bool]:
        """A block for the login of a server that has not responded yet; whether to probe it first.

        Only as many servers are probed as may try a secret that no server has accepted: the others wait for
        the verdict, after which they need no probe. A server that does not respond delays the others for
        no longer than `ProbeLimiter` says.
        """

        def rejections() -> int | None:
            rounds = self._rounds_of(_key(server))
            rounds.advance(self._clock.monotonic())
            return None if self.is_trusted(doubtful_since) or rounds.is_full else rounds.rejections

        is_probed = await self._probes.begin(rejections)
        try:
            yield is_probed
        finally:
            if is_probed:
                self._probes.end()

    def _begin(self, server: Server, rounds: LoginRounds | None) -> "LoginTurn":
        key = _key(server)
        self._waiting.discard(key)
        self.turns += 1
        self._tried_at[key] = self._clock.monotonic()
        return LoginTurn(self, server, rounds)

    def _rounds_of(self, key: str) -> LoginRounds:
        failure = self._failures.get(key)
        return self._rounds_alone if failure is not None and failure.is_alone else self._rounds

    def _is_over(self, failure: _Failure) -> bool:
        return failure.may_resend or self._clock.monotonic() >= failure.ends

    def _yields(self, key: str, rounds: LoginRounds) -> bool:
        """Whether a server that failed lets others go first, which wait and were not tried for longer."""
        if key in rounds.yielded or rounds.free <= 0:
            return False
        tried = self._tried_at.get(key, NEVER)
        before = sum(
            self._tried_at.get(other, NEVER) < tried and self._rounds_of(other) is rounds
            for other in self._waiting
            if other not in self._failures or self._is_over(self._failures[other])
        )
        if before < rounds.free:
            return False
        rounds.yielded.add(key)
        return True

    def _skipped(self, rounds: LoginRounds) -> SkippedError:
        if rounds.rejections:
            many = "a server" if rounds.rejections == 1 else f"{rounds.rejections} servers"
            none = "" if rounds is self._rounds_alone else ", and none accepted them"
            what = f"not sent: {many} rejected the same credentials{none}"
            what += f"; last response: {rounds.last_rejection}"
        elif rounds.is_full:
            what = "not sent: other servers gave no clear response to the same credentials"
        else:
            what = "not sent: this server did not accept the same credentials, and others are tried first"
        hint = "Check the credentials before the account is locked."
        if rounds.is_full:
            seconds = math.ceil(max(0.0, rounds.ends - self._clock.monotonic()))
            one = "" if rounds.stage + 1 < HOURLY else ", on one server an hour"
            hint += f" They are tried again in {seconds} s{one}; other credentials, from a provider, at once."
        return SkippedError(what, reason="lockout_guard", hint=hint)

    def _until(self, ends: float) -> str:
        seconds = math.ceil(max(0.0, ends - self._clock.monotonic()))
        return (
            f" The same credentials are not tried again for {seconds} s on this server, because domain "
            "accounts lock."
        )

    # ------------------------------------------------------------------------- what came of a turn

    def end_turn(self) -> None:
        """Let the servers that wait check again whether it is their turn."""
        self._news.set()
        self._news = asyncio.Event()
        self._probes.check_again()

    def accept(self, server: Server) -> None:
        """Note that the server gave a token."""
        key = _key(server)
        self._failures.pop(key, None)
        if key not in self._accepted_by:
            # The secret may be right now: servers that failed wait for their own cool-downs only.
            self._rounds_alone.relax(self._rounds)
        for failure in self._failures.values():
            failure.is_alone = True
        self._rounds.restart(0)
        self._accepted_by.add(key)
        self._accepted_at = self._clock.monotonic()

    def fail(self, server: Server, error: ServerError, posts: int) -> None:
        """Note that the server gave no token, and add to the error when it is tried again."""
        if self._limits.cooldown <= 0:
            return
        key, now = _key(server), self._clock.monotonic()
        is_rejection = isinstance(error, AuthenticationError)
        if is_rejection and key in self._accepted_by:
            # The password was changed: that others accepted it proves nothing any more.
            self._accepted_by.clear()
            self._accepted_at = NEVER
            for failure in self._failures.values():
                failure.is_alone = False
        elif not error.retryable:
            self._accepted_by.discard(key)
        before = self._failures.get(key)
        others_accept = bool(self._accepted_by - {key})
        is_alone = others_accept and ((before is not None and before.is_alone) or self.is_trusted(NEVER))
        rounds = self._rounds_alone if is_alone else self._rounds
        goes_on = before is not None and now < before.ends
        cooldowns = 1 if before is None else before.cooldowns + (not goes_on)
        stage = cooldowns - 1 if is_alone else max(cooldowns - 1, rounds.stage)
        failure = _Failure(
            error=copy(error),
            hint=error.hint,
            cooldowns=cooldowns,
            posts=posts + (before.posts if before is not None and goes_on else 0),
            ends=0.0,
            may_resend=False,
            is_alone=is_alone,
        )
        failure.may_resend = error.retryable and stage < HOURLY and failure.posts < _POSTS_TO_ONE
        failure.ends = (
            before.ends
            if before is not None and goes_on and error.retryable
            else now + self._limits.cooldown_of(stage)
        )
        self._failures[key] = failure
        rounds.fail(posts, now)
        if is_rejection:
            rounds.reject(error.what)
        if not failure.may_resend:
            error.retryable = False
            error.hint += self._until(failure.ends)


class LoginTurn:
    """The right to send a secret to one server; entered around the request, whose outcome it notes."""

    def __init__(self, verdicts: CredentialVerdicts, server: Server, rounds: LoginRounds | None) -> None:
        self._verdicts = verdicts
        self._server = server
        self._rounds = rounds
        self._posts = 0
        self.outcome: Callable[[CredentialVerdicts, Server], None] | None = None
        """Notes again how it ended; None while nothing was sent."""
        self._reserved = rounds.reserve() if rounds is not None else 2

    def finish(self) -> None:
        """Let the verdicts be read from the store again: how this ended is saved."""
        self._verdicts.turns -= 1

    @property
    def may_repeat(self) -> bool:
        """Whether the request may be sent once more where the kept connection was dead."""
        return self._posts < self._reserved

    def count(self, phase: Phase | None) -> None:
        """Count a request that came as far as `phase`, if the secret may have arrived."""
        self._posts += phase not in BEFORE_SENDING

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._verdicts.accept(self._server)
            self.outcome = CredentialVerdicts.accept
        elif self._posts:
            if not isinstance(error, ServerError):
                # Cancelled: the server may have judged the secret, and its response is lost.
                what = "the server had not responded to the login when the caller stopped waiting for it"
                error = ServerTimeoutError(what, phase="read", hint="Allow more time (deadline=...).")
            self._note_failure(copy(error))
            self._verdicts.fail(self._server, error, self._posts)
        if self._rounds is not None:
            self._rounds.release(self._reserved)
        self._verdicts.end_turn()

    def _note_failure(self, error: ServerError) -> None:
        posts = self._posts
        self.outcome = lambda verdicts, server: verdicts.fail(server, copy(error), posts)


def _key(server: Server) -> str:
    return str(server.url)
