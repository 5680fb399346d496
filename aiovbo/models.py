"""Restore sessions and what surrounds them: frozen attrs classes, as the API describes them.

Knows fields and relations; how links are followed is in `_resources/links`. Does no I/O until a coroutine is
awaited, and never parses.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self, cast
from uuid import UUID

from attrs import field, fields, frozen, has

from aiovbo._core.query import Query
from aiovbo._resources.enums import (
    JobSessionStatus,
    OpenEnum,
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
)
from aiovbo._resources.links import NOTHING_MORE, JsonObject, LazyLinks, Link, Links, LinkTemplate
from aiovbo._resources.pydantic_schema import core_schema, json_schema
from aiovbo._resources.structuring import CLIENT_FIELDS, InvalidResourceError, api_name, structure
from aiovbo._settings.api_versions import supports, versions_with
from aiovbo._settings.numbers import check_seconds
from aiovbo.errors import ConfigError


class _FromAnswer:
    """What came in a response with others, and shares with them what their links have in common."""

    __slots__ = ("origin",)
    origin: LinkTemplate


@frozen(kw_only=True)
class Model(_FromAnswer):
    """What every typed resource has: where it came from, where it leads, and what has no field of its own.

    Fields that a version of the API does not have, or that the server left out, are None. So are fields whose
    value is invalid: that value is in `extra`.
    """

    RELATIONS: ClassVar[Mapping[str, type[Any]]] = {}
    """The classes that relations lead to, by relation in lower case."""

    server: str = ""
    """The name of the server it came from."""
    links: Links = field(factory=Links, hash=False, repr=False)
    """Relations to other resources."""
    extra: JsonObject = field(default=NOTHING_MORE, hash=False, repr=False)
    """What the server sent beyond the fields, and invalid values, each under the name that it sent."""

    def to_dict(self, *, server: bool = False) -> dict[str, Any]:
        """Plain JSON types under the API's own names, as `json.dumps` takes them; without what is None.

        - `server`: whether to add the name of the server, as the member `server`.
        """
        origin = {"server": self.server} if server else {}
        found: dict[str, Any] = {**origin}
        for attribute in fields(type(self)):
            value = getattr(self, attribute.name)
            if attribute.name not in CLIENT_FIELDS and value is not None:
                found[api_name(attribute.name)] = _plain(value)
        return {**found, **self.extra.to_dict(), **origin, "_links": self.links.raw}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, server: str | None = None) -> Self:
        """The resource that `to_dict` describes, equal to the one that it came from.

        - `server`: the name of the server that it came from. None takes the document's member `server`,
          which `to_dict(server=True)` writes.

        Its links have no client, as after pickling. `fleet.attach` restores them.
        Raises: ConfigError where the document does not identify such a resource.
        """
        given: object = document
        if not isinstance(given, Mapping):
            message = f"the document is not a {cls.__name__}: expected an object"
            raise ConfigError(message)
        copied = deepcopy(dict(document))
        if server is None:
            server = copied.pop("server", "")
            if not isinstance(server, str):
                message = f"the document's member server is not a text, but {type(server).__name__}"
                raise ConfigError(message)
        try:
            return structure(copied, cls, server, None)
        except (InvalidResourceError, TypeError) as error:
            message = f"the document is not a {cls.__name__}: {error}"
        raise ConfigError(message)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:
        return core_schema(cls, cls.from_dict, lambda model: model.to_dict(server=True))

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: object, _handler: object) -> dict[str, Any]:
        return json_schema(cls)

    @property
    def raw(self) -> JsonObject:
        """All members that the server sent, under the API's own names, as they were understood; no nulls."""
        return JsonObject(self.to_dict())


_kept = LazyLinks(vars(Model)["links"], vars(_FromAnswer)["origin"])
setattr(Model, "links", _kept)  # noqa: B010  # to attrs and to type checkers, a field as any other


def _plain(value: object) -> Any:  # a table from what a field holds to JSON
    match value:
        case UUID():
            return str(value)
        case datetime():
            return utc_text(value)
        case timedelta():
            return timespan(value)
        case OpenEnum():
            return value.value
        case JsonObject():
            return value.to_dict()
        case tuple() | list():
            return [_plain(item) for item in cast("Sequence[object]", value)]
        case Model():
            return value.to_dict()
        case _ if has(kind := type(value)):
            return {api_name(it.name): _plain(getattr(value, it.name)) for it in fields(kind)}
        case _:
            return value


