"""How the watch of one server is doing."""

from datetime import datetime, timedelta

from attrs import frozen


@frozen(kw_only=True)
class WatchStatus:
    """How the watch of one server is doing."""

    server: str
    """The server's name."""
    up: bool
    """Whether the last poll succeeded; False before the first one."""
    last_success: datetime | None
    """When; None while there was none."""
    lag: timedelta | None
    """How long ago that is: nothing newer is known of the server."""
    next_look: datetime | None
    """When it is polled next; None while it is being polled."""
    backlog: int
    """Changes that were found and not yet delivered."""
    errors: int
    """Polls that failed, in a row."""
    overruns: int
    """Polls that were left out because the one before took too long."""
    rejected: int
    """Rows that were reported as `RowRejected`."""
    oldest_unacknowledged: datetime | None
    """When the oldest change was found that is not acknowledged; None where all are."""
