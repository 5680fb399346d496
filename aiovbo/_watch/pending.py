"""Changes that are not acknowledged, as records of a checkpoint, and back.

Knows how a change is encoded; does no I/O. A record is data: reading one never runs code that it names.
"""

import json
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

from attrs import evolve, frozen

from aiovbo import errors
from aiovbo._client.client import Client
from aiovbo._core.query import Rejected
from aiovbo._watch.changes import (
    Added,
    AnyChange,
    Changed,
    CheckpointEntry,
    Finished,
    Recovered,
    Removed,
    RowRejected,
    SessionRecord,
    Unreachable,
)
from aiovbo.errors import CheckpointError, ServerError
from aiovbo.models import RestoreSession

_OF_SESSIONS = {kind.__name__: kind for kind in (Added, Changed, Finished)}
_ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ServerError)
}


@frozen
class PendingChange:
    """A change from when it is saved until its acknowledgement is."""

    change: AnyChange
    """What is delivered."""
    subject: UUID
    """The key of the record that it changes: those of one subject are acknowledged in their order."""
    number: int
    """Its place among the changes of its server."""
    found_at: datetime
    """When it was found, by the wall clock of the process that found it."""

    @property
    def key(self) -> UUID:
        """The key of its own record."""
        return UUID(bytes=blake2b(self.change.id.encode(errors="surrogatepass"), digest_size=16).digest())

    def entry(self) -> CheckpointEntry:
        """What is saved of it."""
        document = {"id": self.change.id, "subject": self.subject.hex, **_encoded(self.change)}
        record = SessionRecord(
            self.found_at,
            is_open=True,
            marks=json.dumps(document).encode(),
            revision=self.number,
            kind="pending",
        )
        return CheckpointEntry(self.key, record)

    @classmethod
    def from_record(cls, record: SessionRecord, server: str, client: Client) -> "PendingChange":
        """The change of a record, with links that are followed by way of `client`.

        Raises: CheckpointError where the record is not valid.
        """
        try:
            document = json.loads(record.marks)
            change = _decoded(document, server, client)
            return cls(change, UUID(document["subject"]), record.revision, record.created)
        except (ValueError, KeyError, TypeError, AttributeError):
            message = f"the checkpoint holds a change of {server} that is damaged; restore it, or start over"
        raise CheckpointError(message)


def _encoded(change: AnyChange) -> dict[str, Any]:
    found: dict[str, Any] = {"change": type(change).__name__}
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            found["session"] = session.to_dict()
        case Removed(session_id=key, reset=reset):
            found |= {"session": key.hex, "reset": reset}
        case RowRejected(row=row):
            found["row"] = [row.index, row.path, row.reason, row.raw]
        case Unreachable(error=error):
            found["error"] = {"class": type(error).__name__, **_attributes_of(error)}
        case Recovered(gap=gap):
            found["gap"] = gap.total_seconds()
        case _:
            raise AssertionError(change)
    return found


def _decoded(document: dict[str, Any], server: str, client: Client) -> AnyChange:
    kind, name = document["change"], document["id"]
    if kind in _OF_SESSIONS:
        session = RestoreSession.from_dict(document["session"], server=server)
        session = evolve(session, links=session.links.attached_to(client))
        return _OF_SESSIONS[kind](server=server, id=name, session=session)
    if kind == "Removed":
        return Removed(server=server, id=name, session_id=UUID(document["session"]), reset=document["reset"])
    if kind == "RowRejected":
        return RowRejected(server=server, id=name, row=Rejected(*document["row"]))
    if kind == "Recovered":
        return Recovered(server=server, id=name, gap=timedelta(seconds=document["gap"]))
    if kind != "Unreachable":
        raise ValueError(kind)
    attributes = dict(document["error"])
    error = _ERRORS[attributes.pop("class")](attributes["what"])
    for attribute, value in attributes.items():
        setattr(error, attribute, tuple(cast("list[str]", value)) if isinstance(value, list) else value)
    return Unreachable(server=server, id=name, error=error)


def _attributes_of(error: ServerError) -> dict[str, Any]:
    found = {name: _plain(value) for name, value in vars(error).items()}
    return {name: value for name, value in found.items() if value is not NotImplemented}


def _plain(value: object) -> object:
    """The value as JSON has it; NotImplemented where it has none."""
    if isinstance(value, tuple):
        return [str(one) for one in cast("tuple[object, ...]", value)]
    return value if value is None or isinstance(value, str | int | float) else NotImplemented