def utc_text(time: datetime) -> str:
    """A time as the API takes it, in UTC with a `Z`: in a query, a `+` would arrive as a blank."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def timespan(value: timedelta) -> str:
    """A duration as .NET writes it: `1.02:03:04.5` is a day, two hours, three minutes, 4.5 seconds."""
    sign = "-" if value < timedelta() else ""
    rest = abs(value)
    minutes, seconds = divmod(rest.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days = f"{rest.days}." if rest.days else ""
    fraction = f".{rest.microseconds:06}0" if rest.microseconds else ""
    return f"{sign}{days}{hours:02}:{minutes:02}:{seconds:02}{fraction}"


@frozen(kw_only=True)
class Mailbox(Model):
    """A mailbox in a backup.

    Source: schema RESTExchangeMailbox, v6 to v8, read 2026-11-23.
    """

    id: str
    """The mailbox's id."""
    name: str | None = None
    """Whose it is."""
    email: str | None = None
    """Its address."""
    is_archive: bool | None = None
    """Whether it is an archive mailbox."""
    is_public: bool | None = None
    """Whether it is a public mailbox."""


@frozen(kw_only=True)
class OneDrive(Model):
    """A OneDrive in a backup.

    Source: schema RESTOneDrive, v6 to v8, read 2026-11-23.
    """

    id: str
    """The OneDrive's id."""
    name: str | None = None
    """Whose it is."""
    url: str | None = None
    """Where it is in Microsoft 365."""


@frozen(kw_only=True)
class SharePointSite(Model):
    """A SharePoint site in a backup.

    Source: schema RESTSharePointSite, v6 to v8, read 2026-11-23.
    """

    id: str
    """The site's id."""
    name: str | None = None
    """Its name."""
    url: str | None = None
    """Where it is in Microsoft 365."""


@frozen(kw_only=True)
class TeamsTeam(Model):
    """A team in a backup.

    Source: schema RESTTeamsTeam, v6 to v8, read 2026-11-23.
    """

    id: str
    """The team's id."""
    display_name: str | None = None
    """Its name."""
    description: str | None = None
    """What it is for."""
    group_email: str | None = None
    """The address of its group."""
    alias: str | None = None
    """Its short name."""
    privacy: str | None = None
    """Public, Private or HiddenMembership."""
    is_archived: bool | None = None
    """Whether it is archived."""

    @property
    def name(self) -> str | None:
        """Its name, called as mailboxes, OneDrives and sites call theirs."""
        return self.display_name


@frozen(kw_only=True)
class BackupOrganization(Model):
    """The organization whose backup a restore session explores.

    Source: schema RESTBackupOrganization, v6 to v8, read 2026-11-23.
    """

    id: UUID | None = None
    """The organization's id; None where the server sends none, or one that is not a UUID (see `extra`)."""
    name: str | None = None
    """Its name, often a domain; None where the server sends none."""
    type: str | None = None
    """Office365, OnPremises or Hybrid."""

    def mailboxes(self) -> Query[Mailbox]:
        """The mailboxes in the backup."""
        return self._contents("mailboxes").query(Mailbox)

    def one_drives(self) -> Query[OneDrive]:
        """The OneDrives in the backup."""
        return self._contents("oneDrives").query(OneDrive)

    def sites(self) -> Query[SharePointSite]:
        """The SharePoint sites in the backup."""
        return self._contents("sites").query(SharePointSite)

    def teams(self) -> Query[TeamsTeam]:
        """The teams in the backup; since v5."""
        return self._contents("teams").query(TeamsTeam)

    def _contents(self, rel: str) -> Link:
        # The vendor's own example has no link but the one to itself; the paths are documented all the same.
        return self.links[rel] if rel in self.links else self.links["self"].below(rel)


@frozen(kw_only=True)
class RestoreSessionEvent(Model):
    """One thing that was done in a restore session: an item restored, saved or sent.

    Source: schema RESTRestoreSessionEvent, v6 to v8, read 2026-11-23.
    """

    id: UUID
    """The event's id."""
    type: RestoreSessionEventType | None = None
    """What was done."""
    status: RestoreSessionEventStatus | None = None
    """How far it has come, or how it went."""
    start_time: datetime | None = None
    """When it began; aware, UTC."""
    end_time: datetime | None = None
    """When it ended; None while it is running."""
    duration: timedelta | None = None
    """How long it took; None where the server sends none."""
    title: str | None = None
    """What it is called."""
    message: str | None = None
    """The server's message about it."""
    order: int | None = None
    """Its place among the session's events."""
    item_name: str | None = None
    """The item it is about."""
    item_type: str | None = None
    """What kind of item that is."""
    item_size_bytes: int | None = None
    """The item's size in bytes, exact however large."""
    source: str | None = None
    """Where the item came from."""
    target: str | None = None
    """Where it went."""
    organization_id: UUID | None = None
    """Whose item it is; since v8."""
    backed_up_organization_id: str | None = None
    """The organization in the backup; since v8."""
    user_id: str | None = None
    """The user in the backup; since v8."""
    group_id: str | None = None
    """The group in the backup; since v8."""
    site_id: str | None = None
    """The site in the backup; since v8."""
    team_id: UUID | None = None
    """The team in the backup; since v8."""


