"""A Veeam Backup for Microsoft 365 server to test against, embedded in the test.

Knows its options and its life, and brings world, login, API, faults and TLS together. Must not
know the client that talks to it.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal, Self

import attrs
from aiohttp import web

from aiovbo.testing._answers import VERSIONS, ApiVersion
from aiovbo.testing._authority import Authority
from aiovbo.testing._change_feed import ChangeFeed
from aiovbo.testing._clock import SimClock
from aiovbo.testing._faults import Fault, FaultScript, PlannedFault
from aiovbo.testing._http import Front, PlainRequest
from aiovbo.testing._infrastructure import INFRASTRUCTURE_ROUTES
from aiovbo.testing._listener import Listener
from aiovbo.testing._login import LoginDesk
from aiovbo.testing._neighbours import NEIGHBOUR_ROUTES
from aiovbo.testing._quirks import Quirks
from aiovbo.testing._requests import ReceivedRequest
from aiovbo.testing._routes import ROUTES, Api, Habits
from aiovbo.testing._thread import in_thread
from aiovbo.testing._world import CHANGES_KEPT, World, WorldSession

USERNAME = "TECH\\monitor"
PASSWORD = "correct-horse-battery-staple"  # a loopback server's, meant to be known

_PREDECESSORS = 3
"""Two that a product supports, and a deprecated one."""
_SHUTDOWN_SECONDS = 0.5
_LOOPBACK_OF_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # read, not bound to


@attrs.frozen
class _Running:
    """What exists only between start and stop."""

    http: web.Server
    listener: Listener


class BackupServer:
    """A running backup server: `async with BackupServer() as server:`.

    It speaks the real API over TLS on loopback, to any client; world, users and faults are its
    own. Everything but `start` and `stop` may be called from any thread.

    - `world`: what it has to report; a small plausible one if not given.
    - `version`: the newest API version it serves.
    - `versions`: every version it serves; if not given the newest and up to three before it, as the
          vendor's products do.
    - `username`: who may log in; case does not matter.
    - `password`: that user's password.
    - `host`: the address it listens on.
    - `port`: the port it listens on; 0 takes a free one, and keeps it over a restart.
    - `authority`: who issues its certificate; one of its own if not given.
    - `tls`: False for plain HTTP.
    - `name`: what it is called; decides its installation ID.
    - `host_name`: its own name in absolute links, which clients cannot resolve.
    - `token_lifetime`: seconds that an access token is good for.
    - `lockout_after`: wrong passwords in a row after which the right one is refused too.
    - `assertions`: client IDs, each with the assertion that logs it on, as application or as operator.
    - `integration_token`: what logs in by the integration grant of v6 and v7; nothing does if not given.
    - `token_limit`: requests per minute that the token endpoint admits, from all clients together; the
          others get 429 with Retry-After and a JSON string. No limit if not given.
    - `operators_only`: True for a server that accepts restore operators only, as an administrator can
          set: other logins are refused, and what operators do not need is 403.
    - `path_prefix`: what a reverse proxy would put in front of `/vN`.
    - `page_limit_max`: most items on a page.
    - `events_kept`: how many of its last events v8's change feed remembers, at most 10,000; older
          change tokens are outdated.
    - `unhealthy`: True for a server whose database is lost: `Health` is 503.
    - `quirks`: what it does unlike other servers; nothing if not given.
    - `clock`: what its time passes by, instead of the real clock; that of `world` if not given.
    - `session_links`: `all`, or only `self`.
    - `list_shape`: `page`, as servers of every version were seen to send lists, or `array`, the bare array
          that v4's documents show.
    - `refused_login_answer`: OAuth's error or the vendor's; by version if not given.
    - `rejected_token_answer`: 401, or the 200 with an empty body that real servers were seen to
          give.
    """

    def __init__(  # each is one independent property of a server
        self,
        world: World | None = None,
        *,
        version: ApiVersion = "v8",
        versions: Collection[ApiVersion] | None = None,
        username: str = USERNAME,
        password: str = PASSWORD,
        host: str = "127.0.0.1",
        port: int = 0,
        authority: Authority | None = None,
        tls: bool = True,
        name: str = "vbo",
        host_name: str = "abc.tech.local",
        token_lifetime: int = 3600,
        lockout_after: int | None = None,
        assertions: Mapping[str, str] | None = None,
        integration_token: str | None = None,
        token_limit: int | None = None,
        operators_only: bool = False,
        path_prefix: str = "",
        page_limit_max: int = 10_000,
        events_kept: int = CHANGES_KEPT,
        unhealthy: bool = False,
        quirks: Quirks | None = None,
        clock: SimClock | None = None,
        session_links: Literal["all", "self"] = "all",
        list_shape: Literal["page", "array"] = "page",
        refused_login_answer: Literal["oauth", "vendor"] | None = None,
        rejected_token_answer: Literal["401", "empty"] = "401",  # a status
    ) -> None:
        self.version: ApiVersion = version
        self.versions: tuple[ApiVersion, ...] = _served(version, versions)
        if token_limit is not None and token_limit < 1:
            msg = f"token_limit is a number of requests of at least 1, not {token_limit}"
            raise ValueError(msg)
        self.username = username
        self.name = name
        self.authority = authority
        """Who issues its certificate; None for plain HTTP, and before it has made its own."""
        self._owns_authority = False
        self._host = host
        self._port = port
        self._tls = tls
        self._prefix = f"/{path_prefix}".rstrip("/").replace("//", "/")
        world = World(clock=clock) if world is None else world
        time = world.clock if clock is None else clock
        if time is not world.clock:
            raise ValueError("a server and its world have one clock: give it to World(clock=...) too")
        self._faults = FaultScript()
        self._desk = LoginDesk(
            username,
            password,
            token_lifetime=token_lifetime,
            lockout_after=lockout_after,
            assertions={} if assertions is None else assertions,
            operators_only=operators_only,
            integration_token=integration_token,
            clock=time,
        )
        habits = Habits(
            name=name,
            newest=int(version[1:]),
            versions=frozenset(int(one[1:]) for one in self.versions),
            host_name=host_name,
            page_limit_max=page_limit_max,
            operators_only=operators_only,
            unhealthy=unhealthy,
            quirks=Quirks() if quirks is None else quirks,
            session_links=session_links,
            list_shape=list_shape,
            refused_login_answer=refused_login_answer,
            rejected_token_answer=rejected_token_answer,
            token_limit=token_limit,
        )
        self._feed = ChangeFeed(name, events_kept)
        routes = (*ROUTES, *NEIGHBOUR_ROUTES, *INFRASTRUCTURE_ROUTES, self._feed.route)
        self._api = Api(world, self._desk, habits, routes, time)
        self._front = Front(self._api, self._faults, self._prefix, time)
        world.listen(self._front.wake)
        self._running: _Running | None = None

    @property
    def world(self) -> World:
        """What it has to report; another world may take its place, also while the server runs.

        Change tokens from before are then outdated.
        """
        return self._api.world

    @world.setter
    def world(self, world: World) -> None:
        self._api.world = world
        world.listen(self._front.wake)
        self._front.wake()

    @property
    def listed(self) -> list[WorldSession]:
        """Every restore session that its lists have now, with the times that its clock showed.

        They are those of `world`, but for its quirks: late rows, caps, orders, wrong clocks.
        """
        odd = self._api.oddities
        return odd.arranged(odd.listed(self.world.sessions, self._api.now_ticks))

    def show(self, session: WorldSession) -> WorldSession:
        """A session of its world with the times that its clock showed."""
        return self._api.oddities.session(session)

    @property
    def quirks(self) -> Quirks:
        """What it does unlike others."""
        return self._api.oddities.quirks

    @property
    def quirk_effects(self) -> Mapping[str, int]:
        """How often each of its quirks took effect, by its name in `Quirks`; only those that did."""
        return {name: count for name, count in self._api.oddities.effects.items() if count}

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request that came, in order; clear it at will."""
        return self._front.received.requests

    @property
    def port(self) -> int:
        """Where it listens; 0 before its first start if none was chosen."""
        return self._port

    @property
    def url(self) -> str:
        """Its base URL, with the path prefix and without a version.

        Raises: RuntimeError before its first start.
        """
        if self._port == 0:
            raise RuntimeError("the server has no port yet: start it first")
        host = _LOOPBACK_OF_ANY.get(self._host, self._host)
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}{self._prefix}"

    @property
    def ca_file(self) -> str:
        """Path of the CA file that clients must trust.

        It is there from the first start to `close`, or to the end of the `with` block.

        Raises: RuntimeError before its first start, and without TLS.
        """
        if self.authority is None:
            raise RuntimeError("the server has no CA file: it was not started, or speaks plain HTTP")
        return self.authority.ca_file

    @property
    def logins(self) -> int:
        """How many passwords were accepted."""
        return self._desk.logins

    @property
    def refused_logins(self) -> int:
        """How many passwords were refused."""
        return self._desk.refused_logins

    @property
    def refreshes(self) -> int:
        """How many refresh tokens were accepted."""
        return self._desk.refreshes

    def expect(self, requests: str, *, times: int | None = None) -> None:
        """Check which requests the server has received: `server.expect("GET RestoreSessions", times=1)`.

        - `requests`: method and glob for the path below `/vN/`, in any case; a star spans slashes too.
              Without a method, requests of every method count.
        - `times`: the exact number of requests; at least one if not given.

        Raises: AssertionError for another number, with the requests that were received.
        """
        self._front.received.expect(requests, times)

    def assert_no_more_logins(self) -> None:
        """Check that no login followed the first accepted one, or those that `expect` has counted.

        Renewing a token with a refresh token is no login.

        Raises: AssertionError with the further logins.
        """
        self._front.received.assert_no_more_logins()

    def expire_tokens(self) -> None:
        """Let every access token be over now; the refresh tokens stay good."""
        self._desk.expire()

    def revoke_tokens(self) -> None:
        """Let every access and refresh token be over now."""
        self._desk.revoke()

    def forget_events(self) -> None:
        """Let every change token that was given so far be outdated now."""
        self._feed.forget()
        self._front.wake()

    @property
    def password(self) -> str:
        """The user's password; a new one counts from the next login, tokens stay good."""
        return self._desk.password

    @password.setter
    def password(self, password: str) -> None:
        self._desk.password = password

    def fail(
        self,
        fault: Fault,
        *,
        on: str | None = None,
        times: int | None = 1,
        after: int = 0,
        when: Callable[[ReceivedRequest], bool] | None = None,
    ) -> None:
        """Let something go wrong with coming requests; of several faults the first planned.

        A fault strikes before version, token and route are looked at, as a proxy's would. With a
        good response in it, that response is the one of this moment: a long poll does not wait then.

        - `fault`: what goes wrong.
        - `on`: glob for the path below `/vN/`, in any case: `RestoreSessions`, `token`,
              `RestoreSessions/*` (a star spans slashes too); None for every request.
        - `times`: how many requests it hits; None until `heal()`.
        - `after`: how many matching requests it spares first.
        - `when`: a further condition, such as `lambda request: request.token != ""`.
        """
        self._faults.plan(PlannedFault(fault=fault, on=on, times=times, after=after, when=when))

    def heal(self) -> None:
        """Let nothing go wrong any more; what is already going wrong takes its course."""
        self._faults.clear()

    async def start(self) -> Self:
        """Begin to listen; on a running server it does nothing.

        Raises: OSError where the port is taken; ImportError where TLS needs trustme.
        """
        if self._running is not None:
            return self
        # Keys, certificates and files block, so they are made away from the loop.
        context = await asyncio.to_thread(self._prepare_tls) if self._tls else None
        self._front.closing = asyncio.Event()
        http = self.make_http()
        listener = Listener(http, context)
        try:
            self._port = listener.open(self._host, self._port)
        except BaseException:
            await asyncio.to_thread(self._close_authority)
            raise
        self._running = _Running(http, listener)
        return self

    async def stop(self) -> None:
        """Close the port and every connection; on a stopped server it does nothing.

        After the next start it goes on with the same port, certificate, tokens and faults. The CA
        file stays until `close`.
        """
        running, self._running = self._running, None
        if running is None:
            return
        await running.listener.refuse()
        self._front.closing.set()
        self._front.wake()
        running.http.pre_shutdown()
        await running.http.shutdown(_SHUTDOWN_SECONDS)
        await running.listener.close()

    async def close(self) -> None:
        """Stop, and remove its own CA file; a later start writes the file again."""
        await self.stop()
        await asyncio.to_thread(self._close_authority)

    async def respond(self, request: PlainRequest) -> tuple[int, Mapping[str, str], bytes] | None:
        """Status, headers and body for a request that came by no connection; None where a fault is planned.

        A fault needs a connection that it can break: make one with `make_http`.
        """
        return await self._front.respond(request) if self._front.is_faultless else None

    def make_http(self) -> web.Server:
        """What makes the protocol of one connection per call; for connections that are no sockets."""
        return web.Server(self._front.handle, handler_cancellation=True, access_log=None)

    def run_in_thread(self) -> AbstractContextManager[Self]:
        """The server, running in a thread of its own: `with server.run_in_thread():`."""
        return in_thread(self)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        place = self.url if self._port else "not started"
        return f"<BackupServer {self.name} {self.version} {place}>"

    def _prepare_tls(self) -> ssl.SSLContext:
        if self.authority is None:
            self.authority = Authority(self._host)
            self._owns_authority = True
        self.authority.open()
        return self.authority.server_context

    def _close_authority(self) -> None:
        if self.authority is not None and self._owns_authority:
            self.authority.close()


def _served(version: ApiVersion, versions: Collection[ApiVersion] | None) -> tuple[ApiVersion, ...]:
    if version not in VERSIONS or not set(versions or ()) <= set(VERSIONS):
        msg = f"API versions are {', '.join(VERSIONS)}"
        raise ValueError(msg)
    if versions is None:
        newest = VERSIONS.index(version)
        return VERSIONS[max(0, newest - _PREDECESSORS) : newest + 1]
    return tuple(one for one in VERSIONS if one in versions)
