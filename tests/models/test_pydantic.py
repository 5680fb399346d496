"""Models in pydantic: as fields of its models, in JSON, and in a JSON Schema."""

import json
from typing import Any
from uuid import UUID

import pytest

import aiovbo
from aiovbo import Model, RestoreSession, RestoreSessionEvent

pydantic = pytest.importorskip("pydantic")

DOCUMENT: dict[str, Any] = {
    "id": "0800471b-d0e2-422b-9d7c-35d15661c3fb",
    "type": "Vex",
    "creationTime": "2018-06-29T07:42:21.191694Z",
    "state": "Resting",
    "result": 7,
    "pointInTime": "2017-06-26T22:07:39-07:00",
    "_links": {"self": {"href": "/v8/RestoreSessions/0800471b-d0e2-422b-9d7c-35d15661c3fb"}},
}
MODELS = [
    kind
    for kind in vars(aiovbo.models).values()
    if isinstance(kind, type) and issubclass(kind, Model) and kind is not Model
]


def test_a_session_in_a_pydantic_model_is_written_with_its_server_and_read_back_equal() -> None:
    """The JSON has the API's own names; unknown and invalid members are kept."""
    adapter: Any = pydantic.TypeAdapter(list[RestoreSession])
    session = RestoreSession.from_dict(DOCUMENT, server="vbo1")
    text = adapter.dump_json([session])
    assert json.loads(text) == [session.to_dict(server=True)]
    (again,) = adapter.validate_json(text)
    assert again == session
    assert (again.server, again.extra["result"], again.id) == ("vbo1", 7, UUID(DOCUMENT["id"]))


def test_a_session_passes_a_pydantic_model_unchanged() -> None:
    """The same object, so its links still lead to its server."""
    session = RestoreSession.from_dict(DOCUMENT)
    assert pydantic.TypeAdapter(RestoreSession).validate_python(session) is session


@pytest.mark.parametrize("value", [{}, {"id": "none"}, [], 5, None, {**DOCUMENT, "server": 5}])
def test_pydantic_reports_what_is_not_a_session_as_its_own_error(value: object) -> None:
    """Without an id and a creation time there is no session: FastAPI responds with status 422."""
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(RestoreSession).validate_python(value)


def test_the_json_schema_names_the_members_that_a_session_always_has() -> None:
    """A state may be any text: the documented ones are examples."""
    schema = pydantic.TypeAdapter(RestoreSession).json_schema()
    assert schema["required"] == ["id", "creationTime"]
    assert schema["properties"]["creationTime"] == {"type": "string", "format": "date-time"}
    assert schema["properties"]["state"]["type"] == "string"
    assert "Working" in schema["properties"]["state"]["examples"]
    assert {"server", "_links", "eTag"} <= {*schema["properties"]}


@pytest.mark.parametrize("model", MODELS, ids=lambda kind: kind.__name__)
def test_every_model_has_a_json_schema_with_a_type_for_each_member(model: type[Model]) -> None:
    """So a portal's OpenAPI document describes what it returns."""
    schema = pydantic.TypeAdapter(model).json_schema()
    assert all({"type", "anyOf"} & {*member} for member in schema["properties"].values())


def test_the_server_is_part_of_a_dict_only_on_request() -> None:
    """`from_dict` takes it from there, unless the caller names one."""
    event = RestoreSessionEvent.from_dict({"id": DOCUMENT["id"]}, server="vbo1")
    assert "server" not in event.to_dict()
    assert RestoreSessionEvent.from_dict(event.to_dict(server=True)) == event
    assert RestoreSessionEvent.from_dict(event.to_dict(server=True), server="vbo2").server == "vbo2"
