"""No password and no token shows anywhere: not in what we print, log, raise or pickle."""

import asyncio
import copyreg
import json
import pickle
from collections.abc import Awaitable, Callable
from copy import copy
from datetime import datetime
from enum import Enum
from typing import Any, Literal
from urllib.parse import quote, quote_plus

import attrs
import pytest
from harness.backups import asked, beside_a_healthy_server, server_of
from harness.canary import Canary
from harness.raw import (
    Connection,
    RawServer,
    fin,
    http,
    json_answer,
    rst,
    send,
    stall,
    token_answer,
    vbo_routes,
)

from aiovbo import (
    AuthenticationError,
    Bearer,
    Client,
    ConfigError,
    Fleet,
    Password,
    PayloadError,
    RestoreSession,
    Server,
    ServerTimeoutError,
    VboError,
)
from aiovbo.testing import BackupServer, Fault

SESSION = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00Z"}


async def test_nothing_public_shows_a_secret_when_all_is_well() -> None:
    """Values, clients, queries, answers, models, links, and every log record down to DEBUG."""
    canary = Canary()
    password = canary.secret("password")
    with canary.listening():
        async with BackupServer(password=password) as backup:
            server = server_of(backup)
            signals: list[object] = []
            async with Fleet([server], observer=signals.append) as fleet:
                result = await fleet.restore_sessions()
                canary.watch(backup.requests[-1].token)
                client = fleet[server.name]
                session = result.items[0]
                link = session.links["self"]
                organization = await session.fetch_organization()
                resource = await client.fetch("ServiceInstance")
                token = client._requester._token_manager._token  # what must be hidden
                query, fleet_query = client.restore_sessions(), fleet.restore_sessions()
                canary.assert_absent(
                    server, server.credentials, fleet, client, query, fleet_query, result, result.answers,
                    session, link, session.links, organization, resource, token, attrs.asdict(server),
                    attrs.asdict(session), server.tls, signals, fleet.status(), client.status(),
                )  # fmt: skip
            canary.assert_absent(fleet, client, session)
    assert len(canary.records) >= 5


