"""What was restored, item by item: requested from each server, and as rows for tables and CSV.

Knows sessions, events and what is missing of them. Must not know how a command ends.
"""

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from attrs import frozen

from aiovbo import (
    Client,
    Rejected,
    RestoreSessionEvent,
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    ServerError,
)
from aiovbo._cli._fields import Field, Fields
from aiovbo._cli._filters import fits, is_one_of
from aiovbo._cli._options import Bounds, Filter
from aiovbo._cli._rows import Row, named

_COLOURS: dict[object, str] = {
    RestoreSessionEventStatus.SUCCESS: "green",
    RestoreSessionEventStatus.WARNING: "yellow",
    RestoreSessionEventStatus.FAILED: "red",
    RestoreSessionEventStatus.RUNNING: "cyan",
}


@frozen(kw_only=True)
class ServerAudit:
    """What a server reported of its restore sessions and their events, and what is missing."""

    server: str
    rows: Sequence[Row]
    """The sessions that are meant."""
    events: dict[UUID, list[RestoreSessionEvent]]
    """Their events, by the session's id; none where they could not be fetched."""
    error: ServerError | None
    """Why something is missing."""
    rejected: Sequence[Rejected]
    complete: bool


async def audit_of(client: Client, filters: Filter, bounds: Bounds, *, by_result: bool) -> ServerAudit:
    """What a server reports of the sessions that are meant; never raises for the server.

    - `by_result`: whether the result that is meant is the session's.
    """
    listed = await client.restore_sessions(**bounds).answer()
    rows = [row for row in await named(listed.items) if fits(row, filters, by_result=by_result)]
    answer = await client.events_of(row.session for row in rows).answer()
    events: dict[UUID, list[RestoreSessionEvent]] = {}
    for one in answer.items:
        events.setdefault(one.session.id, []).append(one.event)
    return ServerAudit(
        server=client.name,
        rows=rows,
        events=events,
        error=listed.error or answer.error,
        rejected=[*listed.rejected, *answer.rejected],
        complete=listed.complete and answer.complete,
    )


def is_item(event: RestoreSessionEvent) -> bool:
    """Whether an event is about an item, and not about the session."""
    return bool(event.item_name) or event.type not in (None, RestoreSessionEventType.NONE)


def is_meant(event: RestoreSessionEvent, item: str, results: list[str]) -> bool:
    """Whether an event has this text in its item's name, and one of these results."""
    return item.casefold() in (event.item_name or "").casefold() and is_one_of(event.status, results)


@frozen(kw_only=True)
class Line:
    """One row: an event of a session, a session without one, or something that is missing."""

    server: str
    row: Row | None = None
    event: RestoreSessionEvent | None = None
    gap: str = ""
    """What is missing, in a sentence."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types under the API's own names."""
        session = {} if self.row is None else {"session": self.row.to_dict()}
        event = {} if self.event is None else {"event": self.event.to_dict()}
        return {"server": self.server, **session, **event}


def _of_row(read: Callable[[Row], object]) -> Callable[[Line], object]:
    return lambda line: None if line.row is None else read(line.row)


def _of_event(read: Callable[[RestoreSessionEvent], object]) -> Callable[[Line], object]:
    return lambda line: None if line.event is None else read(line.event)


def _colour(line: Line) -> str:
    return "" if line.event is None else _COLOURS.get(line.event.status, "")


EVENTS: Fields[Line] = Fields(
    fields=[
        Field(name="server", value=lambda line: line.server, is_server=True),
        Field(name="organization", value=_of_row(lambda row: row.organization), may_be_cut=True),
        Field(
            name="initiatedBy",
            title="initiated by",
            value=_of_row(lambda row: row.session.initiated_by),
            may_be_cut=True,
        ),
        Field(
            name="clientHost",
            title="client host",
            value=_of_row(lambda row: row.session.client_host),
            may_be_cut=True,
        ),
        Field(name="reason", value=_of_row(lambda row: row.session.reason), may_be_cut=True),
        Field(name="sessionId", title="session id", value=_of_row(lambda row: row.session.id), is_id=True),
        Field(name="sessionType", title="product", value=_of_row(lambda row: row.session.type)),
        Field(
            name="creationTime",
            title="session start",
            value=_of_row(lambda row: row.session.creation_time),
            is_time=True,
        ),
        Field(
            name="sessionEndTime",
            title="session end",
            value=_of_row(lambda row: row.session.end_time),
            is_time=True,
        ),
        Field(
            name="sessionResult", title="session result", value=_of_row(lambda row: row.session.outcome)
        ),
        Field(name="type", value=_of_event(lambda event: event.type)),
        Field(
            name="itemName", title="item", value=_of_event(lambda event: event.item_name), may_be_cut=True
        ),
        Field(name="itemType", title="item type", value=_of_event(lambda event: event.item_type)),
        Field(name="itemSizeBytes", title="bytes", value=_of_event(lambda event: event.item_size_bytes)),
        Field(name="source", value=_of_event(lambda event: event.source), may_be_cut=True),
        Field(name="target", value=_of_event(lambda event: event.target), may_be_cut=True),
        Field(name="status", value=_of_event(lambda event: event.status), style=_colour),
        Field(
            name="startTime", title="start", value=_of_event(lambda event: event.start_time), is_time=True
        ),
        Field(name="endTime", title="end", value=_of_event(lambda event: event.end_time), is_time=True),
        Field(name="duration", title="took", value=_of_event(lambda event: event.duration)),
        Field(name="title", value=_of_event(lambda event: event.title), may_be_cut=True),
        Field(name="message", value=_of_event(lambda event: event.message), may_be_cut=True),
        Field(name="gap", value=lambda line: line.gap, may_be_cut=True),
    ],
    csv=(
        "server", "organization", "initiatedBy", "clientHost", "reason", "sessionId", "sessionType",
        "creationTime", "sessionEndTime", "sessionResult", "type", "itemName", "itemType", "itemSizeBytes",
        "source", "target", "status", "startTime", "endTime", "title", "message",
    ),
    sort=("-creationTime", "server"),
)  # fmt: skip
"""What events are shown by."""

EVENT_LAYOUTS = (
    ("server", "organization", "initiatedBy", "type", "itemName", "status", "startTime", "source", "target"),
    ("server", "initiatedBy", "type", "itemName", "status", "startTime"),
    ("server", "type", "itemName", "status"),
)
"""Columns of a table, from the widest one."""
