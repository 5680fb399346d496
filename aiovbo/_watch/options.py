"""How a fleet is watched: the options of one watch, checked when they are made."""

from collections.abc import Callable
from datetime import datetime, timedelta
from inspect import iscoroutinefunction

from attrs import frozen

from aiovbo._settings.clock import TimeSource
from aiovbo._settings.numbers import check_interval
from aiovbo._watch.changes import Change
from aiovbo._watch.checkpoint import CheckpointStore
from aiovbo._watch.schedule import MAX_BACKOFF
from aiovbo.errors import ConfigError


@frozen(kw_only=True)
class WatchOptions:
    """How a fleet is watched."""

    every: timedelta
    """From one poll of a server to the next."""
    checkpoint: CheckpointStore
    """Where the positions of the servers are kept."""
    since: datetime | None
    """On the very first start: sessions created after are reported, even if they have ended already."""
    overlap: timedelta
    """How far each poll reaches back before the newest session, for rows that appear late."""
    full_look_every: timedelta
    """How often everything that is remembered is polled."""
    remember: timedelta
    """How long sessions that have ended are remembered, before the newest one."""
    heartbeat: timedelta | None
    """After how long a silence there is a `Heartbeat`."""
    ack_by_hand: bool
    """Whether changes are acknowledged by `ack`, instead of by the request for the next one."""
    only: Callable[[Change], object] | None = None
    """Which changes are delivered; the others are saved as if they were acknowledged."""
    min_down: timedelta = timedelta()
    """For how long a server must fail before it is reported as `Unreachable`."""
    max_backoff: timedelta = MAX_BACKOFF
    """Time between two polls of a server that is down, at most, unless `every` is longer."""
    clock: TimeSource

    def __attrs_post_init__(self) -> None:
        check_interval("every", self.every)
        check_interval("full_look_every", self.full_look_every)
        check_interval("overlap", self.overlap, may_be_zero=True)
        check_interval("remember", self.remember, may_be_zero=True)
        check_interval("min_down", self.min_down, may_be_zero=True)
        check_interval("max_backoff", self.max_backoff)
        predicate: object = self.only
        if predicate is not None and (not callable(predicate) or iscoroutinefunction(predicate)):
            message = f"only is a plain function that takes a change, not {predicate!r}"
            raise ConfigError(message)
        if self.heartbeat is not None:
            check_interval("heartbeat", self.heartbeat)
        given: object = self.checkpoint
        if isinstance(given, type) or not isinstance(given, CheckpointStore):
            message = f"checkpoint is Checkpoint(path), or another store, not {given!r}"
            raise ConfigError(message)

    @property
    def memory(self) -> timedelta:
        """How long sessions that have ended are remembered: no poll reaches further back."""
        return max(self.remember, self.overlap)
