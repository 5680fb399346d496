"""What holds of all of the SDK at once: every operation ends, every exception of aiohttp is translated."""

import ast
import asyncio
import inspect
import pickle
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from harness import closed_port, tls
from harness.backups import beside_a_healthy_server, server_of, view_of
from harness.canary import Canary
from harness.raw import ANY, RawServer, fin, http, rst, vbo_routes
from yarl import URL

import aiovbo
from aiovbo import (
    TLS,
    Answer,
    BackupOrganization,
    Client,
    Clock,
    Fleet,
    Link,
    Password,
    PayloadError,
    Query,
    Resource,
    RestoreSession,
    Server,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
)
from aiovbo._transport.error_mapping import map_aiohttp_error
from aiovbo._transport.proxy import proxy_failure
from aiovbo._transport.tls import NotVerifiedError, ServerContext
from aiovbo.testing import BackupServer, Fault

PACKAGE = Path(aiovbo.__file__).parent


async def all_of(items: AsyncIterator[object]) -> None:
    """Read to the end."""
    async with aclosing(items) as given:  # type: ignore[type-var]  # async generators, all of them
        async for _ in given:
            pass


def a_session_of(client: Client) -> RestoreSession:
    """A session that the server may have."""
    return RestoreSession(id=UUID(int=1), creation_time=datetime.now(UTC), server=client.name)


OF_CLIENT: dict[str, Callable[[Client], Awaitable[object]]] = {
    "Client.request": lambda c: c.request("GET", "Organizations"),
    "Client.restore_sessions": lambda c: c.restore_sessions(),
    "Client.restore_events": lambda c: c.restore_events(),
    "Client.events_of": lambda c: c.events_of([a_session_of(c)]),
    "Client.fetch_restore_session": lambda c: c.fetch_restore_session(UUID(int=1)),
    "Client.fetch": lambda c: c.fetch("Organizations"),
    "Client.query": lambda c: c.query("Organizations"),
    "Client.organizations": lambda c: c.organizations(),
    "Client.job_sessions": lambda c: c.job_sessions(),
    "Client.fetch_service_instance": lambda c: c.fetch_service_instance(),
    "Client.stop_restore_session": lambda c: c.stop_restore_session(UUID(int=1)),
    "Client.explore": lambda c: c.explore("Vex"),
    "Query.answer": lambda c: raised(c.organizations().answer()),
    "Query.pages": lambda c: all_of(c.job_sessions().pages()),
}
OF_SESSION: dict[str, Callable[[RestoreSession], Awaitable[object]]] = {
    "Link.fetch": lambda s: s.links["self"].fetch(),
    "RestoreSession.fetch_organization": lambda s: s.fetch_organization(),
    "RestoreSession.refresh": lambda s: s.refresh(),
    "RestoreSession.stop": lambda s: s.stop(),
    "RestoreSession.wait": lambda s: s.wait(timeout=0.3, every=0.1),
    "RestoreSession.events": lambda s: s.events(),
    "RestoreSession.fetch_statistics": lambda s: s.fetch_statistics(),
}
OF_ORGANIZATION: dict[str, Callable[[BackupOrganization], Awaitable[object]]] = {
    "Link.query": lambda o: o.links["self"].below("mailboxes").query(Resource),
    "BackupOrganization.mailboxes": lambda o: o.mailboxes(),
    "BackupOrganization.one_drives": lambda o: o.one_drives(),
    "BackupOrganization.sites": lambda o: o.sites(),
    "BackupOrganization.teams": lambda o: o.teams(),
}
NOT_HERE = {
    # What closes is tested where closing is; the others are how those above are made.
    "Client.aclose", "Client.log_out", "Client.fetch_api_version", "Client.fetch_page",
    "Client.filtered_events", "Client.filtered_job_sessions", "Client.filtered_sessions", "Client.poll",
    "Query.run",
}  # fmt: skip


async def raised(answer: Awaitable[Answer[Any]]) -> None:
    """An answer's error, raised."""
    error = (await answer).error
    assert error is not None
    raise error


