"""Resources that are read into classes of the caller's own."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  # the annotations are evaluated when the models are used
from uuid import UUID  # noqa: TC003  # as above

import attrs
import pytest
from attrs import define, field, frozen
from harness.backups import server_of
from harness.raw import RawServer, json_answer, vbo_routes

from aiovbo import Client, ConfigError, Model, Password, PayloadError, RestoreSession, Server
from aiovbo.models import OpenEnum
from aiovbo.testing import BackupServer, World


@frozen(kw_only=True)
class Proxy(Model):
    """A resource without a class in aiovbo."""

    id: UUID
    name: str | None = None
    creation_time: datetime | None = None


@frozen(kw_only=True)
class OwnSession(RestoreSession):
    """A session with a field more."""

    department: str = "sales"


@define
class Plain:
    """Nothing of aiovbo's."""

    id: UUID
    creation_time: datetime
    _name: str = "?"


class Kind(OpenEnum):
    """An enum that is defined long after aiovbo was imported."""

    GREEN = "Green"


@frozen
class Part:
    """An object inside another one."""

    file_size: int
    share: float = 0.0


@frozen(kw_only=True)
class Whole(Model):
    """Whatever JSON holds."""

    id: str
    kind: Kind | None = None
    parts: list[Part] = field(factory=list)
    names: list[str] = field(factory=list)
    first: Part | None = None


@pytest.mark.parametrize("model", [Model, Proxy, OwnSession, Plain], ids=lambda model: model.__name__)
async def test_a_resource_is_read_into_the_callers_own_class(model: type[object]) -> None:
    """By `fetch` and by `query`, whether the class is a subclass of `Model` or not."""
    async with BackupServer(World(sessions=1, speed=0)) as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
        fetched = await client.fetch(f"RestoreSessions/{session.id}", model)
        (listed,) = await client.query("RestoreSessions", model)
    assert type(fetched) is type(listed) is model
    if model is not Plain:
        assert fetched == listed
    if isinstance(fetched, Model):
        assert fetched.server == session.server
        assert "self" in fetched.links
        assert fetched.to_dict().items() >= {"id": str(session.id), "name": session.name}.items()


async def test_fields_of_a_plain_class_have_the_types_of_its_annotations() -> None:
    """Also where the annotations are texts, and where the field's name begins with an underscore."""
    async with BackupServer(World(sessions=1, speed=0)) as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
        assert session.name is not None
        assert await client.fetch(f"RestoreSessions/{session.id}", Plain) == Plain(
            session.id, session.creation_time, session.name
        )


async def test_objects_lists_and_enums_in_a_callers_class_are_read() -> None:
    """An invalid value of an optional field is None, and kept in `extra`, as in aiovbo's own models."""
    document = {
        "id": "7",
        "kind": "red",
        "parts": [{"fileSize": 3, "share": 0.5}, {"fileSize": "4"}],
        "names": "no list",
        "first": {"fileSize": "no number"},
    }
    async with (
        RawServer(vbo_routes() | {("GET", "/v4/Things/7"): json_answer(document)}) as raw,
        Client(Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")) as client,
    ):
        whole = await client.fetch("Things/7", Whole)
    assert whole.kind is not None
    assert (whole.kind, whole.kind.is_known) == (Kind("red"), False)
    assert whole.parts == [Part(3, 0.5), Part(4)]
    assert (whole.names, whole.first) == ([], None)
    assert dict(whole.extra) == {"names": "no list", "first": {"fileSize": "no number"}}
    assert Whole.from_dict(whole.to_dict()) == attrs.evolve(whole, server="")


async def test_a_resource_without_a_required_field_is_rejected_with_its_path() -> None:
    """A field without a default identifies the resource."""
    async with BackupServer(World(sessions=1, speed=0)) as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
        with pytest.raises(PayloadError, match=r"\$\.fileSize"):
            await client.fetch(f"RestoreSessions/{session.id}", Part)


@frozen
class Unreadable:
    """A field of a type that JSON does not have."""

    id: complex


@frozen
class Unresolvable:
    """An annotation that names nothing."""

    id: Nothing  # type: ignore[name-defined]  # noqa: F821  # the point of it


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Unreadable, "id has the type"),
        (Unresolvable, "'Nothing' is not defined"),
        (int, "int is not a model"),
        ("RestoreSession", "a model is a class"),
    ],
)
async def test_a_class_that_cannot_be_read_is_rejected_before_a_request(model: type, said: str) -> None:
    """At the call, by `fetch` and by `query`."""
    async with BackupServer() as backup, Client(server_of(backup)) as client:
        with pytest.raises(ConfigError, match=said):
            await client.fetch("Organizations/1", model)
        with pytest.raises(ConfigError, match=said):
            client.query("Organizations", model)
        assert not backup.requests