@pytest.mark.parametrize(
    "answer",
    [
        http(401), http(403), http(500, b'{"message": "no"}'), http(302, headers=[("Location", "http://x/")]),
        http(body=b"[1"), http(body=b""), http(body=b"<html>"), b"SSH-2.0-OpenSSH\r\n\r\n",
        [fin()], [rst()], [send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n["), fin()], [stall()],
        http(body=b"[]", headers=[("X-Long", "x" * 9000)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["sessions", "token"])
async def test_no_error_shows_a_secret(answer: object, where: str) -> None:
    """Not in its text, its chain, its pickle, nor in the locals of our frames in its traceback."""
    canary = Canary()
    access = canary.secret("token").replace(" ", "").replace('"', "").replace("ü", "").replace("\\", "")
    canary.watch(access)
    login = Password("TECH\\monitor", canary.secret("password"))
    routes = {"token": token_answer(access), "sessions": json_answer([SESSION]), where: answer}
    with canary.listening():
        async with RawServer(vbo_routes(access_token=access, **routes)) as raw:  # type: ignore[arg-type]  # scripts
            server = Server(raw.url, login, allow_http=True, api_version="v4")
            async with Client(server, retries=1, read_timeout=0.2) as client:
                with pytest.raises(VboError) as caught:
                    await client.restore_sessions()
                canary.assert_absent(caught.value, str(caught.value), repr(caught.value))
                assert caught.value.__cause__ is caught.value.__context__ is None
            async with Fleet([server], retries=0, read_timeout=0.2) as fleet:
                result = await fleet.restore_sessions()
                with pytest.raises(VboError) as caught:
                    result.raise_for_failures()
                canary.assert_absent(caught.value, result)


async def _echo(connection: Connection) -> None:
    await connection.send(bytes(connection.data))


async def _echo_as_headers(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\n" + bytes(connection.data).replace(b"\r\n", b"\x00\r\n"))


async def _echo_behind_a_status(connection: Connection) -> None:
    # What has no end of line is quoted from its beginning.
    line = bytes(connection.data).partition(b"\r\n")[2].replace(b"\r\n", b" ")
    await connection.send(b"HTTP/1.1 200 OK\r\n" + line * 50)


async def _echo_as_chunks(connection: Connection) -> None:
    secrets = bytes(connection.data).rpartition(b"Bearer ")[2]
    await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secrets)


@pytest.mark.parametrize("echo", [_echo, _echo_as_headers, _echo_behind_a_status, _echo_as_chunks])
@pytest.mark.parametrize("where", ["sessions", "token"])
async def test_what_echoes_the_request_is_not_quoted(
    echo: Callable[[Connection], Awaitable[None]], where: str
) -> None:
    """As another service on that port may do: the HTTP library quotes what is no HTTP, and we do not."""
    canary = Canary()
    password, token = canary.watch("password-0123456789"), canary.watch("token-0123456789abcdef")
    with canary.listening():
        async with RawServer(vbo_routes(access_token=token, **{where: echo})) as raw:  # type: ignore[arg-type]  # scripts
            server = Server(raw.url, Password("u", password), allow_http=True, api_version="v4", name="echo")
            async with beside_a_healthy_server(server) as fleet:
                error = (await fleet["echo"].restore_sessions().answer()).error
            assert error is not None
            canary.assert_absent(error, str(error), repr(error))


@pytest.mark.parametrize("written", [str, quote, quote_plus])
async def test_a_server_that_quotes_what_it_was_sent_is_not_quoted(written: Callable[[str], str]) -> None:
    """Neither the password in the refusal of a login or a listing, nor the token in that of a listing."""
    canary = Canary()
    password, token = canary.secret("password"), canary.watch("token-0123456789abcdef")

    async def quote_password(connection: Connection) -> None:
        body = json.dumps({"message": f"bad: {written(password)}"}, ensure_ascii=False)
        await connection.send(http(400, body.encode()))

    async def quote_token(connection: Connection) -> None:
        body = json.dumps({"message": f"may not: {written(token)}"})
        await connection.send(http(403, body.encode()))

    with canary.listening():
        for routes in ({"token": quote_password}, {"sessions": quote_password}, {"sessions": quote_token}):
            async with RawServer(vbo_routes(access_token=token, **routes)) as raw:
                login = Password("u", password)
                server = Server(raw.url, login, allow_http=True, api_version="v4")
                async with Client(server, retries=0) as client:
                    with pytest.raises(VboError, match=r"\*\*\*") as caught:
                        await client.restore_sessions()
                    canary.assert_absent(caught.value, str(caught.value))


async def test_a_cancelled_request_shows_no_secret_in_any_frame() -> None:
    """The traceback of a cancellation passes through frames with their locals."""
    canary = Canary()
    password = canary.secret("password")
    async with BackupServer(password=password) as backup, Client(server_of(backup)) as client:
        for resource in ("token", "RestoreSessions"):
            backup.fail(Fault.stall(), on=resource)
            waiting = asyncio.ensure_future(client.restore_sessions().answer())
            while not [r for r in backup.requests if r.resource == resource]:
                await asyncio.sleep(0.01)
            if client._requester._token_manager._token is not None:  # what must be hidden
                canary.watch(backup.requests[-1].token)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await waiting
            canary.assert_absent(caught.value)


async def _wait_for(asking: Awaitable[object], _: asyncio.Event) -> None:
    await asyncio.wait_for(asking, 0.2)


async def _timeout(asking: Awaitable[object], _: asyncio.Event) -> None:
    async with asyncio.timeout(0.2):
        await asking


async def _cancel(asking: Awaitable[object], arrived: asyncio.Event) -> None:
    task = asyncio.ensure_future(asking)
    await arrived.wait()
    task.cancel()
    await task


async def _cancel_inside_a_group(asking: Awaitable[object], arrived: asyncio.Event) -> None:
    async def watch() -> None:
        try:
            await asking
        except asyncio.CancelledError as error:
            message = "cancelled"
            raise ValueError(message) from error

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await arrived.wait()
        message = "a bug"
        raise ValueError(message)


async def _interrupt(asking: Awaitable[object], arrived: asyncio.Event) -> None:
    try:
        await _cancel(asking, arrived)
    except asyncio.CancelledError:
        raise KeyboardInterrupt  # noqa: B904  # as asyncio.Runner raises it, with the cancellation as context


ASK: dict[str, Callable[[Fleet], Awaitable[object]]] = {
    "answer": lambda fleet: fleet["odd"].restore_sessions().answer(),
    "items": lambda fleet: _listed(fleet["odd"].restore_sessions()),
    "fleet": lambda fleet: _awaited(fleet.restore_sessions()),
    "map": lambda fleet: _awaited(fleet.map(lambda one: one.restore_sessions().answer())),
    "request": lambda fleet: fleet["odd"].fetch("RestoreSessions"),
}


@pytest.mark.parametrize("end", [_wait_for, _timeout, _cancel, _cancel_inside_a_group, _interrupt])
@pytest.mark.parametrize("on", ["login", "refresh", "listing", "body", "Bearer"])
async def test_no_frame_of_whatever_ends_a_query_shows_a_secret(
    end: Callable[[Awaitable[object], asyncio.Event], Awaitable[None]], on: str
) -> None:
    """Frames of the HTTP library included, and those of the errors that it came from."""
    canary, arrived = Canary(), asyncio.Event()
    password, access = canary.watch("password-0123456789"), canary.watch("token-0123456789abcdef")
    refresh = canary.watch("refresh-0123456789abcdef")

    async def hang(_: Connection) -> None:
        arrived.set()
        await asyncio.sleep(60)

    async def hang_in_the_body(connection: Connection) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nX-Echo: {access}\r\n\r\n["
        await connection.send(head.encode())
        await hang(connection)

    async def grant(connection: Connection) -> None:
        if on == "login" or b"refresh_token=" in connection.requests[-1].body:
            await hang(connection)
        granted = {"access_token": access, "expires_in": 3600, "refresh_token": refresh}
        await connection.send(json_answer(granted))

    listing = {"refresh": json_answer([]), "body": hang_in_the_body}.get(on, hang)
    async with RawServer(vbo_routes(access_token=access, token=grant, sessions=listing)) as raw:
        login = Bearer(access) if on == "Bearer" else Password("u", password)
        server = Server(raw.url, login, allow_http=True, api_version="v4", name="odd")
        for ask in ASK.values():
            async with Fleet([server], retries=0) as fleet:
                if on == "refresh":
                    assert await fleet["odd"].restore_sessions() == []
                    token = fleet["odd"]._requester._token_manager._token
                    assert token is not None
                    token.renew_at = 0
                arrived.clear()
                with pytest.raises(BaseException) as caught:  # noqa: PT011  # whatever it is
                    await end(ask(fleet), arrived)
                assert not isinstance(caught.value, VboError)
                canary.assert_absent(caught.value)


async def _awaited(query: Any) -> object:
    return await query


async def _listed(query: Any) -> object:
    return [item async for item in query]


@pytest.mark.parametrize(
    "make", [lambda s: Password("u", s), Bearer, lambda s: Server("vbo1", Password("u", s))]
)
def test_credentials_refuse_to_be_pickled_and_say_why(make: Callable[[str], object]) -> None:
    """A pickle would write the secret down."""
    canary = Canary()
    secret = canary.secret()
    with pytest.raises(TypeError, match="not pickled") as caught:
        pickle.dumps(make(secret))
    assert secret not in str(caught.value)
    canary.assert_absent(make(secret))


@pytest.mark.parametrize("url", ["http://vbo1", "HTTP://vbo1:4443/x"])
def test_a_password_is_not_sent_in_the_clear_unless_that_was_said(url: str) -> None:
    """For that one server."""
    with pytest.raises(ConfigError, match="allow_http=True"):
        Fleet([Server("vbo2", Bearer("token")), url], Password("u", "p"))
    assert Server(url, Password("u", "p"), allow_http=True).url.scheme == "http"


@pytest.mark.parametrize("url", ["https://u:{}@vbo1", "u:{}@vbo1", "https://{}@vbo1:4443/x"])
def test_a_url_with_credentials_is_refused_and_not_echoed(url: str) -> None:
    """The message would end up in a log."""
    secret = "c4n4ry-c4n4ry"
    with pytest.raises(ConfigError) as caught:
        Fleet([url.format(secret)], Password("u", "p"))
    assert secret not in str(caught.value)


async def _raises(secret: str) -> str:
    message = f"the vault is sealed, and {secret} in it"
    raise RuntimeError(message)


async def _gives_bytes(secret: str) -> Any:  # what the annotation forbids
    return secret.encode()


async def _waits_for_what_is_cancelled(_: str) -> str:
    lost = asyncio.ensure_future(asyncio.sleep(60))
    lost.cancel()
    await lost
    return ""


@pytest.mark.parametrize(
    ("fail", "problem"),
    [
        (_raises, "it raised RuntimeError"),
        (_gives_bytes, "it gave bytes"),
        (_waits_for_what_is_cancelled, "what it waited for was cancelled"),
    ],
)
@pytest.mark.parametrize("kind", [Bearer, lambda provide: Password("u", provide)])
async def test_a_provider_that_fails_is_the_failure_of_its_server_and_keeps_its_secret(
    fail: Callable[[str], Awaitable[str]],
    problem: str,
    kind: Callable[[Callable[[], Awaitable[str]]], Bearer | Password],
) -> None:
    """Nothing is sent there, the rest of the fleet does not notice, and what it raised is not repeated."""
    canary = Canary()
    secret = canary.secret()
    calls = 0

    async def provide() -> str:
        nonlocal calls
        calls += 1
        return await fail(secret)

    async with BackupServer() as backup:
        login = kind(provide)
        async with beside_a_healthy_server(server_of(backup, name="odd", credentials=login)) as fleet:
            result = await fleet.restore_sessions()
        (answer,) = result.failed
        assert (answer.server, type(answer.error)) == ("odd", AuthenticationError)
        assert "the provider of its" in str(answer.error)
        assert problem in str(answer.error)
        assert calls == 1
        assert not [request for request in backup.requests if request.resource.lower() == "token"]
        canary.assert_absent(answer.error)


@pytest.mark.parametrize("kind", [Bearer, lambda provide: Password("u", provide)])
async def test_a_provider_that_hangs_is_named_when_the_deadline_has_passed(
    kind: Callable[[Callable[[], Awaitable[str]]], Bearer | Password],
) -> None:
    """The caller gets its error, the server does not count as failed, and the next query calls it again."""
    answering = asyncio.Event()

    async def provide() -> str:
        await answering.wait()
        return "access-1"

    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url, kind(provide), allow_http=True, api_version="v4", name="odd")
        async with beside_a_healthy_server(server, deadline=0.3) as fleet:
            query = fleet["odd"].restore_sessions()
            for answer in await asyncio.gather(*(query.answer() for _ in range(5))):
                assert isinstance(answer.error, AuthenticationError)
                assert "had given nothing when the deadline passed" in str(answer.error)
            assert raw.received == 0
            assert not fleet["odd"].is_out_of_reach
            answering.set()
            assert await query == []


@pytest.mark.parametrize("escape", [lambda c: f"\\u{ord(c):04X}", lambda c: "\\/" if c == "/" else c])
async def test_an_echo_is_recognised_however_it_is_escaped(escape: Callable[[str], str]) -> None:
    """As .NET escapes a plus, and others a slash: a password and a token that were refused."""
    secret = "pass+word/<&'>=="
    said = "".join(map(escape, secret))
    echo = http(400, body=f'{{"error": "no", "error_description": "no {said}"}}'.encode())
    async with RawServer(vbo_routes(token=echo)) as raw:
        server = Server(raw.url, Password("u", secret), allow_http=True, api_version="v4")
        async with Client(server, retries=0) as client:
            with pytest.raises(AuthenticationError) as refused:
                await client.restore_sessions()
    assert "no ***" in str(refused.value)
    # However deep what else is in it: nothing but what an error may quote is looked through.
    deep = '{"a":' * 450 + "1" + "}" * 450
    echo = http(400, body=f'{{"error": "no", "error_description": "no {said}", "a": {deep}}}'.encode())
    async with RawServer(vbo_routes(token=echo)) as raw:
        server = Server(raw.url, Password("u", secret), allow_http=True, api_version="v4")
        async with Client(server, retries=0) as client:
            with pytest.raises(AuthenticationError, match=r"no \*\*\*"):
                await client.restore_sessions()
    assert secret not in repr(refused.value.__dict__)


ECHO = "token-0123456789abcdef"
ELSEWHERE = {"next": {"href": f"https://gateway/other?access_token={ECHO}"}}


@pytest.mark.parametrize(
    "answer",
    [
        [{**SESSION, "id": ECHO}],
        [{**SESSION, "creationTime": ECHO}],
        [{**SESSION, "creationTime": f"2026-01-01T00:00:00Z {ECHO}"}],
        [{ECHO: ECHO}, ECHO, [ECHO]],
        {"results": ECHO, "limit": ECHO, "totalCount": ECHO},
        {"results": [SESSION], "limit": 1, "_links": ELSEWHERE},
        {"message": ECHO},
        ECHO,
    ],
)
async def test_a_listing_that_echoes_the_token_is_not_quoted(answer: object) -> None:
    """Nor is a single resource: what is invalid is named by its place, and the item itself has the rest."""
    canary = Canary()
    canary.watch(ECHO)
    with canary.listening():
        async with RawServer({("GET", "/v4/RestoreSessions"): json_answer(answer)}) as raw:
            server = Server(raw.url, Bearer(ECHO), allow_http=True, api_version="v4", name="echo")
            async with beside_a_healthy_server(server) as fleet:
                found = await fleet["echo"].restore_sessions().answer()
                with pytest.raises(PayloadError) as caught:
                    await fleet["echo"].fetch("RestoreSessions", RestoreSession)
    assert found.error or found.rejected
    shown = [(row.path, row.reason) for row in found.rejected]
    canary.assert_absent(
        found.error, str(found.error), shown, str(caught.value), caught.value.problems, canary.records
    )


class Size(Enum):
    """A documented choice."""

    SMALL = "Small"


@pytest.mark.parametrize("kind", [float, Size, Literal["a", "b"], datetime])
@pytest.mark.parametrize("ending", ["", "z", "'é\\"])
async def test_a_reason_of_a_users_own_class_does_not_quote_an_echoed_token(kind: Any, ending: str) -> None:
    """Whatever converts the value: some of Python's messages quote it, some do not."""
    canary = Canary()
    canary.watch(ECHO)
    made = attrs.make_class("Disk", {"id": attrs.field(type=str), "value": attrs.field(type=kind)})
    answer = json_answer({"id": "1", "value": f"{ECHO}{ending}"})
    with canary.listening():
        async with RawServer({("GET", "/v4/Disk"): answer}) as raw:
            server = Server(raw.url, Bearer(ECHO), allow_http=True, api_version="v4", name="echo")
            async with beside_a_healthy_server(server) as fleet:
                with pytest.raises(PayloadError, match=r"@ \$\.value") as caught:
                    await fleet["echo"].fetch("Disk", made)
    canary.assert_absent(str(caught.value), caught.value.problems, canary.records)


async def test_a_provider_that_fails_when_asked_again_leaves_the_refusal_standing() -> None:
    """Else the refused password would be tried once more at every question, until the account is locked."""
    given = iter(["wrong"])

    async def provide() -> str:
        for one in given:
            return one
        message = "rate limit of the vault"
        raise RuntimeError(message)

    async with BackupServer() as backup:
        login = Password(backup.username, provide)
        async with Client(server_of(backup, credentials=login)) as client:
            for _ in range(3):
                with pytest.raises(AuthenticationError, match="rejected"):
                    await client.restore_sessions()
        assert asked(backup, "token") == 1


def test_a_copied_error_leads_nowhere_whatever_copyreg_was_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some libraries teach it to keep traceback and context, where a token could be found."""
    monkeypatch.setitem(copyreg.dispatch_table, ServerTimeoutError, lambda error: (lambda: error, ()))
    error = ServerTimeoutError("nothing came", phase="read", hint="Wait.")
    error.__cause__ = error.__context__ = ValueError("token")
    twin = copy(error)
    assert (str(twin), twin.args, twin.phase) == ("nothing came. Wait.", ("nothing came",), "read")
    assert twin.__traceback__ is twin.__cause__ is twin.__context__ is None
