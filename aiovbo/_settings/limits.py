"""The limits of a client and of a fleet: frozen values with their defaults, checked when they are made."""

from collections.abc import Mapping
from typing import Any, TypedDict, TypeVar

from attrs import evolve, field, frozen

from aiovbo._settings.clock import Clock, TimeSource
from aiovbo._settings.credentials import is_switch
from aiovbo._settings.events import Observer, is_plain_function
from aiovbo._settings.numbers import check_count, check_seconds
from aiovbo._settings.retry import RETRIES, Retry
from aiovbo._settings.version import __version__
from aiovbo.errors import ConfigError

_OF_A_CLOCK = ("monotonic", "now", "sleep", "random")


@frozen(kw_only=True)
class Options:
    """The limits for every server."""

    deadline: float = 60.0
    """Seconds for one whole operation on a server: pages, retries and waiting included."""
    connect_timeout: float = 10.0
    """Seconds to resolve the name, connect and shake hands."""
    read_timeout: float = 30.0
    """Seconds without a byte after which a response is given up."""
    idle_timeout: float = 300.0
    """Seconds an idle connection is kept, longer than people usually wait between two polls; 0 keeps none."""
    retries: int | Retry = RETRIES
    """Maximum number of retries for requests that are safe to repeat, or a `Retry`; 0 disables retries."""
    connections: int = 4
    """At most so many requests at once to one server."""
    max_body: int = 32 * 1024 * 1024
    """Bytes, after decompression, above which a response is rejected."""
    max_resource: int = 1024 * 1024
    """Bytes, after decompression, above which the response of a single resource is rejected."""
    user_agent: str = f"aiovbo/{__version__}"
    """What is sent as `User-Agent` with every request."""
    login_cooldown: float = 300.0
    """Seconds of the first cool-down after a login that failed; later ones are an hour, 0 disables them."""
    strict: bool = field(default=False, validator=is_switch)
    """True makes an invalid item a PayloadError instead of rejecting only the item."""
    observer: Observer | None = None
    """What is notified of every request, retry and login, and of servers that come and go."""
    clock: TimeSource = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        for name in ("deadline", "connect_timeout", "read_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("idle_timeout", "login_cooldown"):
            check_seconds(name, getattr(self, name), may_be_zero=True)
        if not isinstance(self.retries, Retry):
            check_count("retries", self.retries, 0)
        for name in ("connections", "max_body", "max_resource"):
            check_count(name, getattr(self, name), 1)
        agent: object = self.user_agent
        if not isinstance(agent, str) or not (agent.strip() and agent.isascii() and agent.isprintable()):
            message = f"user_agent is a line of ASCII text, not {agent!r}"
            raise ConfigError(message)
        if self.observer is not None and not is_plain_function(self.observer):
            message = f"observer is a plain function that takes a signal, not {self.observer!r}"
            raise ConfigError(message)
        clock: object = self.clock
        missing = [name for name in _OF_A_CLOCK if not callable(getattr(clock, name, None))]
        if missing or isinstance(clock, type):
            message = f"clock is a Clock(), or an object with the same methods, not {clock!r}"
            raise ConfigError(message)


@frozen(kw_only=True)
class Limits(Options):
    """The limits of a whole fleet."""

    concurrency: int = 100
    """Servers queried at once; those that take long do not count."""
    lockout_guard: int = 3
    """Most servers that may reject the same credentials in a cool-down; above 5 is as 5."""

    def __attrs_post_init__(self) -> None:
        Options.__attrs_post_init__(self)
        check_count("concurrency", self.concurrency, 1)
        check_count("lockout_guard", self.lockout_guard, 1)


DEFAULTS = Limits()
"""Every limit's default: it is defined above, and nowhere else."""


class FleetOptions(TypedDict, total=False):
    """The limits of a `Fleet`, as they are written down."""

    deadline: float
    connect_timeout: float
    read_timeout: float
    idle_timeout: float
    retries: int | Retry
    concurrency: int
    connections: int
    max_body: int
    max_resource: int
    user_agent: str
    login_cooldown: float
    lockout_guard: int
    strict: bool


OptionsT = TypeVar("OptionsT", bound=Options)


def other_limits(options: OptionsT, given: Mapping[str, object]) -> OptionsT:
    """The options with other values where they are given, and not None.

    Raises: ConfigError for invalid values.
    """
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return evolve(options, **changes)