@frozen(kw_only=True)
class RestoreSessionStatistics(Model):
    """The result of a restore session in figures; since v8.

    Source: schema RESTRestoreSessionStatistics, v8, read 2026-11-23.
    """

    total_items_count: int | None = None
    """Items in the backup."""
    restored_items_count: int | None = None
    """Items that were restored."""
    failed_items_count: int | None = None
    """Items that could not be restored."""
    skipped_items_count: int | None = None
    """Items that were skipped."""
    warnings: tuple[str, ...] = ()
    """Warnings, in the server's words."""
    errors: tuple[str, ...] = ()
    """Errors, in the server's words."""
    items: tuple[JsonObject, ...] = field(default=(), hash=False)
    """The result of each item, as the server describes it."""


@frozen(kw_only=True)
class RestoreSession(Model):
    """One restore session: who restores what, since when, and how it went.

    Source: schema RESTRestoreSession, v6 to v8; help center, "Getting Restore Sessions", v4; read 2026-11-23.
    """

    RELATIONS: ClassVar[Mapping[str, type[Any]]] = {"organization": BackupOrganization}
    """Its organization has a class of its own."""

    id: UUID
    """The session's id, unique on its server."""
    type: RestoreSessionType | None = None
    """What is being restored: Vex, Veod, Vesp, Vet."""
    creation_time: datetime
    """When it began; aware, UTC."""
    end_time: datetime | None = None
    """When it ended; None while it is running."""
    state: RestoreSessionState | None = None
    """How far it has come."""
    result: RestoreSessionResult | None = None
    """How it went; an outcome only once the session has ended."""
    name: str | None = None
    """The session's name; since v5."""
    organization: str | None = None
    """The name of the organization; since v5. `fetch_organization()` fetches the resource."""
    initiated_by: str | None = None
    """Who started it; since v5."""
    details: str | None = None
    """Free text; since v6."""
    scope_name: str | None = None
    """Its scope, for sessions of the Restore Portal; since v6."""
    client_host: str | None = None
    """Name or address of the host it was started on; since v6."""
    reason: str | None = None
    """Why, in the words of the user who started it; since v6."""
    etag: int | None = None
    """A number that grows with each change; since v8."""

    @property
    def has_ended(self) -> bool:
        """Whether it has an end time, whatever its state is called, or its state is Stopped."""
        return self.end_time is not None or self.state is RestoreSessionState.STOPPED

    @property
    def outcome(self) -> RestoreSessionResult | None:
        """Its result once it has ended; None before, whatever `result` is."""
        return self.result if self.has_ended else None

    async def fetch_organization(self) -> BackupOrganization:
        """The organization whose backup this session explores; one request.

        Where the session has no link to it, the documented path is requested.
        Raises: LinkError where the link is unsafe or has lost its client; ServerError where the server fails.
        """
        return await self.link_to("organization").fetch(BackupOrganization)

    async def refresh(self) -> "RestoreSession":
        """The session as it is now, a new value; one request."""
        return await self._here().fetch(RestoreSession)

    async def stop(self) -> None:
        """Stop the session; one request, never repeated once it may have arrived.

        Raises: ResponseError where it has ended already; ServerError where the server fails.
        """
        await self.links.fetcher.stop_restore_session(self.id)

    async def wait(
        self,
        until: "RestoreSessionState | str | Callable[[RestoreSession], bool]" = RestoreSessionState.STOPPED,
        *,
        timeout: float = 3600.0,  # over many requests, by the clock that was handed in
        every: float = 10.0,
    ) -> "RestoreSession":
        """The session once it has reached a state, or once `until` returns True for it; a new value.

        Units: `timeout` and `every` in seconds; it is fetched again after `every`, more or less, and for the
        last time when `timeout` is over.
        Raises: ServerTimeoutError after `timeout`; NotFoundError where the session has vanished; ConfigError
        for times that are none. Temporary failures, such as a server that restarts, do not end it.
        """
        check_seconds("timeout", timeout)
        check_seconds("every", every)
        if isinstance(until, str):
            wanted = RestoreSessionState(until)
            if not wanted.is_known:
                states = ", ".join(RestoreSessionState)
                message = f"until is one of {states}, or a function of a session, not {until!r}"
                raise ConfigError(message)
            if wanted is RestoreSessionState.STOPPED:
                # Some servers have another name for it.
                return await self.wait(lambda now: now.has_ended, timeout=timeout, every=every)
            return await self.wait(lambda now: now.state == wanted, timeout=timeout, every=every)
        href = self._here().href
        return await self.links.fetcher.poll(href, RestoreSession, until, timeout=timeout, every=every)

    def events(self) -> Query[RestoreSessionEvent]:
        """What was done in this session, in the server's order."""
        return self.link_to("Events").query(RestoreSessionEvent)

    async def fetch_statistics(self) -> RestoreSessionStatistics:
        """The result of this session in figures; one request.

        Raises: ConfigError on servers older than v8, which have no statistics.
        """
        version = self.links.fetcher.api_version
        if version is not None and not supports(version, "session statistics"):
            first = versions_with("session statistics")[0]
            message = (
                f"{self.server}: fetch_statistics() needs API {first}, and this server is queried by "
                f"{version}: count what the session's events() say instead"
            )
            raise ConfigError(message)
        return await self.link_to("Statistics").fetch(RestoreSessionStatistics)

    def link_to(self, rel: str) -> Link:
        """The link that the server sent, else the one to the documented path below the session."""
        found: Link | None = self.links.get(rel)
        return found or self._here().below(rel)

    def _here(self) -> Link:
        """The link to the session itself, by its id where the server sent none."""
        fetcher = self.links.fetcher
        found: Link | None = self.links.get("self")
        return found or Link("self", f"RestoreSessions/{self.id}", fetcher, RestoreSession)


