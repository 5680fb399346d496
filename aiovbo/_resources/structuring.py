"""Documents to models, member by member: the tolerant path, by cattrs.

An invalid value never costs the whole resource, unless it identifies it: the field is None, and the value
is in `extra`. Knows how the API writes values; knows no listings, no URLs, no HTTP, and no model by name.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory
from cattrs.dispatch import StructureHook

from aiovbo._core.query import Rejected
from aiovbo._resources.enums import OpenEnum
from aiovbo._resources.links import NOTHING_MORE, Fetcher, JsonObject, Links, M, Resource
from aiovbo.errors import ConfigError, printable

LAST_YEAR = 9999
"""Of .NET, where it stands for "never"; as year 1 does."""

_RAW_LIMIT = 10_000

_QUOTED = 3
"""Most characters of an invalid text that a reason may quote: no secret is so short."""

BROKEN = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""What a decoder or a parser raises for what it cannot read."""

DOCUMENT = msgspec.json.Decoder()
"""Any JSON, as plain Python values."""
members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The members of a JSON object, each still as bytes."""

CLIENT_FIELDS = ("server", "links", "extra")
"""Fields of a model that the server does not set."""

E = TypeVar("E", bound=OpenEnum)

# ------------------------------------------------------------------------------------- values


def parse_time(text: str) -> datetime | None:
    """A point in time, aware UTC, further digits than microseconds cut off; None for .NET's "never".

    Naive means UTC. Raises: ValueError where `text` is no time.
    """
    # RFC 3339 permits both cases, Python reads one.
    return in_utc(datetime.fromisoformat(text[:-1] + "Z" if text.endswith("z") else text))


def in_utc(time: datetime) -> datetime | None:
    """The same in UTC, which naive means too; None for .NET's "never"."""
    if time.year in (1, LAST_YEAR):
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    # Its offset may lead into one of these years: what is read from `to_dict` must be the same again.
    return None if time.year in (1, LAST_YEAR) else time


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
        message = f"expected a text, got {kind_of(value)}"
        raise TypeError(message)
    return value


def whole_number(value: object, _: object = None) -> int:
    """A number, also where it was sent as a text.

    Raises: TypeError for anything else.
    """
    # The vendor's own examples write numbers as texts.
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,30}", value):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        message = f"expected a whole number, got {kind_of(value)}"
        raise TypeError(message)
    return value


def _number(value: object, _: object = None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        message = f"expected a number, got {kind_of(value)}"
        raise TypeError(message)
    return float(value)


def _uuid(value: object, _: object = None) -> UUID:
    try:
        return UUID(_text(value))
    except ValueError:
        message = "expected a UUID"
        raise ValueError(message) from None


def _open_enum(value: object, cls: type[E]) -> E:
    return cls(_text(value))


def _enum(value: object, cls: type[Enum]) -> Enum:
    return cls(value)


def _truth(value: object, _: object = None) -> bool:
    # As with numbers: the vendor's own examples write them as texts.
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        message = f"expected true or false, got {kind_of(value)}"
        raise TypeError(message)
    return value


def _json_object(value: object, _: object = None) -> JsonObject:
    if not isinstance(value, Mapping):
        message = f"expected an object, got {kind_of(value)}"
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


def kind_of(value: object) -> str:
    """What JSON calls a value."""
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


def _holds_several(kind: Any) -> bool:  # an annotation
    return get_origin(kind) in _FACTORIES


_FACTORIES: dict[Any, Any] = {tuple: homogenous_tuple_structure_factory, list: list_structure_factory}


def _hook_of_several(kind: Any, within: cattrs.Converter) -> StructureHook:  # as above
    """Several values, of a list only: a text and an object can be iterated too."""
    structure = _FACTORIES[get_origin(kind)](kind, within)

    def several(value: object, cls: Any) -> Any:  # as cattrs has it
        if not isinstance(value, list | tuple):
            message = f"expected a list, got {kind_of(value)}"
            raise TypeError(message)
        return structure(value, cls)

    return several


def _nested(value: object, cls: type[Any]) -> Any:  # of the caller's class
    if not isinstance(value, Mapping):
        message = f"expected an object, got {kind_of(value)}"
        raise TypeError(message)
    return structure(cast("Mapping[str, Any]", value), cls, "", None)


def _make_converter() -> cattrs.Converter:
    # Each member is structured by itself, so cattrs need not collect what is wrong.
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, whole_number)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(UUID, _uuid)
    converter.register_structure_hook(timedelta, _timespan)
    converter.register_structure_hook(datetime, _time)
    converter.register_structure_hook(datetime | None, _time_or_none)
    converter.register_structure_hook(JsonObject, _json_object)
    converter.register_structure_hook_factory(_holds_several, _hook_of_several)
    converter.register_structure_hook_func(attrs.has, _nested)
    return converter


