"""Links between resources, lazy, and the resources that have no class of their own.

Knows how a value leads on to related ones, by way of its `Fetcher`; knows nothing of HTTP,
and does no I/O until a coroutine of a link is awaited.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import MemberDescriptorType
from typing import Any, Protocol, Self, TypeVar, cast, overload
from uuid import UUID

import msgspec
from yarl import URL

from aiovbo._core.query import Query
from aiovbo._settings.api_versions import ApiVersion
from aiovbo.errors import LinkError

M = TypeVar("M")


class Fetcher(Protocol):
    """What a value needs in order to lead on: the client of the server it came from."""

    @property
    def api_version(self) -> ApiVersion | None:
        """The API version in use."""
        ...

    def url_of(self, href: str) -> URL:
        """The URL that would be requested for `href`."""
        ...

    async def fetch(self, path_or_href: str, cls: type[M], /) -> M:
        """What is there, as a `cls`."""
        ...

    def query(self, path_or_href: str, cls: type[M], /) -> Query[M]:
        """The collection that is there, of `cls`."""
        ...

    async def poll(
        self,
        href: str,
        cls: type[M],
        until: Callable[[M], bool],
        *,
        timeout: float,  # over many requests
        every: float,
    ) -> M:
        """What is there once `until` holds for it."""
        ...

    async def stop_restore_session(self, session_id: UUID, /) -> None:
        """Stop a restore session."""
        ...


class JsonObject(Mapping[str, Any]):
    """A JSON object as the server sent it, read-only."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = members

    def __getitem__(self, key: str) -> Any:  # JSON holds anything
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def to_dict(self) -> dict[str, Any]:
        """A copy of plain JSON types, as `json.dumps` takes it."""
        return deepcopy(dict(self._members))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._members)!r})"


NOTHING_MORE = JsonObject({})


class _Attached:
    """What knows who fetched it; pickling detaches it, since a client cannot travel."""

    __slots__ = ("_fetcher",)
    _fetcher: Fetcher | None

    @property
    def fetcher(self) -> Fetcher:
        """The client that it came from.

        Raises: LinkError where it has none any more.
        """
        if self._fetcher is None:
            message = (
                "this value has lost its client, as copies that were pickled do: "
                "fetch it, or its links, through a client instead"
            )
            raise LinkError(message)
        return self._fetcher


class Link(_Attached):
    """A relation to another resource, followed only when it is awaited."""

    __slots__ = ("_model", "href", "rel")

    def __init__(self, rel: str, href: str, fetcher: Fetcher | None, model: type[Any]) -> None:
        self.rel: str = rel
        """The relation's name, as the server wrote it."""
        self.href: str = href
        """The server's own text; often a host name that only the server knows."""
        self._fetcher = fetcher
        self._model = model

    @property
    def url(self) -> URL:
        """The URL that would be requested: path and query of `href` on the server's configured address.

        Raises: LinkError where the link leads out of the API, or its client is gone.
        """
        return self.fetcher.url_of(self.href)

    @overload
    async def fetch(self) -> Any: ...  # any model: which, the relation says
    @overload
    async def fetch(self, cls: type[M]) -> M: ...
    async def fetch(self, cls: type[Any] | None = None) -> Any:  # the overloads say more
        """What the link leads to: a typed model where the relation is known, else a `Resource`.

        Raises: LinkError as for `url`; ServerError where the server fails.
        """
        return await self.fetcher.fetch(self.href, cls or self._model)

    @overload
    def query(self) -> "Query[Resource]": ...
    @overload
    def query(self, cls: type[M]) -> Query[M]: ...
    def query(self, cls: type[Any] | None = None) -> Query[Any]:
        """The collection that the link leads to; nothing is sent, nor is the link judged, before it is used.

        Raises: LinkError where its client is gone.
        """
        return self.fetcher.query(self.href, cls or Resource)

    def below(self, name: str) -> "Link":
        """The link to what the API keeps under this resource, by its documented name."""
        path, question, query = self.href.partition("?")
        return Link(name, f"{path.rstrip('/')}/{name}{question}{query}", self._fetcher, Resource)

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
        model: type[Any] | None = None,
    ) -> None:
        self._raw = raw
        self._fetcher = fetcher
        self._model: type[Any] = model or Resource

    @property
    def raw(self) -> Any:  # whatever the server takes for links
        """A copy of what the server sent as links: its text where no Python value can hold that."""
        # Parsed at each look: sessions by the thousand are kept, their links are looked at now and then.
        if not isinstance(self._raw, bytes):
            return {} if self._raw is None else deepcopy(self._raw)
        try:
            document: object = msgspec.json.decode(self._raw)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            # Well-formed, or the response would not have been read, but with a number that is out of range.
            return self._raw.decode("utf-8", "replace")
        return {} if document is None else document

    def _hrefs(self) -> dict[str, str]:
        document = self.raw
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
                return Link(known, href, self._fetcher, self._leads_to(known.casefold()))
        there = ", ".join(sorted(hrefs)) or "none at all"
        message = f"no link {rel!r} here; there are: {there}"
        raise LinkError(message)

    def with_self(self, href: str) -> "Links":
        """These links, and `href` as the one to the resource itself."""
        hrefs = {**self._hrefs(), "self": href}
        return Links({rel: {"href": text} for rel, text in hrefs.items()}, self._fetcher, self._model)

    def attached_to(self, fetcher: Fetcher) -> "Links":
        """These links, followed by way of another client."""
        return Links(self._raw, fetcher, self._model)

    def _leads_to(self, rel: str) -> type[Any]:
        if rel == "self":
            return self._model
        relations: Mapping[str, type[Any]] = getattr(self._model, "RELATIONS", {})
        return relations.get(rel, Resource)

    def __contains__(self, rel: object) -> bool:
        return isinstance(rel, str) and any(rel.casefold() == key.casefold() for key in self)

    def get(self, rel: str, default: Any = None) -> Any:  # as Mapping.get
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