def test_every_public_coroutine_and_query_is_called_here() -> None:
    """So that one that is added is not forgotten."""
    public = set[str]()
    for cls in (Client, Query, Link, BackupOrganization, RestoreSession):
        for name, function in vars(cls).items():
            if name.startswith("_") or not inspect.isfunction(function):
                continue
            gives = str(inspect.signature(function).return_annotation)
            lazy = any(word in gives for word in ("Query", "Exploration", "AsyncGenerator"))
            if inspect.iscoroutinefunction(function) or lazy:
                public.add(f"{cls.__name__}.{name}")
    assert public == {*OF_CLIENT, *OF_SESSION, *OF_ORGANIZATION} | NOT_HERE


@pytest.mark.parametrize("silence", ["of the question", "of the login", "of the search for a version"])
async def test_everything_public_ends_by_its_deadline(silence: str) -> None:
    """All at once, of a server that answers nothing any more; the healthy one beside it is as ever."""
    ahead = [0.0]
    limits = {"deadline": 0.4, "connect_timeout": 9.0, "read_timeout": 9.0, "retries": 2}
    clock = Clock(monotonic=lambda: time.monotonic() + ahead[0])
    async with BackupServer(version="v8") as backup:  # noqa: SIM117  # the fleet needs the backup's URL
        async with beside_a_healthy_server(server_of(backup, name="bad"), clock=clock, **limits) as fleet:
            client = fleet["bad"]
            session = (await client.restore_sessions())[0]
            organization = await session.fetch_organization()
            if silence == "of the login":
                ahead[0] += 7200
            elif silence == "of the search for a version":
                client = fleet.add(view_of(backup, name="new"))
            asking = [call(client) for call in OF_CLIENT.values()]
            if client.name == "bad":
                asking += [call(session) for call in OF_SESSION.values()]
                asking += [call(organization) for call in OF_ORGANIZATION.values()]
            backup.fail(Fault.stall(), on="*", times=None)
            async with asyncio.timeout(2):
                errors = await asyncio.gather(
                    *map(error_of, asking), error_of(raised(of_fleet(fleet, client.name)))
                )
    assert {type(error) for error in errors} == {ServerTimeoutError}


async def of_fleet(fleet: Fleet, name: str) -> Answer[Any]:
    """What the fleet has to say of one server."""
    return (await fleet.restore_sessions()).answers[name]


async def error_of(question: Awaitable[object]) -> BaseException | None:
    """What a question fails with."""
    try:
        await question
    except ServerError as error:
        return error
    return None


def test_no_cancel_scope_spans_a_yield() -> None:
    """It would cancel the consumer in the middle of its own await."""
    scopes = ("timeout", "timeout_at", "limit", "TaskGroup", "attempt", "_first_attempt")
    spanned = 0
    for file in PACKAGE.rglob("*.py"):
        if "testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.With | ast.AsyncWith) and any(
                called(item.context_expr) in scopes for item in node.items
            ):
                spanned += 1
                assert not [n for n in ast.walk(node) if isinstance(n, ast.Yield | ast.YieldFrom)], file
    assert spanned >= 5


