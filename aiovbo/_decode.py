"""Bytes of an answer to models: typed and fast by msgspec, or item by item and tolerant by cattrs.

Both paths end in the same frozen classes, equal for equal input. Knows the JSON of the API and its oddities;
knows no URLs, no HTTP, no asyncio, no clock.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn, override

from aiovbo._links import Fetcher, JsonObject, Links, M, Resource
from aiovbo._query import Rejected
from aiovbo.errors import PayloadError, printable
from aiovbo.models import (
    OURS,
    Model,
    OpenEnum,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    api_name,
)

SLICE = 250
"""Items structured at a stretch: about a millisecond, so that an event loop stays responsive."""

_WHOLE = 100_000
"""Bytes up to which an answer is decoded in one go."""

_RAW_LIMIT = 10_000
_BROKEN = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)

E = TypeVar("E", bound=OpenEnum)

# ------------------------------------------------------------------------------------- values


def parse_time(text: str) -> datetime | None:
    """A point in time, aware UTC, further digits than microseconds cut off; None for .NET's "never".

    Naive means UTC. Raises: ValueError where `text` is no time.
    """
    time = datetime.fromisoformat(text)
    if time.year in (1, 9999):
        return None
    if time.tzinfo is UTC:
        return time
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _time_or_none(value: object, _: object = None) -> datetime | None:
    return None if value is None else parse_time(_text(value))


def _time(value: object, _: object = None) -> datetime:
    time = parse_time(_text(value))
    if time is None:
        message = "a time that stands for 'never'"
        raise ValueError(message)
    return time


def _text(value: object, _: object = None) -> str:
    if not isinstance(value, str):
        message = f"expected a text, got {_kind(value)}"
        raise TypeError(message)
    return value


def _whole_number(value: object, _: object = None) -> int:
    # The vendor's own examples write numbers as texts.
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,30}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"expected a whole number, got {_kind(value)}"
        raise TypeError(message)
    return value


def _uuid(value: object, _: object = None) -> UUID:
    try:
        return UUID(_text(value))
    except ValueError:
        message = "expected a UUID"
        raise ValueError(message) from None


def _open_enum(value: object, cls: type[E]) -> E:
    return cls(_text(value))


def _truth(value: object, _: object = None) -> bool:
    if not isinstance(value, bool):
        message = f"expected true or false, got {_kind(value)}"
        raise TypeError(message)
    return value


def _json_object(value: object, _: object = None) -> JsonObject:
    if not isinstance(value, Mapping):
        message = f"expected an object, got {_kind(value)}"
        raise TypeError(message)
    return JsonObject(cast("Mapping[str, Any]", value))


_TIMESPAN = re.compile(r"(-?)(?:(\d{1,8})\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.(\d{1,7}))?")


def _timespan(value: object, _: object = None) -> timedelta:
    found = _TIMESPAN.fullmatch(_text(value))
    if found is None:
        message = "expected a duration such as 1.02:03:04.5"
        raise ValueError(message)
    sign, days, hours, minutes, seconds, fraction = found.groups()
    micros = int((fraction or "").ljust(6, "0")[:6])
    span = timedelta(int(days or 0), int(seconds), micros, 0, int(minutes), int(hours))
    return -span if sign else span


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case _:
            return "a list"


# ------------------------------------------------------------------------------ the tolerant path


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, _whole_number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(UUID, _uuid)
    converter.register_structure_hook(timedelta, _timespan)
    converter.register_structure_hook(datetime, _time)
    converter.register_structure_hook(datetime | None, _time_or_none)
    converter.register_structure_hook(JsonObject, _json_object)
    converter.register_structure_hook(Links, lambda links, _: links)
    for enum in OpenEnum.__subclasses__():
        # Each by itself: a hook for a class serves its subclasses too, and these are texts.
        converter.register_structure_hook(enum, _open_enum)
    for model in Model.__subclasses__():
        # What is OURS is not the server's to set: see `_structure`.
        names: dict[str, Any] = {
            name: override(rename=api_name(name)) for name in attrs.fields_dict(model) if name not in OURS
        }
        converter.register_structure_hook(model, make_dict_structure_fn(model, converter, **names))
    return converter


converter = _make_converter()
"""The door through which documents become models."""


@attrs.frozen
class _Shape:
    """The API's names of a model's fields, by the same in lower case; and those that cannot be missing."""

    names: dict[str, str]
    required: frozenset[str]


def _shape(model: type[Model]) -> _Shape:
    known = [found for found in attrs.fields(model) if found.name not in OURS]
    return _Shape(
        {api_name(found.name).casefold(): api_name(found.name) for found in known},
        frozenset(api_name(found.name) for found in known if found.default is attrs.NOTHING),
    )


_SHAPES: dict[object, _Shape] = {model: _shape(model) for model in Model.__subclasses__()}


def _structure(document: Mapping[str, Any], cls: type[M], server: str, fetcher: Fetcher | None) -> M:
    links = Links(document.get("_links"), fetcher, cls)
    if issubclass(cls, Resource):
        return cls(document, server, links)
    shape = _SHAPES[cls]
    members: dict[str, Any] = {"server": server, "links": links}
    extra: dict[str, Any] = {}
    for key, value in document.items():
        # Older property tables write `Id` where the examples have `id`.
        name = shape.names.get(key.casefold())
        if name is None:
            if key != "_links":
                extra[key] = value
        elif value is not None or name in shape.required:
            members[name] = value
    if extra:
        members["extra"] = extra
    return converter.structure(members, cls)


def _problems(error: BaseException) -> list[tuple[str, str]]:
    """What cattrs found wrong, as (path, reason)."""
    if not isinstance(error, cattrs.ClassValidationError):
        return [("$", printable(str(error)))]

    def reason(exc: BaseException, _: object) -> str:
        return "missing" if isinstance(exc, KeyError) else printable(str(exc))

    lines = cattrs.transform_error(error, format_exception=reason)
    found: list[tuple[str, str]] = []
    for line in lines:
        text, _, path = line.rpartition(" @ ")
        prefix, _, name = path.rpartition(".")
        found.append((f"{prefix}.{api_name(name)}", text))
    return found


def read_tolerant(
    raw: bytes | msgspec.Raw, cls: type[M], server: str, fetcher: Fetcher | None, index: int = 0
) -> M | Rejected:
    """The model in `raw`, accepting what a model can do without; or what is wrong with it."""
    try:
        document = _DOCUMENT.decode(raw)
        if not isinstance(document, dict):
            problems = [("$", f"expected an object, got {_kind(document)}")]
        else:
            return _structure(cast("dict[str, Any]", document), cls, server, fetcher)
    except (*_BROKEN, cattrs.BaseValidationError) as error:
        problems = _problems(error)
    path, reason = problems[0]
    text = bytes(raw)[:_RAW_LIMIT].decode("utf-8", "replace")
    return Rejected(index, path, reason, text)


# ---------------------------------------------------------------------------------- the fast path


class _WireSession(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A session exactly as documented; anything beyond goes the tolerant way, so that nothing is lost."""

    id: UUID
    creation_time: str
    type: str | None = None
    end_time: str | None = None
    state: str | None = None
    result: str | None = None
    name: str | None = None
    organization: str | None = None
    initiated_by: str | None = None
    details: str | None = None
    scope_name: str | None = None
    client_host: str | None = None
    reason: str | None = None
    e_tag: int | None = None
    links: msgspec.Raw = msgspec.field(name="_links", default=msgspec.Raw(b"null"))


