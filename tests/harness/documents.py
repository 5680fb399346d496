"""Documents of the API for tests: the documented v4 example, and random ones of every version."""

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, get_args
from uuid import UUID

import attrs
from hypothesis import strategies as st

from aiovbo import JsonObject
from aiovbo._resources.enums import OpenEnum
from aiovbo._resources.structuring import CLIENT_FIELDS, api_name
from aiovbo.models import Model

V4_EXAMPLE = b"""[{"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "type": "Vex", "creationTime": "2018-06-29T07:42:21.191694Z",
  "endTime": "2018-06-29T08:14:58.3532833Z", "state": "Stopped", "result": "Success", "_links": {
   "self": {"href": "https://abc.tech.local:4443/v4/restoresessions/0800471b-d0e2-422b-9d7c-35d15661c3fb"},
   "organization": {"href": "https://abc.tech.local:4443/v4/restoresessions/0800471b-d0e2-422b-9d7c-35d15661c3fb/organization"}}},
 {"id": "9f786f0f-de9a-4a90-8118-093b6cb2c4fc", "type": "Vex", "creationTime": "2017-06-29T08:30:05.0983973Z",
  "state": "Working", "result": "Success", "_links": {
   "self": {"href": "https://abc.tech.local:4443/v4/restoresessions/9f786f0f-de9a-4a90-8118-093b6cb2c4fc"},
   "organization": {"href": "https://abc.tech.local:4443/v4/restoresessions/9f786f0f-de9a-4a90-8118-093b6cb2c4fc/organization"}}}]"""  # noqa: E501  # byte for byte
"""Source: help center, "Getting Restore Sessions", v4, read 2026-11-23."""


def session(number: int = 0, **changes: object) -> dict[str, Any]:
    """A v4 session as a server would send it; a change to `...` leaves the member out."""
    key = UUID(int=number + 1)
    document: dict[str, Any] = {
        "id": str(key),
        "type": "Vex",
        "creationTime": "2026-11-20T08:30:05.0983973Z",
        "endTime": "2026-11-20T09:30:05.0983979Z",
        "state": "Stopped",
        "result": "Success",
        "_links": {
            "self": {"href": f"https://abc.tech.local:4443/v4/restoresessions/{key}"},
            "organization": {"href": f"https://abc.tech.local:4443/v4/restoresessions/{key}/organization"},
        },
    }
    document |= changes
    return {name: value for name, value in document.items() if value is not ...}


def array(*documents: object) -> bytes:
    """A bare array, as v4 answers."""
    return json.dumps(documents).encode()


def page(*documents: object, **members: object) -> bytes:
    """A page, as v5 and later answer."""
    return json.dumps({"offset": 0, "limit": 30, "results": documents, **members}).encode()


def _time(text: Callable[[datetime], str]) -> st.SearchStrategy[str]:
    # Not the first year and the last, which mean never, also after the shift of a time zone.
    moments = st.datetimes(datetime(2, 1, 2), datetime(9998, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001
    return moments.map(text)


def _naive(time: datetime, timespec: str) -> str:
    return time.replace(tzinfo=None).isoformat(timespec=timespec)


NEVER = ["0001-01-01T00:00:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z"]
MOMENTS = st.one_of(
    _time(lambda t: _naive(t, "microseconds") + "7Z"),
    _time(lambda t: _naive(t, "milliseconds") + "Z"),
    _time(lambda t: _naive(t, "seconds") + "Z"),
    _time(lambda t: _naive(t, "microseconds") + "9"),
    _time(lambda t: _naive(t, "seconds") + "+05:30"),
)
"""Times as servers write them: seven digits, none, naive, with an offset."""
TIMES = st.one_of(MOMENTS, st.sampled_from(NEVER))
TEXTS = st.one_of(st.none(), st.text(max_size=20))
LINKS = st.dictionaries(
    st.text(max_size=5),
    st.one_of(st.none(), st.fixed_dictionaries({"href": TEXTS}, optional={"templated": st.booleans()})),
    max_size=3,
)
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.integers(2**53, 2**63).map(str))
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["Vex", "Veod", "vesp", "Vet", "Vxx", None]),
    "endTime": st.one_of(st.none(), TIMES),
    "state": st.sampled_from(["Working", "stopped", "Paused", None]),
    "result": st.sampled_from(["Success", "FAILED", "Cancelled", None]),
    "_links": st.one_of(st.none(), st.just([]), LINKS),
    "name": TEXTS,
    "organization": TEXTS,
    "initiatedBy": TEXTS,
    "details": TEXTS,
    "scopeName": TEXTS,
    "clientHost": TEXTS,
    "reason": TEXTS,
    "eTag": st.one_of(st.none(), NUMBERS),
}
_MEMBERS_UP_TO = {"v4": 5, "v5": 8, "v6": 12, "v7": 12, "v8": 13}


