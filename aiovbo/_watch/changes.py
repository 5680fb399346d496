"""What changes on a server, and what a checkpoint holds, as values."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from attrs import field, frozen

from aiovbo._core.query import Rejected
from aiovbo.errors import ServerError
from aiovbo.models import RestoreSession

SERVER_KEY = UUID(int=0)
"""The key of the record that says whether the server is unreachable."""
POLLED_KEY = UUID(int=1)
"""The key of the record that says that the server's sessions were listed once."""


@frozen
class SessionRecord:
    """What was found of one session, one rejected row or the server; or a change to be acknowledged."""

    created: datetime
    """When the session was created, by the server's clock; of others, when it was noticed."""
    is_open: bool
    """Whether its end is still to be found; of the server, whether it is unreachable."""
    marks: bytes = b""
    """Of each documented member four bytes that depend on its value; zeros where it was always absent. Of a
    change that is not acknowledged, all of the change."""
    revision: int = 1
    """How often it has changed, so that a session that is as it was before is a new change. Of a change
    that is not acknowledged, its number in the order in which they were found."""
    kind: Literal["session", "removed", "rejected", "server", "pending"] = "session"
    """What it is a record of: a session, one that the server has removed, a rejected row, the server, or a
    change that is not acknowledged."""


@frozen
class CheckpointEntry:
    """One record to save, or to delete."""

    session_id: UUID
    """The session's ID; of a rejected row or a change a hash of its content, of the server zeros."""
    known: SessionRecord | None
    """The record; None deletes it: it was long ago, or the change was acknowledged."""


@frozen
class ServerCheckpoint:
    """What was found on a server and what is to be acknowledged: all that a watch needs after a restart."""

    known: Mapping[UUID, SessionRecord] = field(factory=dict[UUID, SessionRecord])
    """The records, by `CheckpointEntry.session_id`."""
    horizon: datetime | None = None
    """Sessions created before have been forgotten, unless they are open; None: none has been."""
    installation: UUID | None = None
    """Which installation the server is, whatever its name; None: older than v6, or not reported."""


@frozen(kw_only=True)
class Change:
    """Something that happened on a server."""

    server: str
    """The server's name."""
    id: str
    """The same for the same change, also when it is delivered again after a crash."""
    labels: Mapping[str, str] = field(factory=dict[str, str], eq=False)
    """The labels of its server; empty where it has none."""


@frozen(kw_only=True)
class Added(Change):
    """A session that was not there before, or that a first look found unfinished."""

    session: RestoreSession
    """As it was when it was polled."""


@frozen(kw_only=True)
class Changed(Change):
    """A session that is not as it was, and has not just ended."""

    session: RestoreSession
    """As it was when it was polled."""


@frozen(kw_only=True)
class Finished(Change):
    """A session that has stopped; its `result` is its outcome."""

    session: RestoreSession
    """As it was when it was polled."""


@frozen(kw_only=True)
class Removed(Change):
    """A session that the server does not know any more."""

    session_id: UUID
    """Which one."""
    reset: bool = False
    """Whether many vanished at once, as when a server is restored from a backup of itself."""


@frozen(kw_only=True)
class RowRejected(Change):
    """A row of a list that cannot be delivered; reported once, and again if its content changes."""

    row: Rejected
    """The row as it arrived, and what is invalid in it."""


@frozen(kw_only=True)
class Unreachable(Change):
    """A server that failed; reported once until it has recovered, also over restarts."""

    error: ServerError
    """Why not."""


@frozen(kw_only=True)
class Recovered(Change):
    """A server that can be queried again; what happened meanwhile follows."""

    gap: timedelta
    """For how long nothing was heard of it."""


@frozen(kw_only=True)
class Heartbeat(Change):
    """Nothing happened for a while, and the watch is alive; requested by `heartbeat=`."""

    up: int
    """How many servers answered the last poll."""


AnyChange = Added | Changed | Finished | Removed | RowRejected | Unreachable | Recovered | Heartbeat
"""Any of the changes; a `match` over it can be checked for completeness."""
