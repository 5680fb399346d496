"""Restore sessions and what surrounds them: frozen attrs classes, open enums, and lazy links.

Knows how a value leads on to related ones, by way of whoever fetched it (`Fetcher`); knows nothing of HTTP,
never parses times or pages, and does no I/O until a coroutine of a link is awaited.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self, TypeVar, cast, overload
from uuid import UUID

from attrs import field, frozen
from yarl import URL

from aiovbo.errors import LinkError

M = TypeVar("M", bound="Model")


class Fetcher(Protocol):
    """What a value needs in order to lead on: the client of the server it came from."""

    def url_of(self, href: str) -> URL:
        """The URL that would be asked for `href`."""
        ...

    async def fetch(self, path_or_href: str, cls: type[M], /) -> M:
        """What is there, as a `cls`."""
        ...


class OpenEnum(StrEnum):
    """A set of texts that may grow: known members, and any other text kept as it came."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        folded = value.casefold()
        for known in cls:
            if known.value.casefold() == folded:
                return known
        member = str.__new__(cls, value)
        member._name_ = value
        member._value_ = value
        return member

    @property
    def is_known(self) -> bool:
        """Whether this is one of the documented values."""
        return self._name_ in type(self).__members__


class RestoreSessionType(OpenEnum):
    """What is being restored.

    Source: schema RESTRestoreSession, v6 to v8, read 2026-11-23.
    """

    VEX = "Vex"
    """Exchange."""
    VEOD = "Veod"
    """OneDrive for Business."""
    VESP = "Vesp"
    """SharePoint."""
    VET = "Vet"
    """Teams; since v5."""


class RestoreSessionState(OpenEnum):
    """How far a restore session has come.

    Source: help center, "Getting Restore Sessions", v4; schema RESTRestoreSession, v8; read 2026-11-23.
    """

    STARTING = "Starting"
    WORKING = "Working"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


class RestoreSessionResult(OpenEnum):
    """How a restore session went; an outcome only once its state is Stopped.

    Source: schema RESTRestoreSession, v6 to v8, read 2026-11-23.
    """

    SUCCESS = "Success"
    WARNING = "Warning"
    FAILED = "Failed"


class JsonObject(Mapping[str, Any]):
    """A JSON object as the server sent it, read-only."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401  # JSON holds anything
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._members)!r})"


NOTHING_MORE = JsonObject({})


class _Attached:
    """What knows who fetched it; pickling detaches it, since a client cannot travel."""

    __slots__ = ("_fetcher",)
    _fetcher: Fetcher | None


class Link(_Attached):
    """A relation to another resource, followed only when somebody awaits it."""

    __slots__ = ("_model", "href", "rel")

    def __init__(self, rel: str, href: str, fetcher: Fetcher | None, model: "type[Model]") -> None:
        self.rel = rel
        """The relation's name, as the server wrote it."""
        self.href = href
        """The server's own text; often a host name that only the server knows."""
        self._fetcher = fetcher
        self._model = model

    @property
    def url(self) -> URL:
        """The URL that would be asked: path and query of `href` on the server's configured address.

        Raises: LinkError where the link leads out of the API, or its client is gone.
        """
        return self._attached().url_of(self.href)

    @overload
    async def fetch(self) -> "Model": ...
    @overload
    async def fetch(self, cls: type[M]) -> M: ...
    async def fetch(self, cls: type[Any] | None = None) -> Any:
        """What the link leads to: a typed model where the relation is known, else a `Resource`.

        Raises: LinkError as for `url`; ServerError where the server fails.
        """
        return await self._attached().fetch(self.href, cls or self._model)

    def _attached(self) -> Fetcher:
        if self._fetcher is None:
            message = (
                f"the link {self.rel!r} has lost its client, as copies that were pickled do: "
                "fetch its href through a client instead"
            )
            raise LinkError(message)
        return self._fetcher

    def __repr__(self) -> str:
        return f"Link({self.rel!r}, {self.href!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Link):
            return NotImplemented
        return (self.rel, self.href) == (other.rel, other.href)

    def __hash__(self) -> int:
        return hash((self.rel, self.href))

    def __reduce__(self) -> tuple[Any, ...]:
        return Link, (self.rel, self.href, None, self._model)


