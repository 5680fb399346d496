"""Restore sessions as rows: requested with their organizations' names, and shown as a table.

Must not know which servers are queried, nor how a command ends.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from aiovbo import (
    Client,
    LinkError,
    RestoreSession,
    RestoreSessionResult,
    ServerError,
)
from aiovbo._cli._columns import RowTable
from aiovbo._cli._fields import Field, Fields
from aiovbo._cli._times import Times

_COLOURS = {
    RestoreSessionResult.SUCCESS: "green",
    RestoreSessionResult.WARNING: "yellow",
    RestoreSessionResult.FAILED: "red",
}
_TITLES = ("server", "organization", "type", "state", "result", "initiatedBy", "creationTime", "duration")
_BESIDE_IDS = ("server", "type", "outcome", "creationTime")
"""What there is room for beside IDs in a narrow terminal."""


@frozen
class Row:
    """One restore session, and the organization whose backup it opens."""

    session: RestoreSession
    organization: str
    """The organization's name; empty if it is unknown."""
    now: datetime = field(factory=lambda: datetime.now(UTC))
    """Up to when a session has lasted that has not ended."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types under the API's own names, with the server's name first."""
        organization = {"organization": self.organization} if self.organization else {}
        return {"server": self.session.server, **self.session.to_dict(), **organization}


async def rows_of(client: Client, **bounds: Any) -> list[Row]:  # as restore_sessions takes them
    """A server's sessions with the names of their organizations.

    Where a session has only a link to its organization, each organization costs one request. A name that
    cannot be fetched is empty.

    Raises: ServerError where the sessions cannot be fetched.
    """
    return await named(await client.restore_sessions(**bounds))


async def named(sessions: Sequence[RestoreSession]) -> list[Row]:
    """Sessions with the names of their organizations, as for `rows_of`."""
    nameless = {_organization_href(s): s for s in sessions if s.organization is None}
    names = dict(zip(nameless, await asyncio.gather(*map(organization_name, nameless.values())), strict=True))
    return [Row(s, s.organization or names.get(_organization_href(s), "")) for s in sessions]


def _organization_href(session: RestoreSession) -> str:
    link = session.links.get("organization")
    return link.href if link else ""


async def organization_name(session: RestoreSession) -> str:
    """The name of the organization whose backup it opens; empty if it cannot be fetched."""
    if session.organization is not None:
        return session.organization
    try:
        return (await session.fetch_organization()).name or ""
    except (ServerError, LinkError):
        return ""


def _state_style(row: Row) -> str:
    return "" if row.session.has_ended else "cyan"


def _result_style(row: Row) -> str:
    return _COLOURS.get(row.session.outcome, "") if row.session.outcome else ""


SESSIONS: Fields[Row] = Fields(
    fields=[
        Field(name="server", value=lambda row: row.session.server, is_server=True),
        Field(name="id", value=lambda row: row.session.id, is_id=True),
        Field(name="organization", value=lambda row: row.organization, may_be_cut=True),
        Field(name="type", value=lambda row: row.session.type),
        Field(name="state", value=lambda row: row.session.state, style=_state_style),
        Field(name="result", value=lambda row: row.session.outcome, style=_result_style),
        Field(
            name="outcome",
            value=lambda row: row.session.outcome if row.session.has_ended else row.session.state,
            style=lambda row: _result_style(row) if row.session.has_ended else "cyan",
        ),
        Field(name="creationTime", title="start", value=lambda row: row.session.creation_time, is_time=True),
        Field(name="endTime", title="end", value=lambda row: row.session.end_time, is_time=True),
        Field(
            name="duration",
            title="took",
            value=lambda row: (row.session.end_time or row.now) - row.session.creation_time,
        ),
        Field(
            name="initiatedBy",
            title="initiated by",
            value=lambda row: row.session.initiated_by,
            may_be_cut=True,
        ),
        Field(
            name="clientHost", title="client host", value=lambda row: row.session.client_host, may_be_cut=True
        ),
        Field(name="scopeName", title="scope", value=lambda row: row.session.scope_name, may_be_cut=True),
        Field(name="name", value=lambda row: row.session.name, may_be_cut=True),
        Field(name="reason", value=lambda row: row.session.reason, may_be_cut=True),
        Field(name="details", value=lambda row: row.session.details, may_be_cut=True),
    ],
    csv=(
        "server", "id", "organization", "type", "state", "result", "creationTime", "endTime", "initiatedBy",
        "clientHost", "scopeName", "name", "reason", "details",
    ),
    sort=("-creationTime", "server"),
)  # fmt: skip
"""What restore sessions are shown by."""


def table_of(
    rows: Sequence[Row], times: Times, *, ids: bool = False, columns: Sequence[str] = ()
) -> RowTable:
    """The rows, as wide as they need to be, or as the terminal is.

    The name of a server and an ID are never cut. In a narrow terminal, the organization and the user are left
    out beside IDs, and where there is no room for a table each row is a few lines.
    """
    if columns:
        layouts: Sequence[Sequence[str]] = [[*(("id",) if ids and "id" not in columns else ()), *columns]]
    else:
        layouts = [("id", *_TITLES), ("id", *_BESIDE_IDS)] if ids else [_TITLES]
    return SESSIONS.table(rows, layouts, times)