# Looking a text up is ten times cheaper than calling the enum.
_TYPES = {kind.value: kind for kind in RestoreSessionType}
_STATES = {state.value: state for state in RestoreSessionState}
_RESULTS = {result.value: result for result in RestoreSessionResult}


def _session(wire: _WireSession, server: str, fetcher: Fetcher | None) -> RestoreSession:
    kind, state, result = wire.type, wire.state, wire.result
    return RestoreSession(
        id=wire.id,
        type=None if kind is None else _TYPES.get(kind) or RestoreSessionType(kind),
        creation_time=_time(wire.creation_time),
        end_time=None if wire.end_time is None else parse_time(wire.end_time),
        state=None if state is None else _STATES.get(state) or RestoreSessionState(state),
        result=None if result is None else _RESULTS.get(result) or RestoreSessionResult(result),
        name=wire.name,
        organization=wire.organization,
        initiated_by=wire.initiated_by,
        details=wire.details,
        scope_name=wire.scope_name,
        client_host=wire.client_host,
        reason=wire.reason,
        etag=wire.e_tag,
        server=server,
        links=Links(bytes(wire.links), fetcher, RestoreSession),
    )


_Origin = tuple[type[M], str, Fetcher | None]


class _TypedPage(msgspec.Struct, gc=False):
    """A page whose items are exactly as documented."""

    results: list[_WireSession]
    limit: int | str | None = None
    total: int | str | None = msgspec.field(name="totalCount", default=None)
    links: msgspec.Raw = msgspec.field(name="_links", default=msgspec.Raw(b"null"))


class _RawPage(msgspec.Struct, gc=False):
    """A page whose items are still bytes."""

    results: list[msgspec.Raw]
    limit: int | str | None = None
    total: int | str | None = msgspec.field(name="totalCount", default=None)
    links: msgspec.Raw = msgspec.field(name="_links", default=msgspec.Raw(b"null"))


_DOCUMENT = msgspec.json.Decoder()
_SESSION = msgspec.json.Decoder(_WireSession)
_SESSIONS = msgspec.json.Decoder(list[_WireSession])
_SESSION_PAGE = msgspec.json.Decoder(_TypedPage)
_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_PAGE = msgspec.json.Decoder(_RawPage)