def href_in(document: object, rel: str) -> str | None:
    """The text of the link `rel`, in any case, in an object of links; None where there is none.

    Raises: ValueError for a link of an unknown form; one that is null or empty is none.
    """
    links = cast("dict[str, Any]", document).items() if isinstance(document, dict) else ()
    is_unreadable = False
    for name, link in links:
        if name.casefold() == rel:
            href: object = cast("dict[str, Any]", link).get("href") if isinstance(link, dict) else link
            if isinstance(href, str) and href and isinstance(link, dict):
                return href
            is_unreadable |= bool(href)
    if is_unreadable:
        raise ValueError(rel)
    return None


class LinkTemplate:
    """What the links of one response's resources have in common: who fetched them, and a pattern."""

    __slots__ = ("_fetcher", "_pattern", "_start", "_stop")

    def __init__(self, fetcher: Fetcher | None, example: bytes = b"", key: bytes = b"") -> None:
        """Without a pattern; or with the one that is `example` but for each `key` in it."""
        self._fetcher = fetcher
        self._pattern = example.split(key) if key and key in example else []
        self._start = len(self._pattern[0]) if self._pattern else 0
        self._stop = self._start + len(key)

    def key_of(self, raw: bytes) -> bytes | None:
        """What makes `raw` of the pattern, a fraction of its length; None where it is of another one."""
        key = raw[self._start : self._stop]
        return key if self._pattern and key.join(self._pattern) == raw else None

    def links(self, kept: bytes, model: type[Any]) -> "Links":
        """The links of a resource, of which their text was kept, or the key where there is a pattern."""
        return Links(kept.join(self._pattern) if self._pattern else kept, self._fetcher, model)


class LazyLinks:
    """The attribute `links` of a model, which may keep them as they came: few of them are looked at."""

    def __init__(self, slot: MemberDescriptorType, origin: MemberDescriptorType) -> None:
        self.slot = slot
        """Where they are kept."""
        self.origin = origin
        """Where it is kept what to make of them."""

    def __get__(self, model: object, owner: type[Any]) -> Any:  # of the class, this is requested
        if model is None:
            return self
        kept = self.slot.__get__(model)
        return self.origin.__get__(model).links(kept, owner) if isinstance(kept, bytes) else kept

    def __set__(self, model: object, links: Links) -> None:
        self.slot.__set__(model, links)


class Resource(JsonObject):
    """Any resource of the API that has no class of its own: its JSON as a read-only mapping."""

    __slots__ = ("links", "server")

    def __init__(self, members: Mapping[str, Any], server: str, links: Links) -> None:
        super().__init__(members)
        self.server: str = server
        """The name of the server it came from."""
        self.links: Links = links
        """Relations to other resources."""

    def with_links(self, links: Links) -> Self:
        """The same resource with other links."""
        return type(self)(self._members, self.server, links)

    def __reduce__(self) -> tuple[Any, ...]:
        return Resource, (self._members, self.server, self.links)
