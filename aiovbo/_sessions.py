"""Restore sessions exactly as documented, from bytes to frozen models: the fast path, by msgspec.

Whatever is not exactly as documented is refused here, and left to the tolerant path. Knows one schema.
"""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import msgspec

from aiovbo._links import NOTHING_MORE, Fetcher, JsonObject, Links
from aiovbo._structure import DOCUMENT, parse_time
from aiovbo.models import (
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    api_name,
)

NO_LINKS = msgspec.Raw(b"null")


class _AnySession(msgspec.Struct, rename="camel", gc=False):
    """A session's documented members, whatever else there is."""

    id: UUID
    creation_time: str
    type: RestoreSessionType | None = None
    end_time: str | None = None
    state: RestoreSessionState | None = None
    result: RestoreSessionResult | None = None
    name: str | None = None
    organization: str | None = None
    initiated_by: str | None = None
    details: str | None = None
    scope_name: str | None = None
    client_host: str | None = None
    reason: str | None = None
    e_tag: int | None = None
    links: msgspec.Raw = msgspec.field(name="_links", default=NO_LINKS)


class WireSession(_AnySession, forbid_unknown_fields=True):
    """A session with no member beyond the documented ones."""


class _Draft(RestoreSession):
    """A session that is not frozen yet: the same slots, filled at a quarter of the price."""

    __slots__ = ()
    # Both of them: with one inherited from the frozen class, each assignment would go through Python.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__


_new = object.__new__


def sessions_of(wires: Sequence[_AnySession], server: str, fetcher: Fetcher | None) -> list[RestoreSession]:
    """The frozen models of sessions as they were decoded.

    Raises: ValueError for a time that is none.
    """
    sessions: list[RestoreSession] = []
    for wire in wires:
        # Any: to a type checker, what is frozen stays frozen.
        draft: Any = _new(_Draft)
        ended, began = wire.end_time, parse_time(wire.creation_time)
        if began is None:
            raise ValueError("a time that stands for 'never'")
        draft.server = server
        # A copy of the links' bytes: what msgspec hands out would keep the whole answer in memory.
        draft.links = Links(bytes(wire.links), fetcher, RestoreSession)
        draft.extra = NOTHING_MORE
        draft.id = wire.id
        draft.type = wire.type
        draft.creation_time = began
        draft.end_time = None if ended is None else parse_time(ended)
        draft.state = wire.state
        draft.result = wire.result
        draft.name = wire.name
        draft.organization = wire.organization
        draft.initiated_by = wire.initiated_by
        draft.details = wire.details
        draft.scope_name = wire.scope_name
        draft.client_host = wire.client_host
        draft.reason = wire.reason
        draft.etag = wire.e_tag
        # From here on it is a session as any other: frozen, and with nothing of the draft about it.
        draft.__class__ = RestoreSession
        sessions.append(draft)
    return sessions


_SESSION = msgspec.json.Decoder(WireSession)
_ANY_SESSION = msgspec.json.Decoder(_AnySession)
_DOCUMENTED = {*map(api_name, RestoreSession.__annotations__), "_links"}
_IN_ANY_CASE = {name.casefold() for name in _DOCUMENTED}


def read_session(raw: msgspec.Raw, server: str, fetcher: Fetcher | None) -> RestoreSession:
    """The session in `raw`, exactly as documented.

    Raises: msgspec.MsgspecError or ValueError where it is not.
    """
    return sessions_of((_SESSION.decode(raw),), server, fetcher)[0]


def read_session_and_more(raw: msgspec.Raw, server: str, fetcher: Fetcher | None) -> RestoreSession:
    """The session in `raw`, with members beyond the documented ones, as newer servers send them.

    Raises: msgspec.MsgspecError, TypeError or ValueError where it is anything else.
    """
    (session,) = sessions_of((_ANY_SESSION.decode(raw),), server, fetcher)
    document = cast("dict[str, object]", DOCUMENT.decode(raw))
    more = {name: value for name, value in document.items() if name not in _DOCUMENTED}
    if any(name.casefold() in _IN_ANY_CASE for name in more):
        raise ValueError("a documented member in another case")
    object.__setattr__(session, "extra", JsonObject(more))
    return session
