"""The lock-out guard: limits how often a secret is sent to servers that do not accept it.

Knows what servers said of a secret, and when, and the throttles of their addresses.
Knows no passwords, only keyed digests of them. Sends nothing.
"""

import asyncio
import json
import math
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import asynccontextmanager
from copy import copy
from hashlib import blake2b
from secrets import token_bytes
from types import TracebackType
from typing import Any, Self

from attrs import asdict, define, frozen

from aiovbo._auth.shared_logins import SharedLogins, dump_error, restore_error
from aiovbo._auth.token_store import TokenStore, check_token_store
from aiovbo._auth.token_throttle import TokenThrottle
from aiovbo._protocol.messages import Redacted
from aiovbo._settings.clock import Timer, TimeSource, timers_of
from aiovbo._settings.credentials import Assertion, Bearer, Credentials, Integration, Password
from aiovbo._settings.servers import Server
from aiovbo.errors import (
    BEFORE_SENDING,
    AuthenticationError,
    Phase,
    ServerError,
    ServerTimeoutError,
    SkippedError,
)

_NEVER, _OPEN = float("-inf"), float("inf")

_HOUR = 3600.0
"""Seconds of the second cool-down and of all later ones."""

_POSTS = 10
"""Most POSTs of one secret in each of the first two rounds, whatever the responses are."""

_POSTS_TO_ONE = 5
"""Most POSTs of one secret to one server in a cool-down, while its failures look temporary."""

_REJECTIONS = 6
"""Most rejections in the first two rounds together: with one an hour after them, they stay below 30 a day."""

_HOURLY = 2
"""The round from which on one server an hour is tried."""

_SECRETS_PER_SERVER = 16
"""Secrets that are remembered: a provider may give a new one for every login."""


class LockoutGuard:
    """What servers said of the secrets of a fleet, and which server may be sent a secret now.

    Domain accounts lock after a few wrong passwords, on whichever server. So a secret that no server has
    accepted is sent to at most `limit` servers that reject it; after `cooldown` seconds to as many others;
    then, from an hour later on, to one server an hour. A `cooldown` of 0 disables all of this.
    """

    def __init__(
        self, limit: int, cooldown: float, clock: TimeSource, token_store: TokenStore | None = None
    ) -> None:
        if token_store is not None:
            check_token_store(token_store)
        self.shared: SharedLogins | None = None if token_store is None else SharedLogins(token_store, clock)
        """Where other processes read and write tokens and verdicts."""
        self._limits = _Limits(limit, cooldown)
        self._clock = clock
        self._key = token_bytes(32)
        self._shared: Counter[Hashable] = Counter()
        self._verdicts: dict[bytes, CredentialVerdicts] = {}
        self._throttles: dict[tuple[str | None, int | None], TokenThrottle] = {}

    def throttle(self, server: Server) -> TokenThrottle:
        """The throttle of logins at the server's address, which all servers there share."""
        address = server.url.host, server.url.port
        return self._throttles.setdefault(address, TokenThrottle(self._clock))

    def register(self, server: Server) -> None:
        """Note that one more server uses its credentials."""
        self._shared[self._identity(server.credentials)] += 1

    def forget(self, server: Server) -> None:
        """Note that a server left: no other server yields to it any more."""
        self._shared[self._identity(server.credentials)] -= 1
        for verdicts in self._verdicts.values():
            verdicts.forget(server)

    def is_widely_shared(self, credentials: Credentials) -> bool:
        """Whether more servers use these credentials than may try them at once."""
        return self._limits.cooldown > 0 and self._shared[self._identity(credentials)] > self._limits.limit(0)

    def verdicts(self, form: Redacted[dict[str, str]]) -> "CredentialVerdicts":
        """What is known of the secret in a login form; only a digest of it is kept."""
        digest = self._digest(form)
        found = self._verdicts.pop(digest, None) or CredentialVerdicts(self._limits, self._clock)
        # The newest is last; what was not used for longest is dropped.
        self._verdicts[digest] = found
        most = _SECRETS_PER_SERVER * (1 + self._shared.total())
        for oldest in list(self._verdicts)[: max(0, len(self._verdicts) - most)]:
            del self._verdicts[oldest]
        return found

    async def load(self, form: Redacted[dict[str, str]]) -> "CredentialVerdicts":
        """What is known of the secret in a login form, by this process and those that share its store."""
        found = self.verdicts(form)
        if self.shared is not None and self._limits.cooldown > 0 and not found.turns:
            stored = await self.shared.verdicts(form)
            # Not over what a turn of this process has changed meanwhile.
            if stored is not None and not found.turns:
                found.restore(stored)
        return found

    async def save(self, form: Redacted[dict[str, str]], server: Server, turn: "LoginTurn") -> None:
        """Let other processes know how a turn ended."""
        try:
            outcome = turn.outcome
            if self.shared is None or self._limits.cooldown <= 0 or outcome is None:
                return

            def change(stored: str | None) -> str:
                # As it is by now: another process may have written since it was loaded.
                verdicts = CredentialVerdicts(self._limits, self._clock)
                if stored is not None:
                    verdicts.restore(stored)
                outcome(verdicts, server)
                return verdicts.dump()

            await self.shared.update_verdicts(form, change)
        finally:
            turn.finish()

    def _digest(self, form: Redacted[dict[str, str]]) -> bytes:
        # Accounts of a domain do not distinguish case.
        fields = [(n, v.casefold() if n == "username" else v) for n, v in sorted(form.content.items())]
        return blake2b(json.dumps(fields).encode(), key=self._key).digest()

    def _identity(self, credentials: Credentials) -> Hashable:
        match credentials:
            case Password():
                return credentials.username.casefold(), credentials.password.fingerprint(self._key)
            case Assertion():
                return credentials.client_id, credentials.assertion.fingerprint(self._key)
            case Integration():
                return credentials.integration_token.fingerprint(self._key)
            case Bearer():
                return None


