"""Restore sessions as lines: asked for with their organizations' names, and shown as a table.

Knows columns and colours. Must not know which servers are asked, nor how a command ends.
"""

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import frozen
from rich.text import Text

from aiovbo import (
    Client,
    LinkError,
    RestoreSession,
    RestoreSessionResult,
    ServerError,
)
from aiovbo._cli._columns import RowTable, cell, name_cell

_COLOURS = {
    RestoreSessionResult.SUCCESS: "green",
    RestoreSessionResult.WARNING: "yellow",
    RestoreSessionResult.FAILED: "red",
}
_TITLES = ("server", "organization", "type", "state", "result", "initiated by", "start", "took")
_BESIDE_IDS = ("server", "type", "outcome", "start")
"""What there is room for beside ids where a terminal is narrow."""


@frozen
class Row:
    """One restore session, and whose backup it explores."""

    session: RestoreSession
    organization: str
    """The organization's name; empty where it is unknown."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types under the API's own names, with the server's name first."""
        organization = {"organization": self.organization} if self.organization else {}
        return {"server": self.session.server, **self.session.to_dict(), **organization}


async def rows_of(client: Client, **bounds: Any) -> list[Row]:  # as restore_sessions takes them
    """A server's sessions, with names: one request for each organization of which it gives only a link.

    Raises: ServerError where the sessions cannot be had; a name that cannot be had is empty.
    """
    sessions = await client.restore_sessions(**bounds)
    nameless = {_organization_href(s): s for s in sessions if s.organization is None}
    names = dict(zip(nameless, await asyncio.gather(*map(organization_name, nameless.values())), strict=True))
    return [Row(s, s.organization or names.get(_organization_href(s), "")) for s in sessions]


def _organization_href(session: RestoreSession) -> str:
    link = session.links.get("organization")
    return link.href if link else ""


async def organization_name(session: RestoreSession) -> str:
    """Whose backup it opens; empty where that cannot be had."""
    if session.organization is not None:
        return session.organization
    try:
        return (await session.fetch_organization()).name or ""
    except (ServerError, LinkError):
        return ""


def newest_first(rows: Iterable[Row]) -> list[Row]:
    """The rows in the order in which they are read."""
    return sorted(rows, key=lambda row: row.session.creation_time, reverse=True)


def table_of(rows: Sequence[Row], now: datetime, *, ids: bool = False) -> RowTable:
    """The rows, as wide as they need to be, or as the terminal is.

    A server's name is never cut, nor is an id: rather who and for whom is left out of the table, and where
    there is no room for that either, each row is a few lines.
    """
    layouts = [("id", *_TITLES), ("id", *_BESIDE_IDS)] if ids else [_TITLES]
    return RowTable(
        rows=[_cells(row, now) for row in rows],
        layouts=layouts,
        names={"id", "server"},
        may_be_cut={"organization", "initiated by"},
        right={"took"},
    )


def _cells(row: Row, now: datetime) -> dict[str, Text]:
    session = row.session
    ended, result = session.has_ended, session.outcome
    colour = _COLOURS.get(result, "") if result else ""
    return {
        "id": cell(session.id),
        "server": name_cell(session.server),
        "organization": cell(row.organization),
        "type": cell(session.type),
        "state": cell(session.state, "" if ended else "cyan"),
        "result": cell(result, colour),
        "outcome": cell(result if ended else session.state, colour if ended else "cyan"),
        "initiated by": cell(session.initiated_by),
        "start": cell(when(session.creation_time, now)),
        "took": cell(duration((session.end_time or now) - session.creation_time)),
    }


def when(moment: datetime, now: datetime) -> str:
    """A point in time, in UTC, as short as it can be understood."""
    moment = moment.astimezone(UTC)
    if abs(now - moment) < timedelta(days=6):
        return f"{moment:%a %H:%M}"
    return f"{moment:%d %b %H:%M}" if moment.year == now.year else f"{moment:%d %b %Y}"


def duration(took: timedelta) -> str:
    """Hours and minutes; seconds where it is less than one."""
    seconds = round(took.total_seconds())
    if abs(seconds) < 60:  # noqa: PLR2004  # a minute's
        return f"{seconds}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m"