@functools.cache
def sessions(version: str = "v8") -> st.SearchStrategy[dict[str, Any]]:
    """Sessions of a version, with every oddity that a session survives, and some that it does not."""
    known = dict(list(MEMBERS.items())[: _MEMBERS_UP_TO[version]])
    return st.fixed_dictionaries({"id": st.uuids().map(str), "creationTime": TIMES}, optional=known)


SESSIONS = sessions()
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
MORE = st.dictionaries(st.text(max_size=8), JSON, max_size=3)
"""Members that are not documented."""


CASES: list[Callable[[str], str]] = [
    str,
    str,
    str.upper,
    str.lower,
    lambda name: name[:1].upper() + name[1:],
]
"""How a member's name may be written."""


@st.composite
def in_odd_case(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """The same with some members' names in another case, as older property tables write them."""
    change = draw(st.sampled_from(CASES))
    return {
        change(name) if name != "_links" and draw(st.booleans()) else name: value
        for name, value in draw(documents).items()
    }


ODD = st.one_of(
    st.none(), JSON, st.sampled_from(["", "17", "1.0", "true", "yesterday", "24:00:00", "2026-02-30"])
)
"""Values that hardly any member may have."""


@st.composite
def mutated(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """The same, with members left out, made null or of another type, in another case, and unknown ones added.

    What identifies it is kept: an id, and the creation time of a restore session.
    """
    found: dict[str, Any] = {}
    for name, value in draw(documents).items():
        change = draw(st.sampled_from(CASES))
        fate = (
            "kept" if name.casefold() == "id" else draw(st.sampled_from(["kept", "odd", "odd", "left out"]))
        )
        if name.casefold() == "creationtime":
            found[change(name)] = draw(MOMENTS)
        elif fate != "left out":
            found[change(name)] = value if fate == "kept" else draw(ODD)
    known = {name.casefold() for name in found}
    more = {name: value for name, value in draw(MORE).items() if name.casefold() not in known}
    return {**more, **found}


def timespan(ticks: int) -> str:
    """A duration of so many ticks, 100 ns each, as .NET writes it."""
    days, rest = divmod(abs(ticks), 864_000_000_000)
    seconds, fraction = divmod(rest, 10_000_000)
    hours, minutes = divmod(seconds // 60, 60)
    text = f"{hours:02}:{minutes:02}:{seconds % 60:02}" + (f".{fraction:07}" if fraction else "")
    return ("-" if ticks < 0 else "") + (f"{days}." if days else "") + text


BY_TYPE: dict[object, st.SearchStrategy[Any]] = {
    UUID: st.uuids().map(str),
    str: st.text(max_size=20),
    int: NUMBERS,
    bool: st.sampled_from([True, False, "true", "False"]),
    datetime: MOMENTS,
    timedelta: st.integers(-(10**15), 10**15).map(timespan),
    JsonObject: MORE,
    tuple[str, ...]: st.lists(st.text(max_size=5), max_size=3),
    tuple[JsonObject, ...]: st.lists(MORE, max_size=3),
}


@functools.cache
def documents_of(model: type[Model]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents of a model, by the types of its fields: all values, nulls, an odd case, unknown members."""
    always: dict[str, st.SearchStrategy[Any]] = {}
    perhaps: dict[str, st.SearchStrategy[Any]] = {"_links": st.one_of(st.none(), LINKS)}
    for field in attrs.fields(model):
        if field.name in CLIENT_FIELDS:
            continue
        kinds = [kind for kind in get_args(field.type) if kind is not type(None)]
        kind = kinds[0] if isinstance(field.type, UnionType) else field.type
        if isinstance(kind, type) and issubclass(kind, OpenEnum):
            values = st.sampled_from([*kind, *(member.value.upper() for member in kind), "Sideways"]).map(str)
        else:
            values = BY_TYPE[kind]
        if field.default is attrs.NOTHING:
            always[api_name(field.name)] = values
        else:
            perhaps[api_name(field.name)] = st.one_of(st.none(), values)
    documented = in_odd_case(st.fixed_dictionaries(always, optional=perhaps))
    names = {name.casefold() for name in (*always, *perhaps)}
    # A documented name in any case is no unknown member.
    unknown = MORE.map(lambda more: {name: it for name, it in more.items() if name.casefold() not in names})
    return st.builds(lambda more, known: {**more, **known}, unknown, documented)
