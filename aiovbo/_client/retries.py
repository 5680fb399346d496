"""Which request is sent after one that failed, and when: the retry policy, and what it costs the server.

May use `_core` and below. Sends nothing.
"""

from collections.abc import Callable
from copy import copy
from http import HTTPStatus

from attrs import define, evolve

from aiovbo._core.deadline import Operation
from aiovbo._protocol.messages import Request
from aiovbo._settings.limits import Options
from aiovbo._settings.retry import Retry
from aiovbo.errors import (
    BEFORE_SENDING,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
)

_SHORTEST_PAUSE = 0.1
"""Seconds before a retry that does not count against the limit of retries."""

_CREDIT, _EARNED = 10.0, 0.1
"""Retries a server may cost at once, and what each request earns back: no outage is followed by a flood."""

_MAY_BE_DONE = " It may have been done all the same: look before you repeat it."


@define
class RetryCount:
    """How often one request was sent again so far."""

    most: int
    """Most of those that count."""
    counted: int = 0
    of_rate_limit: int = 0
    """After a rate limit that does not say how long it lasts: only the deadline limits these."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.counted + self.of_rate_limit


class RetryPolicy:
    """The retries of one server: each costs some of its credit, and each request earns a little."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = options.clock
        self._retry = Retry.of(options.retries)
        self._credit = _CREDIT
        self.requests: int = 0
        """Requests that were begun since the credit was counted last."""

    def begin(self, operation: Operation, *, may_retry: bool) -> RetryCount:
        """The count of a request that has failed for the first time."""
        self._credit = min(_CREDIT, self._credit + _EARNED * self.requests)
        self.requests = 0
        return RetryCount(self._policy(operation).attempts - 1 if may_retry else 0)

    def pause_before(
        self,
        failure: ServerError,
        count: RetryCount,
        operation: Operation,
        complete: Callable[[ServerError], ServerError],
    ) -> float | None:
        """Seconds until the next try, which is counted; None where none is allowed or may help.

        - `complete`: adds to an error what the caller's own policy may want to know.
        """
        if not failure.retryable or not operation.may_retry:
            return None
        retry_after: float | None = None
        if isinstance(failure, RateLimitedError | ServerFaultError):
            retry_after = failure.retry_after
        # Not of the login: how often a secret is sent has limits of its own.
        is_uncounted = isinstance(failure, RateLimitedError) and not (retry_after or failure.operation)
        policy = self._policy(operation)
        if is_uncounted and policy.attempts > 1:
            delay = max(_SHORTEST_PAUSE, policy.delay(count.of_rate_limit, self._clock.random()))
        elif count.counted < count.most and self._credit >= 1:
            delay = retry_after or policy.delay(count.counted, self._clock.random())
        else:
            return None
        # A copy for the caller's own policy, since it may keep it.
        is_forbidden = policy.decide is not None and not policy.decide(complete(copy(failure)))
        if delay >= operation.deadline.left() or is_forbidden:
            return None
        if is_uncounted:
            count.of_rate_limit += 1
        else:
            self._credit -= 1
            count.counted += 1
        return delay

    def _policy(self, operation: Operation) -> Retry:
        """How the operation retries, which may have limits of its own."""
        own = operation.options.retries
        return self._retry if own is self._options.retries else Retry.of(own)


def may_repeat(request: Request, failure: ServerError, *, has_token: bool) -> bool:
    """Whether the request may be sent again: what changes something, only where it cannot have arrived."""
    arrived = has_token and failure.phase not in BEFORE_SENDING
    if arrived and not request.may_repeat:
        failure.hint += _MAY_BE_DONE if failure.retryable else ""
        return False
    return True


def is_too_large(failure: ServerError) -> bool:
    """Whether the server says that a part of what was requested is all that it sends."""
    return isinstance(failure, ResponseError) and failure.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def after_silence(request: Request, failure: ServerError) -> Request:
    """The request to send again: for a smaller part where the response took too long."""
    is_silent = isinstance(failure, ServerTimeoutError) and failure.phase in ("read", "body")
    return (smaller(request) if is_silent else None) or request


def smaller(request: Request) -> Request | None:
    """A request for a smaller part of the same, where there is one."""
    url = request.smaller() if request.smaller is not None else None
    return None if url is None else evolve(request, url=url)