def called(expression: ast.expr) -> str | None:
    """The name of the function that an expression calls."""
    function = expression.func if isinstance(expression, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def descendants(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """An exception's class, and all that are derived from it."""
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def made(kind: type[BaseException], secret: str) -> BaseException:
    """An exception of aiohttp's as it makes one, with a secret wherever it keeps something."""
    url = URL(f"https://u:{secret}@vbo1/")
    headers = {"Authorization": f"Bearer {secret}"}
    request = aiohttp.RequestInfo(url, "GET", headers, url)  # type: ignore[arg-type]  # good enough to print
    key = SimpleNamespace(host="vbo1", port=4443, ssl=True, is_ssl=True)
    if issubclass(kind, aiohttp.ClientResponseError):
        return kind(request, (), status=407, message=f"bad: {secret!r}", headers=headers)  # type: ignore[call-arg]
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        refused = ssl.SSLCertVerificationError(1, "self-signed")
        refused.verify_message, refused.verify_code = "self-signed certificate", 18
        return kind(key, refused)  # type: ignore[call-arg]
    if issubclass(kind, aiohttp.client_exceptions.UnixClientConnectorError):
        return kind("/run/x", key, OSError(111, "refused"))  # type: ignore[call-arg]
    if issubclass(kind, aiohttp.ClientConnectorError):
        return kind(key, OSError(111, "refused"))  # type: ignore[call-arg]
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return kind() if kind is NotVerifiedError else kind(b"a", b"b", "vbo1", 4443)  # type: ignore[call-arg]
    return kind(url) if issubclass(kind, aiohttp.InvalidURL) else kind(secret)


@pytest.mark.parametrize(
    "kind", sorted(set(descendants(aiohttp.ClientError)), key=lambda kind: kind.__name__)
)
@pytest.mark.parametrize("phase", ["connect", "read", "body"])
def test_every_exception_of_aiohttp_is_one_of_ours(kind: type[BaseException], phase: Any) -> None:
    """A value with a phase and a hint, that can be pickled and leads nowhere."""
    canary = Canary()
    raised: Any = made(kind, canary.watch("c4n4ry-c4n4ry"))
    context = ServerContext(TLS(insecure=True))
    error = proxy_failure(raised, phase, None, URL("https://vbo1:4443"))
    error = error or map_aiohttp_error(raised, phase, context)
    assert isinstance(error, ServerError)
    assert error.phase is not None
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    canary.assert_absent(error, str(error), repr(error))


PROXIES = {
    "wants a password": (http(407, headers=[("Proxy-Authenticate", "Basic")]), "HTTP 407", False),
    "refuses": (http(403, b"blocked", content_type="text/plain"), "HTTP 403", False),
    "is broken": (http(502), "HTTP 502", True),
    "hangs up": ([fin()], "closed without a response", True),
    "is cut off": ([rst()], "lost", True),
    "is away": (None, "the proxy cannot be reached", True),
}


@pytest.mark.parametrize("case", PROXIES)
async def test_a_proxy_of_a_session_that_was_lent_is_named_and_its_password_is_not(case: str) -> None:
    """The server is not blamed for it."""
    script, words, may_pass = PROXIES[case]
    canary = Canary()
    secret = canary.watch("c4n4ry-c4n4ry")
    with closed_port() as closed:
        async with (
            RawServer({("CONNECT", ANY): script or b""}) as proxy,
            RawServer(vbo_routes(), ssl=tls.good().context) as raw,
        ):
            port = closed if script is None else proxy.port
            server = Server(raw.url, Password("u", "p"), tls=TLS(ca_file=tls.good().ca_file), name="bad")
            with canary.listening():
                async with (
                    aiohttp.ClientSession(proxy=f"http://u:{secret}@127.0.0.1:{port}") as lent,
                    Client(server, http=lent, retries=0, deadline=2) as client,
                ):
                    error = (await client.restore_sessions().answer()).error
            assert isinstance(error, UnreachableError | PayloadError)
            assert words in str(error)
            assert error.retryable is may_pass
            canary.assert_absent(error, str(error), repr(error))
            assert raw.received == 0


@pytest.mark.parametrize("limit", ["read_timeout", "deadline"])
async def test_a_callers_own_timeout_is_never_lost_however_it_meets_ours(limit: str) -> None:
    """Both end at nearly the same moment: our error, or the caller's own TimeoutError; never a hang."""
    seen = set[str]()
    async with BackupServer() as backup, Client(server_of(backup), retries=0, **{limit: 0.03}) as client:
        backup.fail(Fault.stall(), on="RestoreSessions", times=None)
        for number in range(60):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(2), asyncio.timeout(0.026 + number % 8 * 0.001):
                    answer = await client.restore_sessions().answer()
                    seen.add(type(answer.error).__name__)
                    await asyncio.sleep(1)
            assert type(caught.value) is TimeoutError
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
    assert seen <= {"ServerTimeoutError"}