@frozen
class RestoreEvent:
    """An event of a restore session, together with its session: who restored this item, and why."""

    session: RestoreSession
    """The session."""
    event: RestoreSessionEvent
    """What was done in it."""

    @property
    def server(self) -> str:
        """The name of the server that both came from."""
        return self.session.server


@frozen(kw_only=True)
class Organization(Model):
    """An organization that a backup server looks after.

    Source: schema RestOrganizationComposed, v6 to v8, read 2026-11-23.
    """

    id: UUID | None = None
    """The organization's id; None where the server sends none, or one that is not a UUID (see `extra`)."""
    name: str | None = None
    """Its name, often a domain."""
    office_name: str | None = None
    """Its name in Microsoft 365."""
    type: str | None = None
    """Office365, OnPremises or Hybrid."""
    region: str | None = None
    """The region of Microsoft 365 that it is in."""
    is_backedup: bool | None = None
    """Whether there is a backup of it."""
    first_backuptime: datetime | None = None
    """When its first backup was made; aware, UTC."""
    last_backuptime: datetime | None = None
    """When its latest backup was made; aware, UTC."""


@frozen(kw_only=True)
class JobSession(Model):
    """One run of a backup job.

    Source: schema RESTJobSession, v6 to v8, read 2026-11-23.
    """

    id: UUID
    """The run's id."""
    creation_time: datetime | None = None
    """When it began; aware, UTC; None where the server sends none."""
    end_time: datetime | None = None
    """When it ended; None while it is running."""
    status: JobSessionStatus | None = None
    """How far it has come, or how it went."""
    progress: int | None = None
    """Number of objects processed so far."""
    retry_count: int | None = None
    """Number of retries before this run."""
    job_will_be_retried: bool | None = None
    """Whether the run will be started again; since v7."""
    details: str | None = None
    """Free text."""
    job_id: UUID | None = None
    """The job's id; since v8."""
    job_type: str | None = None
    """Backup or Copy; since v7."""
    repository_id: UUID | None = None
    """The backup repository's id; since v7."""
    main_session_id: UUID | None = None
    """For a retry, the id of the run that failed; since v7."""
    statistics: JsonObject | None = field(default=None, hash=False)
    """Rates and counts of the run, as the server describes them."""
    etag: int | None = None
    """A number that grows with each change; since v8."""


@frozen(kw_only=True)
class ServiceInstance(Model):
    """The installation that a server runs.

    Source: schema RESTServiceInstance, v6 to v8, read 2026-11-23.
    """

    installation_id: UUID | None = None
    """The installation's id."""
    version: str | None = None
    """The product's build number."""