_converter = _make_converter()


def api_name(attribute: str) -> str:
    """The API's own name of a model's attribute: `creation_time` is `creationTime`."""
    if attribute == "etag":
        return "eTag"
    first, *others = attribute.strip("_").split("_")
    return first + "".join(other.capitalize() for other in others)


@attrs.frozen
class _Member:
    """A documented member of a resource, and the field of its model."""

    name: str
    attribute: str
    """The parameter of the model's constructor."""
    kind: Any
    read: Callable[[Any, Any], Any]
    is_required: bool
    """Whether it identifies the resource, which is rejected without it."""


@attrs.frozen
class _Shape:
    """What a model takes of a document."""

    members: dict[str, _Member]
    """By their names in lower case."""
    is_model: bool
    """Whether it also has the fields that the client sets, as subclasses of `Model` do."""


@cache
def _shape_of(model: type[Any]) -> _Shape:
    """A model's shape, determined on first use.

    Raises: ConfigError where it is not an attrs class, or a field has a type that cannot be read from JSON.
    """
    if not attrs.has(model):
        message = f"{model.__qualname__} is not a model: expected a subclass of Model, or an attrs class"
        raise ConfigError(message)
    try:
        attrs.resolve_types(model)
    except Exception as error:  # an annotation in quotes is any expression
        message = f"the model {model.__qualname__} has an annotation that cannot be evaluated: {error}"
        raise ConfigError(message) from None
    fields = attrs.fields(model)
    is_model = {*CLIENT_FIELDS} <= {field.name for field in fields}
    members: dict[str, _Member] = {}
    for field in fields:
        if field.init and not (is_model and field.name in CLIENT_FIELDS):
            # Without an annotation, anything goes.
            kind = Any if field.type is None else field.type
            name = api_name(field.name)
            member = _Member(
                name, field.alias, kind, _hook_for(model, field.name, kind), field.default is attrs.NOTHING
            )
            members[name.casefold()] = member
    return _Shape(members, is_model)


def _hook_for(model: type[Any], name: str, kind: Any) -> Callable[[Any, Any], Any]:  # as above
    for enum in _enums_in(kind):
        # Each by itself: a hook for a class serves its subclasses too, and these may be texts or numbers.
        _converter.register_structure_hook(enum, _open_enum if issubclass(enum, OpenEnum) else _enum)
    try:
        return _converter.get_structure_hook(kind)
    except (cattrs.StructureHandlerNotFoundError, TypeError):
        message = f"the model {model.__qualname__} cannot be read from JSON: {name} has the type {kind!r}"
    raise ConfigError(message)


def _enums_in(kind: Any) -> Iterator[type[Enum]]:  # as above
    if isinstance(kind, type) and issubclass(kind, Enum):
        yield kind
    for inner in get_args(kind):
        yield from _enums_in(inner)


def check_model(model: object) -> None:
    """Nothing where a document can become a `model`.

    Raises: ConfigError where it cannot.
    """
    if not isinstance(model, type):
        message = f"a model is a class such as RestoreSession, or Resource, not {model!r}"
        raise ConfigError(message)
    if not issubclass(model, Resource):
        # Any: to a type checker, not every class can be hashed.
        readable = cast("Any", model)
        _shape_of(readable)


