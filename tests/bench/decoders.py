"""Everybody who can make sessions of an answer's bytes, by name; each gives all items, to be counted.

Knows parsers and models; knows no network and no measuring. What is not installed is left out.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn, override

from aiovbo._decoding.listing import decode_listing
from aiovbo.models import RestoreSession

Decoder = Callable[[bytes], Sequence[Any]]


class Kind(StrEnum):
    """What is restored."""

    VEX = "Vex"
    VEOD = "Veod"
    VESP = "Vesp"
    VET = "Vet"


class State(StrEnum):
    """How far it has come."""

    WORKING = "Working"
    STOPPED = "Stopped"


class Result(StrEnum):
    """How it went."""

    SUCCESS = "Success"
    WARNING = "Warning"
    FAILED = "Failed"


def aiovbo(body: bytes) -> Sequence[Any]:
    """The SDK, bytes to frozen sessions."""
    found: list[Any] = []
    for items, rejected in decode_listing(body, RestoreSession, "bench", None).slices():
        assert not rejected
        found += items
    return found


def _rows(document: Any) -> list[Any]:  # JSON holds anything
    rows: list[Any] = document if isinstance(document, list) else document["results"]
    return rows


class WireSession(msgspec.Struct, rename="camel"):
    """A session as msgspec has it at its best; links stay what they are."""

    type: Kind
    creation_time: datetime
    state: State
    result: Result
    id: UUID | None = None
    end_time: datetime | None = None
    name: str | None = None
    organization: str | None = None
    initiated_by: str | None = None
    details: str | None = None
    scope_name: str | None = None
    client_host: str | None = None
    reason: str | None = None
    e_tag: int | None = None
    links: dict[str, dict[str, str]] = msgspec.field(name="_links", default_factory=dict)


class WirePage(msgspec.Struct):
    """A page of them."""

    results: list[WireSession]


_ARRAY, _PAGE = msgspec.json.Decoder(list[WireSession]), msgspec.json.Decoder(WirePage)


def struct(body: bytes) -> Sequence[Any]:
    """msgspec, bytes to its own mutable structs."""
    return _ARRAY.decode(body) if body[:1] == b"[" else _PAGE.decode(body).results


@attrs.frozen
class Session:
    """A session as one writes it with attrs."""

    id: UUID
    type: Kind
    creation_time: datetime
    state: State
    result: Result
    end_time: datetime | None = None
    name: str | None = None
    organization: str | None = None
    initiated_by: str | None = None
    details: str | None = None
    scope_name: str | None = None
    client_host: str | None = None
    reason: str | None = None
    e_tag: int | None = None
    links: dict[str, dict[str, str]] = attrs.field(factory=dict)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_structure_hook(UUID, lambda text, _: UUID(text))
    renamed = {name: override(rename=_camel(name)) for name in attrs.fields_dict(Session)}
    renamed["links"] = override(rename="_links")
    hook = make_dict_structure_fn(Session, converter, **renamed)  # type: ignore[arg-type]
    converter.register_structure_hook(Session, hook)
    return converter


_CONVERTER = _converter()


def with_cattrs(body: bytes) -> Sequence[Any]:
    """Both json and cattrs as they come."""
    return _CONVERTER.structure(_rows(json.loads(body)), list[Session])


def with_json(body: bytes) -> Sequence[Any]:
    """Dictionaries."""
    return _rows(json.loads(body))


def _orjson() -> Decoder:
    import orjson  # it may be missing

    return lambda body: _rows(orjson.loads(body))


def _pydantic() -> Decoder:
    import pydantic  # it may be missing
    from pydantic.alias_generators import to_camel

    class Row(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(alias_generator=to_camel, frozen=True)
        id: UUID
        type: Kind
        creation_time: datetime
        state: State
        result: Result
        end_time: datetime | None = None
        name: str | None = None
        organization: str | None = None
        initiated_by: str | None = None
        details: str | None = None
        scope_name: str | None = None
        client_host: str | None = None
        reason: str | None = None
        e_tag: int | None = None
        links: dict[str, dict[str, str]] = pydantic.Field(alias="_links", default_factory=dict)

    class DecodedPage(pydantic.BaseModel):
        results: list[Row]

    array: pydantic.TypeAdapter[list[Row]] = pydantic.TypeAdapter(list[Row])

    def decode(body: bytes) -> Sequence[Any]:
        if body[:1] == b"[":
            return array.validate_json(body)
        return DecodedPage.model_validate_json(body).results

    return decode


def _veeam() -> Decoder:
    from veeam_365.v8.models.page_of_rest_restore_session import (  # it may be missing
        PageOfRESTRestoreSession,
    )
    from veeam_365.v8.models.rest_restore_session import RESTRestoreSession

    def decode(body: bytes) -> Sequence[Any]:
        document = json.loads(body)
        if isinstance(document, list):
            return [RESTRestoreSession.from_dict(row) for row in document]
        found: list[Any] = PageOfRESTRestoreSession.from_dict(document).results
        return found

    return decode


def decoders() -> dict[str, Decoder]:
    """Who takes part."""
    found: dict[str, Decoder] = {"aiovbo": aiovbo, "json.loads (dicts)": with_json}
    found["msgspec to Struct"] = struct
    found["json + cattrs"] = with_cattrs
    for name, make in {
        "orjson.loads (dicts)": _orjson,
        "pydantic validate_json": _pydantic,
        "veeam-365 from_dict": _veeam,
    }.items():
        with suppress(ImportError):
            found[name] = make()
    return found
