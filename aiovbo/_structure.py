"""Documents to models, item by item, forgiving what a model can do without: the tolerant path, by cattrs.

Knows how the API writes values and where it strays from its documents; knows no listings, no URLs, no HTTP.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast, get_origin
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.dispatch import StructureHook
from cattrs.gen import make_dict_structure_fn, override

from aiovbo._enums import OpenEnum
from aiovbo._links import Fetcher, JsonObject, Links, M, Resource
from aiovbo._query import Rejected
from aiovbo.errors import printable
from aiovbo.models import OURS, Model, api_name

LAST_YEAR = 9999
"""Of .NET, where it stands for "never"; as year 1 does."""

_RAW_LIMIT = 10_000
BROKEN = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
"""What a decoder or a parser raises for what it cannot read."""

DOCUMENT = msgspec.json.Decoder()
"""Any JSON, as plain Python values."""

E = TypeVar("E", bound=OpenEnum)

# ------------------------------------------------------------------------------------- values


def parse_time(text: str) -> datetime | None:
    """A point in time, aware UTC, further digits than microseconds cut off; None for .NET's "never".

    Naive means UTC. Raises: ValueError where `text` is no time.
    """
    return in_utc(datetime.fromisoformat(text))


def in_utc(time: datetime) -> datetime | None:
    """The same in UTC, which naive means too; None for .NET's "never"."""
    if time.year in (1, LAST_YEAR):
        return None
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


def _uuid(value: object, _: object = None) -> UUID:
    try:
        return UUID(_text(value))
    except ValueError:
        message = "expected a UUID"
        raise ValueError(message) from None


def _open_enum(value: object, cls: type[E]) -> E:
    return cls(_text(value))


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


def _is_tuple(kind: Any) -> bool:  # noqa: ANN401  # an annotation
    return get_origin(kind) is tuple


def _tuple_hook(kind: Any, within: cattrs.Converter) -> StructureHook:  # noqa: ANN401  # as above
    """Several values, of a list only: a text and an object can be iterated too."""
    structure = homogenous_tuple_structure_factory(kind, within)

    def several(value: object, cls: Any) -> Any:  # noqa: ANN401  # as cattrs has it
        if not isinstance(value, list | tuple):
            message = f"expected a list, got {kind_of(value)}"
            raise TypeError(message)
        return structure(value, cls)

    return several


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(int, whole_number)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(UUID, _uuid)
    converter.register_structure_hook(timedelta, _timespan)
    converter.register_structure_hook(datetime, _time)
    converter.register_structure_hook(datetime | None, _time_or_none)
    converter.register_structure_hook(JsonObject, _json_object)
    converter.register_structure_hook(Links, lambda links, _: links)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
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
        if name is None or (name != key and (name in document or name in members)):
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
        document = DOCUMENT.decode(raw)
        if not isinstance(document, dict):
            problems = [("$", f"expected an object, got {kind_of(document)}")]
        else:
            return _structure(cast("dict[str, Any]", document), cls, server, fetcher)
    except (*BROKEN, cattrs.BaseValidationError) as error:
        problems = _problems(error)
    path, reason = problems[0]
    text = bytes(raw)[:_RAW_LIMIT].decode("utf-8", "replace")
    return Rejected(index, path, reason, text)