class InvalidResourceError(ValueError):
    """A document without what identifies a resource of its kind."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{reason} @ {path}")
        self.path = path
        """The location of what is invalid, such as `$.id`."""
        self.reason = reason
        """What is wrong there."""


def _named(document: Mapping[str, Any], name: str) -> str | None:
    """The key that is `name` in any case."""
    return next((key for key in document if key.casefold() == name), None)


def structure(document: Mapping[str, Any], cls: type[M], server: str, fetcher: Fetcher | None) -> M:
    """The resource that a JSON object describes; a member that is invalid and not required is in its `extra`.

    Raises: InvalidResourceError where it has not what identifies it.
    """
    rel = "_links" if "_links" in document else _named(document, "_links")
    links = Links(None if rel is None else document[rel], fetcher, cls)
    if issubclass(cls, Resource):
        return cls(document, server, links)
    # Any: to a type checker, a model without a base has no fields.
    model: Any = cls
    shape = _shape_of(model)
    members = shape.members
    documented = {member.name for member in members.values()}
    found: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    invalid: dict[str, str] = {}
    # The documented names first: older property tables write `Id` where the examples have `id`.
    for key, value in sorted(document.items(), key=lambda item: item[0] not in documented):
        member = members.get(key.casefold())
        if member is None or member.attribute in found or member.name in invalid:
            if key != rel:
                extra[key] = value
        elif value is not None or member.is_required:
            try:
                found[member.attribute] = member.read(value, member.kind)
            except Exception as error:  # of a user's own class: of a Literal, cattrs raises Exception itself
                invalid[member.name] = _reason(value, error)
                extra[key] = value
    missing = next((it for it in members.values() if it.is_required and it.attribute not in found), None)
    if missing is not None:
        path, reason = f"$.{missing.name}", invalid.get(missing.name, "missing")
        raise InvalidResourceError(path, reason)
    if "id" in members and not invalid and all(value is None for value in found.values()):
        # Where the id may be missing, any object would do: an error with status 200, or a page.
        reason = f"it has nothing of {cls.__name__}"
        raise InvalidResourceError("$", reason)
    if shape.is_model:
        more = JsonObject(extra) if extra else NOTHING_MORE
        found |= {"server": server, "links": links, "extra": more}
    structured: M = model(**found)
    return structured


def _reason(value: object, error: Exception) -> str:
    """Why a value is invalid, without quoting its text: reasons are logged, and a server may echo a token."""
    if isinstance(error, MemoryError):
        raise error
    reason = str(error)
    if isinstance(value, str) and len(value) > _QUOTED:
        for written in (value, repr(value)[1:-1], value.removesuffix("z")):
            reason = reason.replace(written, "***")
    return printable(reason)


def repaired(text: bytes) -> bytes:
    """`text` with U+FFFD for what is not UTF-8, and for halves of surrogate pairs, which no text can hold.

    The same object where there is nothing to replace.
    """
    try:
        text.decode()
    except ValueError:
        text = text.decode("utf-8", "replace").encode()
    steps = lone_surrogates_replaced(text)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("bytes", end.value)


def lone_surrogates_replaced(text: bytes) -> Generator[tuple[()], None, bytes]:
    """`text` with U+FFFD for halves of surrogate pairs, a thousand of them in a step.

    The same object where there are none. What it yields has no meaning: another task may run then.
    """
    # Mostly there is not even a backslash, which is seen fifty times faster. A zero byte is not JSON.
    if b"\\" not in text or b"\0" in text or _SURROGATE.search(text) is None:
        return text
    # An escaped backslash begins no escape.
    hidden = text.replace(rb"\\", b"\0\0")
    fixed, done = bytearray(), 0
    for count, found in enumerate(_LONE_SURROGATE.finditer(hidden), 1):
        fixed += hidden[done : found.start()] + rb"\ufffd"
        done = found.end()
        if not count % 1000:
            yield ()
    fixed += hidden[done:]
    return bytes(fixed).replace(b"\0\0", rb"\\") if done else text


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"""A half without the other one; each half belongs to the one right beside it."""


def read_json(raw: bytes | msgspec.Raw) -> object:
    """What `raw` holds; a member that no Python value can hold is its text, such as the number 1e400."""
    try:
        return DOCUMENT.decode(raw)
    except BROKEN:
        text = repaired(bytes(raw))
    try:
        return DOCUMENT.decode(text)
    except BROKEN:
        return {name: value_or_text(value) for name, value in members_of(text).items()}


def value_or_text(raw: msgspec.Raw) -> object:
    """A JSON value; its text where no Python value can hold it."""
    try:
        return DOCUMENT.decode(raw)
    except BROKEN:
        return bytes(raw).decode()


def read_tolerant(
    raw: bytes | msgspec.Raw, cls: type[M], server: str, fetcher: Fetcher | None, index: int = 0
) -> M | Rejected:
    """The model in `raw`, with None for what is invalid in it; or why it is rejected."""
    path = "$"
    try:
        document = read_json(raw)
        if isinstance(document, dict):
            return structure(cast("dict[str, Any]", document), cls, server, fetcher)
        reason = f"expected an object, got {kind_of(document)}"
    except InvalidResourceError as error:
        path, reason = error.path, error.reason
    except BROKEN as error:
        reason = printable(str(error))
    text = bytes(raw)[:_RAW_LIMIT].decode("utf-8", "replace")
    return Rejected(index, path, reason, text)
