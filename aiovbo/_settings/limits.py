"""What a user sets: servers, credentials, trust, limits. Frozen values, checked when they are made.

Knows nothing of HTTP libraries and does no I/O: files are named here and read elsewhere.
"""

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypedDict

from attrs import field, frozen

from aiovbo._settings.credentials import _switch
from aiovbo._settings.events import Observer
from aiovbo.errors import ConfigError


@frozen
class Clock:
    """Where time and chance come from; replaceable, so that tests need not wait."""

    monotonic: Callable[[], float] = time.monotonic
    """Seconds that only ever go forward: deadlines, expiry, backoff."""
    now: Callable[[], datetime] = field(default=partial(datetime.now, UTC))
    """The wall clock, aware UTC: "a day ago", and the date of an answer."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits for that many seconds."""
    random: Callable[[], float] = random.random
    """A number in [0, 1): the jitter between retries."""


@frozen(kw_only=True)
class Options:
    """The limits within which every server is asked."""

    deadline: float = 60.0
    """Seconds for one whole operation on a server: pages, retries and waiting included."""
    connect_timeout: float = 10.0
    """Seconds to resolve the name, connect and shake hands."""
    read_timeout: float = 30.0
    """Seconds without a byte after which an answer is given up."""
    retries: int = 2
    """How often a request that may be repeated is repeated; 0 is fine."""
    connections: int = 4
    """At most so many requests at once to one server."""
    max_body: int = 32 * 1024 * 1024
    """Bytes, after decompression, above which an answer is refused."""
    login_cooldown: float = 300.0
    """Seconds of the first cool-down after a login that failed; later ones are an hour, 0 disables them."""
    strict: bool = field(default=False, validator=_switch)
    """True makes an item that makes no sense a PayloadError instead of setting it aside."""
    observer: Observer | None = None
    """What is told of every request, retry and login, and of servers that come and go."""
    clock: Clock = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        for name in ("deadline", "connect_timeout", "read_timeout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                message = f"{name} is a number of seconds above 0, not {value!r}"
                raise ConfigError(message)
        self._check_counts(retries=0, connections=1, max_body=1)
        cooldown: object = self.login_cooldown
        if not isinstance(cooldown, int | float) or not cooldown >= 0:
            message = f"login_cooldown is a number of seconds, not {cooldown!r}"
            raise ConfigError(message)
        if self.observer is not None and not _is_plain_function(self.observer):
            message = f"observer is a plain function that takes a signal, not {self.observer!r}"
            raise ConfigError(message)
        clock: object = self.clock
        if isinstance(clock, type):
            message = f"clock is a Clock(), not {clock!r}"
            raise ConfigError(message)

    def _check_counts(self, **least_of: int) -> None:
        for name, least in least_of.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                message = f"{name} is a whole number of at least {least}, not {value!r}"
                raise ConfigError(message)


def _is_plain_function(given: object) -> bool:
    is_async = any(map(inspect.iscoroutinefunction, (given, getattr(given, "__call__", None))))  # noqa: B004  # to look at it
    return callable(given) and not is_async


@frozen(kw_only=True)
class Limits(Options):
    """The limits of a whole fleet."""

    concurrency: int = 100
    """Servers asked at once; those that take long do not count."""
    lockout_guard: int = 3
    """Most servers that may reject the same credentials in a cool-down; above 5 is as 5."""

    def __attrs_post_init__(self) -> None:
        Options.__attrs_post_init__(self)
        self._check_counts(concurrency=1, lockout_guard=1)


class FleetOptions(TypedDict, total=False):
    """The limits of a `Fleet`, as they are written down."""

    deadline: float
    connect_timeout: float
    read_timeout: float
    retries: int
    concurrency: int
    connections: int
    max_body: int
    login_cooldown: float
    lockout_guard: int
    strict: bool