class Listing(Generic[M]):
    """One answer of a collection: its items, slice by slice, and what it says of further pages."""

    def __init__(
        self, items: Sequence[M | msgspec.Raw], page: _TypedPage | _RawPage | None, origin: _Origin[M]
    ) -> None:
        self._items = items
        self._origin = origin
        self.is_array = page is None
        """Whether the server sent a bare array, without a word on pages."""
        self.limit: int | None = None
        """How many items the server puts on a page, where it says so."""
        self.total: int | None = None
        """How many items there are on all pages, where it says so."""
        self.next_href: str | None = None
        """The link to the next page."""
        if page is not None:
            self.limit = None if page.limit is None else _whole_number(page.limit)
            self.total = None if page.total is None else _whole_number(page.total)
            further = Links(bytes(page.links)).get("next")
            self.next_href = further and further.href

    def __len__(self) -> int:
        return len(self._items)

    def slices(self) -> Iterator[tuple[list[M], list[Rejected]]]:
        """The items, `SLICE` at a stretch, and what had to be set aside of each slice."""
        for start in range(0, len(self._items), SLICE):
            items: list[M] = []
            rejected: list[Rejected] = []
            for index, item in enumerate(self._items[start : start + SLICE], start):
                read = self._read(item, index) if isinstance(item, msgspec.Raw) else item
                if isinstance(read, Rejected):
                    rejected.append(read)
                else:
                    items.append(read)
            yield items, rejected

    def _read(self, raw: msgspec.Raw, index: int) -> M | Rejected:
        cls, server, fetcher = self._origin
        if cls is RestoreSession:
            try:
                return cast("M", _session(_SESSION.decode(raw), server, fetcher))
            except _BROKEN:
                pass
        return read_tolerant(raw, cls, server, fetcher, index)


def decode_listing(body: bytes, cls: type[M], server: str, fetcher: Fetcher | None) -> Listing[M]:
    """What a collection's answer holds: a bare array (up to v4) or a page (from v5), in every version.

    Shape: `[...]`, or `{"results": [...], "limit": ..., "_links": {"next": {"href": ...}}}`.
    Raises: PayloadError where it is neither.
    """
    body = _bare(body)
    origin = (cls, server, fetcher)
    try:
        return _listing(body, origin)
    except _BROKEN:
        pass
    try:
        return _listing(_repaired(body), origin)
    except _BROKEN as error:
        failure = _not_the_promised(body, "a list of items", error)
    raise failure


def _listing(body: bytes, origin: _Origin[M]) -> Listing[M]:
    cls, server, fetcher = origin
    is_array = body[:1] == b"["
    if cls is RestoreSession and len(body) <= _WHOLE:
        try:
            typed = None if is_array else _SESSION_PAGE.decode(body)
            wires = _SESSIONS.decode(body) if typed is None else typed.results
            sessions = [_session(wire, server, fetcher) for wire in wires]
            return Listing(cast("list[M]", sessions), typed, origin)
        except _BROKEN:
            pass
    page = None if is_array else _PAGE.decode(body)
    raws = _ITEMS.decode(body) if page is None else page.results
    return Listing(raws, page, origin)


def decode_one(body: bytes, cls: type[M], server: str, fetcher: Fetcher | None) -> M:
    """The one resource that an answer holds.

    Raises: PayloadError where it is none.
    """
    body = _bare(body)
    read = read_tolerant(body, cls, server, fetcher)
    if isinstance(read, Rejected):
        read = read_tolerant(_repaired(body), cls, server, fetcher)
    if isinstance(read, Rejected):
        raise _not_the_promised(body, f"a {cls.__name__}", f"{read.reason} @ {read.path}")
    return read


def decode_object(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object in `body`; None where there is none, as in the error pages of proxies."""
    try:
        document = _DOCUMENT.decode(_bare(body))
    except _BROKEN:
        return None
    return cast("dict[str, Any]", document) if isinstance(document, dict) else None


def _not_the_promised(body: bytes, promised: str, error: object) -> PayloadError:
    if body[:1] == b"<":
        hint = "Is there a proxy, a login page or another product at this address?"
        return PayloadError("the answer is a web page, not JSON", hint=hint)
    return PayloadError(
        f"the answer is not {promised}",
        problems=(printable(str(error)),),
        # A body that ends too early is JSON cut short: the next attempt may bring all of it.
        retryable=type(error) is msgspec.DecodeError,
        hint=f"It says: {printable(str(error))}.",
    )


def _bare(body: bytes) -> bytes:
    """`body` without a byte order mark, and without blanks around it."""
    return body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")


_SURROGATES = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _repaired(body: bytes) -> bytes:
    """`body` with U+FFFD for halves of surrogate pairs, of which no text can be made."""
    return _SURROGATES.sub(lambda m: rb"\ufffd" if m["lone"] else m[0], body)