class Links(_Attached, Mapping[str, Link]):
    """The links of one resource, by relation; relations are looked up without regard to case."""

    __slots__ = ("_model", "_raw")

    def __init__(
        self,
        raw: bytes | Mapping[str, Any] | None = None,
        fetcher: Fetcher | None = None,
        model: "type[Model] | None" = None,
    ) -> None:
        self._raw = raw
        self._fetcher = fetcher
        self._model: type[Model] = model or Resource

    def _hrefs(self) -> dict[str, str]:
        # Parsed at each look: sessions by the thousand are kept, their links are looked at now and then.
        document = json.loads(self._raw) if isinstance(self._raw, bytes) else self._raw
        if not isinstance(document, Mapping):
            return {}
        found: dict[str, str] = {}
        for rel, link in cast("Mapping[str, Any]", document).items():
            href = cast("Mapping[str, Any]", link).get("href") if isinstance(link, Mapping) else None
            if isinstance(href, str) and href:
                found[rel] = href
        return found

    def __getitem__(self, rel: str) -> Link:
        hrefs = self._hrefs()
        for known, href in hrefs.items():
            if known.casefold() == rel.casefold():
                return Link(known, href, self._fetcher, _leads_to(self._model, known.casefold()))
        there = ", ".join(sorted(hrefs)) or "none at all"
        message = f"no link {rel!r} here; there are: {there}"
        raise LinkError(message)

    def __contains__(self, rel: object) -> bool:
        return isinstance(rel, str) and any(rel.casefold() == key.casefold() for key in self)

    def get(self, rel: str, default: Any = None) -> Any:  # noqa: ANN401  # as Mapping.get
        """The link, or `default` where there is none."""
        return self[rel] if rel in self else default  # noqa: SIM401  # this is that get

    def __iter__(self) -> Iterator[str]:
        return iter(self._hrefs())

    def __len__(self) -> int:
        return len(self._hrefs())

    def __eq__(self, other: object) -> bool:
        return self._hrefs() == other._hrefs() if isinstance(other, Links) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a mapping, like dict

    def __repr__(self) -> str:
        return f"<Links {', '.join(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Links, (self._raw, None, self._model)


class Resource(JsonObject):
    """Any resource of the API that has no class of its own: its JSON as a read-only mapping."""

    __slots__ = ("links", "server")

    def __init__(self, members: Mapping[str, Any], server: str, links: Links) -> None:
        super().__init__(members)
        self.server = server
        """The name of the server it came from."""
        self.links = links
        """Relations to other resources."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Resource, (self._members, self.server, self.links)


@frozen(kw_only=True)
class BackupOrganization:
    """The organization whose backup a restore session explores.

    Source: schema RESTBackupOrganization, v6 to v8, read 2026-11-23.
    """

    id: UUID
    """The organization's id."""
    name: str | None = None
    """Its name, often a domain; None where the server did not say."""
    type: str | None = None
    """Microsoft 365, on-premises or hybrid, in the server's words."""
    server: str = ""
    """The name of the server it came from."""
    links: Links = field(factory=Links, hash=False)
    """Relations to other resources: mailboxes, OneDrives, sites, teams."""
    extra: JsonObject = field(default=NOTHING_MORE, hash=False)
    """What the server sent beyond these fields, under the API's own names."""


@frozen(kw_only=True)
class RestoreSession:
    """One restore session: who restores what, since when, and how it went.

    Fields that a version of the API does not have, or that the server left out, are None.

    Source: schema RESTRestoreSession, v6 to v8; help center, "Getting Restore Sessions", v4; read 2026-11-23.
    """

    id: UUID
    """The session's id, unique on its server."""
    type: RestoreSessionType | None = None
    """What is being restored: Vex, Veod, Vesp, Vet."""
    creation_time: datetime
    """When it began; aware, UTC."""
    end_time: datetime | None = None
    """When it ended; None while it goes on."""
    state: RestoreSessionState | None = None
    """How far it has come."""
    result: RestoreSessionResult | None = None
    """How it went; an outcome only once `state` is Stopped."""
    name: str | None = None
    """The session's name; since v5."""
    organization: str | None = None
    """The name of the organization; since v5. `fetch_organization()` gives the resource."""
    initiated_by: str | None = None
    """Who started it; since v5."""
    details: str | None = None
    """Free text; since v6."""
    scope_name: str | None = None
    """Its scope, for sessions of the Restore Portal; since v6."""
    client_host: str | None = None
    """Name or address of the host it was started on; since v6."""
    reason: str | None = None
    """Why, in the words of whoever started it; since v6."""
    etag: int | None = None
    """A number that grows with each change; since v8."""
    server: str = ""
    """The name of the server it came from."""
    links: Links = field(factory=Links, hash=False)
    """Relations to other resources."""
    extra: JsonObject = field(default=NOTHING_MORE, hash=False)
    """What the server sent beyond these fields, under the API's own names."""

    async def fetch_organization(self) -> BackupOrganization:
        """The organization whose backup this session explores; one request.

        Raises: LinkError where the session has no such link; ServerError where the server fails.
        """
        return await self.links["organization"].fetch(BackupOrganization)

    async def refresh(self) -> "RestoreSession":
        """The session as it is now, a new value; one request."""
        return await self.links["self"].fetch(RestoreSession)


Model = RestoreSession | BackupOrganization | Resource
"""What a fetch can give."""


def _leads_to(owner: type[Model], rel: str) -> type[Model]:
    if rel == "self":
        return owner
    if owner is RestoreSession and rel == "organization":
        return BackupOrganization
    return Resource


@frozen
class Rejected:
    """An item of an answer that makes no sense, set aside so that the others are not lost with it."""

    index: int
    """Its place in the listing, from 0."""
    path: str
    """The place of the trouble inside the item, such as `$.id`."""
    reason: str
    """What is wrong there."""
    raw: str
    """The item as the server sent it, the first 10,000 characters."""
