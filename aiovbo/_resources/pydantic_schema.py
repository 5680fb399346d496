"""How pydantic reads, writes and describes a model. Only pydantic itself calls this.

Must not import pydantic at the top: it is no dependency of this package.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin
from uuid import UUID

import attrs

from aiovbo._resources.enums import OpenEnum
from aiovbo._resources.links import JsonObject
from aiovbo._resources.structuring import CLIENT_FIELDS, api_name

_FORMATS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    UUID: {"type": "string", "format": "uuid"},
    datetime: {"type": "string", "format": "date-time"},
    timedelta: {"type": "string", "description": "A duration such as 1.02:03:04.5."},
    JsonObject: {"type": "object"},
}


def core_schema(
    model: type[Any], read: Callable[[Mapping[str, Any]], Any], write: Callable[[Any], dict[str, Any]]
) -> Any:
    """Pydantic's schema of a model: instances pass unchanged, mappings are read; written as JSON members."""
    from pydantic_core import core_schema as schemas  # called by pydantic only

    def validate(value: object) -> Any:
        if isinstance(value, model):
            return value
        if isinstance(value, Mapping):
            return read(cast("Mapping[str, Any]", value))
        message = f"expected a {model.__name__} or an object"
        raise ValueError(message)

    return schemas.no_info_plain_validator_function(
        validate, serialization=schemas.plain_serializer_function_ser_schema(write)
    )


def json_schema(model: type[Any]) -> dict[str, Any]:
    """The JSON Schema of what `to_dict(server=True)` returns."""
    members = {"server": {"type": "string", "description": "The name of the server that it came from."}}
    own = [it for it in attrs.fields(attrs.resolve_types(model)) if it.name not in CLIENT_FIELDS]
    members |= {api_name(it.name): _described(it.type) for it in own}
    required = [api_name(it.name) for it in own if it.default is attrs.NOTHING]
    return {
        "title": model.__name__,
        "type": "object",
        "properties": {**members, "_links": {"type": "object"}},
        "required": required,
        "additionalProperties": True,
    }


def _described(kind: Any) -> dict[str, Any]:  # an annotation
    """The JSON Schema of a field's type. Members that are None are left out, so no field is nullable."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [_described(it) for it in get_args(kind) if it is not NoneType]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if get_origin(kind) in (tuple, list):
        return {"type": "array", "items": _described(get_args(kind)[0])}
    if isinstance(kind, type) and issubclass(kind, OpenEnum):
        return {"type": "string", "examples": [known.value for known in kind]}
    if isinstance(kind, type) and attrs.has(kind):
        return {"type": "object"}
    return dict(_FORMATS.get(kind, {}))