@frozen
class _Limits:
    """How often a secret may be sent, and how long the cool-downs are."""

    _servers: int
    cooldown: float

    def limit(self, stage: int) -> int:
        """Most servers that may reject a secret in a round."""
        first = min(self._servers, _REJECTIONS - 1)
        return (first, min(first, _REJECTIONS - first), 1)[min(stage, _HOURLY)]

    def posts(self, stage: int) -> int:
        """Most POSTs of a secret in a round, whatever the responses are."""
        return 1 if stage >= _HOURLY else _POSTS

    def cooldown_of(self, stage: int) -> float:
        """Seconds of the cool-down that ends a round."""
        return self.cooldown if stage == 0 else max(self.cooldown, _HOUR)


class _Rounds:
    """Rounds of tries of one secret, each ended by a cool-down; the cool-downs get longer."""

    def __init__(self, limits: _Limits) -> None:
        self._limits = limits
        self._pending = self._reserved = 0
        self.restart(0)

    def restart(self, stage: int) -> None:
        """Begin a round in which nothing was sent so far."""
        self.stage: int = stage
        self.rejections: int = 0
        self.posts: int = 0
        self.ends: float = _OPEN
        """When the cool-down after the newest failure ends."""
        self.last_rejection: str = ""
        self.yielded: set[str] = set()
        """Servers that let others be tried before them, which each does once in a round."""

    def copy_from(self, other: "_Rounds") -> None:
        """Take over what another process knows; tries in progress are this process's own."""
        self.stage, self.rejections, self.posts = other.stage, other.rejections, other.posts
        self.ends, self.last_rejection = other.ends, other.last_rejection
        self.yielded = other.yielded

    def relax(self, other: "_Rounds") -> None:
        """Allow tries again, also of servers that failed in `other`; cool-downs do not get shorter by it."""
        stage = min(_HOURLY - 1, max(self.stage, other.stage))
        ends = [rounds.ends for rounds in (self, other) if rounds.ends < _OPEN]
        self.restart(stage)
        self.ends = max(ends, default=_OPEN)

    def advance(self, now: float) -> None:
        """Begin the next round if the cool-down has ended."""
        if now >= self.ends:
            self.restart(self.stage + 1)

    @property
    def is_full(self) -> bool:
        """Whether no further server may be tried in this round."""
        return self.rejections >= self._limits.limit(self.stage) or self.posts >= self._limits.posts(
            self.stage
        )

    @property
    def free(self) -> int:
        """How many servers may be tried now, if those that have not answered yet all reject."""
        return min(self._limits.limit(self.stage) - self.rejections - self._pending, self._free_posts)

    @property
    def _free_posts(self) -> int:
        return self._limits.posts(self.stage) - self.posts - self._reserved

    def reserve(self) -> int:
        """Begin a try; return how many POSTs it may take, 2 if one may be repeated on a new connection."""
        posts = min(2, self._free_posts)
        self._pending += 1
        self._reserved += posts
        return posts

    def release(self, posts: int) -> None:
        """End a try that had reserved so many POSTs."""
        self._pending -= 1
        self._reserved -= posts

    def fail(self, posts: int, now: float) -> None:
        """Note a try that was not accepted."""
        self.posts += posts
        self.ends = now + self._limits.cooldown_of(self.stage)

    def reject(self, said: str) -> None:
        """Note that a server rejected the secret, as it said."""
        self.rejections += 1
        self.last_rejection = said


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

    def __init__(self, limits: _Limits, clock: TimeSource) -> None:
        self._limits = limits
        self._clock = clock
        self._accepted_at = _NEVER
        self._accepted_by: set[str] = set()
        self._failures: dict[str, _Failure] = {}
        self._tried_at: dict[str, float] = {}
        self._waiting: set[str] = set()
        """Servers that asked for a turn and have not got one."""
        self._rounds = _Rounds(limits)
        self._rounds_alone = _Rounds(limits)
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
            rounds = [self._rounds_from(state[name]) for name in ("rounds", "rounds_alone")]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return
        self._failures = failures
        self._accepted_by = accepted_by
        self._accepted_at = _NEVER if accepted_at == _OPEN else min(accepted_at, self._clock.monotonic())
        for mine, theirs in zip((self._rounds, self._rounds_alone), rounds, strict=True):
            mine.copy_from(theirs)

    def dump(self) -> str:
        """What is known, as text for `restore`; it contains no secret."""
        return json.dumps(
            {
                "failures": {key: self._dump_failure(one) for key, one in self._failures.items()},
                "accepted_at": self._to_wall(self._accepted_at),
                "accepted_by": sorted(self._accepted_by),
                "rounds": self._dump_rounds(self._rounds),
                "rounds_alone": self._dump_rounds(self._rounds_alone),
            }
        )

    def _to_wall(self, at: float) -> float | None:
        """Seconds since 1970 of a monotonic time; None for never."""
        if math.isinf(at):
            return None
        return self._clock.now().timestamp() + at - self._clock.monotonic()

    def _from_wall(self, at: float | None) -> float:
        if at is None:
            return _OPEN
        now, longest = self._clock.monotonic(), max(self._limits.cooldown, _HOUR)
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

    def _dump_rounds(self, rounds: _Rounds) -> dict[str, object]:
        return {
            "stage": rounds.stage,
            "rejections": rounds.rejections,
            "posts": rounds.posts,
            "ends": self._to_wall(rounds.ends),
            "last_rejection": rounds.last_rejection,
            "yielded": sorted(rounds.yielded),
        }

    def _rounds_from(self, found: dict[str, Any]) -> _Rounds:
        rounds = _Rounds(self._limits)
        rounds.restart(int(found["stage"]))
        rounds.rejections, rounds.posts = int(found["rejections"]), int(found["posts"])
        rounds.ends = self._from_wall(found["ends"])
        rounds.last_rejection, rounds.yielded = str(found["last_rejection"]), set(found["yielded"])
        return rounds

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
        """A block for the login of a server that has not answered yet; whether to probe it first.

        Only as many servers are probed as may try a secret that no server has accepted: the others wait for
        the verdict, after which they need no probe. A server that does not answer delays the others for
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

    def _begin(self, server: Server, rounds: _Rounds | None) -> "LoginTurn":
        key = _key(server)
        self._waiting.discard(key)
        self.turns += 1
        self._tried_at[key] = self._clock.monotonic()
        return LoginTurn(self, server, rounds)

    def _rounds_of(self, key: str) -> _Rounds:
        failure = self._failures.get(key)
        return self._rounds_alone if failure is not None and failure.is_alone else self._rounds

    def _is_over(self, failure: _Failure) -> bool:
        return failure.may_resend or self._clock.monotonic() >= failure.ends

    def _yields(self, key: str, rounds: _Rounds) -> bool:
        """Whether a server that failed lets others go first, which wait and were not tried for longer."""
        if key in rounds.yielded or rounds.free <= 0:
            return False
        tried = self._tried_at.get(key, _NEVER)
        before = sum(
            self._tried_at.get(other, _NEVER) < tried and self._rounds_of(other) is rounds
            for other in self._waiting
            if other not in self._failures or self._is_over(self._failures[other])
        )
        if before < rounds.free:
            return False
        rounds.yielded.add(key)
        return True

    def _skipped(self, rounds: _Rounds) -> SkippedError:
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
            one = "" if rounds.stage + 1 < _HOURLY else ", on one server an hour"
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
            self._accepted_at = _NEVER
            for failure in self._failures.values():
                failure.is_alone = False
        elif not error.retryable:
            self._accepted_by.discard(key)
        before = self._failures.get(key)
        others_accept = bool(self._accepted_by - {key})
        is_alone = others_accept and ((before is not None and before.is_alone) or self.is_trusted(_NEVER))
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
        failure.may_resend = error.retryable and stage < _HOURLY and failure.posts < _POSTS_TO_ONE
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


PROBE_PATIENCE = 0.05
"""Seconds without a verdict after which twice as many servers are probed."""


class ProbeLimiter:
    """Which servers are probed before they are sent a secret: a few, and more while no verdict comes.

    A cold start sends one request less to nearly every server.
    """

    def __init__(self, most: int, clock: TimeSource) -> None:
        self._first = self._most = max(1, most)
        self._clock = clock
        self._begun = 0
        self._waiting = 0
        self._news = asyncio.Event()
        self._timer: Timer | None = None

    async def begin(self, rejections: Callable[[], int | None]) -> bool:
        """Wait for a turn; True where the server must be probed, and `end` follows.

        - `rejections`: how many servers have rejected the secret; None after a verdict, which needs no probe.
        """
        self._waiting += 1
        try:
            while (rejected := rejections()) is not None:
                if self._begun + rejected < self._most:
                    self._begun += 1
                    return True
                if self._timer is None:
                    timers = timers_of(self._clock)
                    self._timer = timers.call_at(timers.time() + PROBE_PATIENCE, self._allow_more)
                await self._news.wait()
            return False
        finally:
            self._waiting -= 1
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def end(self) -> None:
        """Note that a server that was probed has its verdict, or failed."""
        self._begun -= 1
        if not self._begun:
            self._most = self._first
        self.check_again()

    def check_again(self) -> None:
        """Let the servers that wait look for a verdict."""
        self._news.set()
        self._news = asyncio.Event()

    def _allow_more(self) -> None:
        self._timer = None
        self._most *= 2
        self.check_again()


class LoginTurn:
    """The right to send a secret to one server; entered around the request, whose outcome it notes."""

    def __init__(self, verdicts: CredentialVerdicts, server: Server, rounds: _Rounds | None) -> None:
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
                # Cancelled: the server may have judged the secret, and its answer is lost.
                what = "the server had not answered the login when the caller stopped waiting for it"
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
