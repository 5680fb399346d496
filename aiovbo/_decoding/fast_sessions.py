"""Restore sessions exactly as documented, from bytes to frozen models: the fast path, by msgspec.

Whatever is not exactly as documented is refused here, and left to the tolerant path. Knows one schema.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec

from aiovbo._resources.enums import RestoreSessionResult, RestoreSessionState, RestoreSessionType
from aiovbo._resources.links import NOTHING_MORE, Fetcher, JsonObject, LinkTemplate
from aiovbo._resources.structuring import DOCUMENT, in_utc
from aiovbo.models import Model, RestoreSession

NULL = msgspec.Raw(b"null")


class AnySession(msgspec.Struct, rename="camel", gc=False):
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
    links: msgspec.Raw = msgspec.field(name="_links", default=NULL)


class WireSession(AnySession, forbid_unknown_fields=True):
    """A session with no member beyond the documented ones."""


_SESSIONS = msgspec.json.Decoder(list[WireSession])
_SESSION = msgspec.json.Decoder(WireSession)
_ANY_SESSION = msgspec.json.Decoder(AnySession)
_DOCUMENTED = {*AnySession.__struct_encode_fields__}
_IN_ANY_CASE = {name.casefold() for name in _DOCUMENTED}


class _Draft(RestoreSession):
    """A session that is not frozen yet: the same slots, filled at a quarter of the price."""

    __slots__ = ()
    # Both of them: with one inherited from the frozen class, each assignment would go through Python.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__
    # It is filled afterwards.
    __init__: Any = object.__init__
    # The slot itself, which holds the links as they came.
    links = vars(Model)["links"].slot


def as_text(document: bytes) -> bytes:
    """The document, once it is sure that all of it is UTF-8, also the links, which are not decoded here.

    Raises: ValueError where it is not.
    """
    # Of ASCII, which most responses are, that is said in no time.
    if not document.isascii():
        document.decode()
    return document


class SessionReader:
    """Reads the sessions of one response; what their links have in common is kept once."""

    def __init__(self, server: str, fetcher: Fetcher | None) -> None:
        self._server = server
        self._fetcher = fetcher
        self._plain = LinkTemplate(fetcher)
        self._packed: LinkTemplate | None = None
        self._texts: dict[str | None, str | None] = {}

    def read_many(self, document: bytes, *, pack: bool = False) -> list[RestoreSession]:
        """The sessions in a JSON array, all exactly as documented; packed, they take less memory, and longer.

        Raises: msgspec.MsgspecError or ValueError where one of them is not.
        """
        wires = _SESSIONS.decode(as_text(document))
        if pack and self._packed is None and wires:
            self._pack_like(wires[0])
        return self.models(wires)

    def _pack_like(self, example: WireSession) -> None:
        self._packed = LinkTemplate(self._fetcher, bytes(example.links), str(example.id).encode())

    def read(self, raw: bytes | msgspec.Raw) -> RestoreSession:
        """The session in `raw`, exactly as documented.

        Raises: msgspec.MsgspecError or ValueError where it is not.
        """
        return self.models((_SESSION.decode(as_text(bytes(raw))),))[0]

    def read_with_more(self, raw: bytes | msgspec.Raw) -> RestoreSession:
        """The session in `raw`, with members beyond the documented ones, as newer servers send them.

        Raises: msgspec.MsgspecError, TypeError or ValueError where it is anything else.
        """
        (session,) = self.models((_ANY_SESSION.decode(raw),))
        document = cast("dict[str, object]", DOCUMENT.decode(raw))
        more = {name: value for name, value in document.items() if name not in _DOCUMENTED}
        if any(name.casefold() in _IN_ANY_CASE for name in more):
            raise ValueError("a documented member in another case")
        object.__setattr__(session, "extra", JsonObject(more))
        return session

    def models(self, wires: Sequence[AnySession]) -> list[RestoreSession]:
        """The frozen models of sessions as they were decoded.

        Raises: ValueError for a time that is none.
        """
        # Any: to a type checker, what is frozen stays frozen.
        new: Any = _Draft
        at = datetime.fromisoformat
        server, plain, packed = self._server, self._plain, self._packed
        sessions: list[RestoreSession] = []
        for wire in wires:
            draft = new()
            # The text shows sooner than the time that it is in UTC, and of this millennium: nearly all are.
            text = wire.creation_time
            began: Any = at(text)
            if text[-1] != "Z" or text[0] != "2":
                began = in_utc(began)
                if began is None:
                    raise ValueError("a time that stands for 'never'")
            ended: Any = wire.end_time
            if ended is not None:
                text = ended
                ended = at(text)
                if text[-1] != "Z" or text[0] != "2":
                    ended = in_utc(ended)
            # A copy of the links' bytes: what msgspec hands out would keep the whole response in memory.
            draft.links = b"" + wire.links
            draft.origin = plain
            draft.server = server
            draft.extra = NOTHING_MORE
            draft.id = wire.id
            draft.type = wire.type
            draft.creation_time = began
            draft.end_time = ended
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
            if packed is not None:
                self._pack(draft, packed)
            # From here on it is a session as any other: frozen, and with nothing of the draft about it.
            draft.__class__ = RestoreSession
            sessions.append(draft)
        return sessions

    def _pack(self, draft: Any, packed: LinkTemplate) -> None:  # as above
        """Keep short what links of the pattern have of their own, and texts that come again once."""
        key = packed.key_of(draft.links)
        if key is not None:
            draft.links, draft.origin = key, packed
        if draft.organization is not None:
            share = self._texts.setdefault
            draft.organization = share(draft.organization, draft.organization)
            draft.initiated_by = share(draft.initiated_by, draft.initiated_by)
            draft.client_host = share(draft.client_host, draft.client_host)
            draft.name = share(draft.name, draft.name)
            draft.details = share(draft.details, draft.details)
