"""Secrets that are provided when they are needed, and tokens that need no login."""

from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from harness.backups import asked, server_of
from harness.raw import (
    RawServer,
    Request,
    vbo_routes,
)

from aiovbo import (
    Assertion,
    AuthenticationError,
    Bearer,
    Client,
    ConfigError,
    Password,
    Server,
)
from aiovbo.testing import BackupServer


def raw_server(raw: RawServer, **changes: object) -> Server:
    """How the SDK reaches a raw server."""
    settings: dict[str, object] = {"credentials": Password("u", "p"), "api_version": "v4"}
    return Server(raw.url, allow_http=True, **(settings | changes))  # type: ignore[arg-type]  # as given


def logins(raw: RawServer) -> list[Request]:
    """The logins that a raw server received."""
    return raw.asked("POST", "/v4/token")


@pytest.mark.parametrize("secret", ["& + % \\ ü \U0001f511 =;", "plain"])
async def test_every_password_arrives_as_it_is(secret: str) -> None:
    """Form-encoded right, whatever characters it has; the user name too."""
    login = Password("TECH\\möni+tor", secret)
    async with RawServer(vbo_routes()) as raw:
        async with Client(raw_server(raw, credentials=login)) as client:
            await client.restore_sessions()
        assert logins(raw)[0].form == {
            "grant_type": "password",
            "username": "TECH\\möni+tor",
            "password": secret,
        }


async def test_a_secret_may_be_provided_when_it_is_needed() -> None:
    """An async callable is asked at the login, and not before."""
    calls = 0

    async def provide() -> str:
        nonlocal calls
        calls += 1
        return backup.password

    async with BackupServer() as backup:
        login = Password(backup.username, provide)
        async with Client(server_of(backup, credentials=login)) as client:
            assert calls == 0
            await client.restore_sessions()
            await client.restore_sessions()
            assert calls == 1


async def test_a_password_that_was_changed_is_noticed_at_once_where_it_is_provided() -> None:
    """The cool-down is for what was refused, and for nothing else."""
    current = "old"

    async def provide() -> str:
        return current

    async with BackupServer() as backup:
        login = Password(backup.username, provide)
        async with Client(server_of(backup, credentials=login)) as client:
            for _ in range(2):
                with pytest.raises(AuthenticationError, match="was rejected"):
                    await client.restore_sessions()
            assert backup.refused_logins == 1
            current = backup.password
            assert len(await client.restore_sessions()) == 40


async def test_a_servers_new_password_counts_from_the_next_login() -> None:
    """As in life, tokens that were granted stay good."""
    async with BackupServer() as backup:
        old = server_of(backup)
        async with Client(old) as client:
            await client.restore_sessions()
            backup.password = "another one"
            await client.restore_sessions()
            backup.revoke_tokens()
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
        async with Client(server_of(backup)) as client:
            assert len(await client.restore_sessions()) == 40


@pytest.mark.parametrize("made", [Password, Assertion])
async def test_an_empty_secret_is_never_sent(made: type[Password] | type[Assertion]) -> None:
    """It would only be refused: mostly, a variable is not set. A provider that gives one has failed."""
    with pytest.raises(ConfigError, match="variable is set"):
        made("a-user", "")

    async def provide() -> str:
        return ""

    async with BackupServer() as backup:
        async with Client(server_of(backup, credentials=made("a-user", provide))) as client:
            with pytest.raises(AuthenticationError, match="it gave an empty text") as failed:
                await client.restore_sessions()
        assert (failed.value.attempts, failed.value.phase) == (0, "queue")
        assert not asked(backup)
        assert backup.refused_logins == 0


@pytest.mark.parametrize("made", [lambda: "access-1", lambda: _provided("access-1")])
async def test_a_bearer_token_needs_no_login(made: Callable[[], str | Callable[[], Awaitable[str]]]) -> None:
    """It is sent as it is; when it is refused there is nothing to renew."""
    async with RawServer(vbo_routes()) as raw:
        async with Client(raw_server(raw, credentials=Bearer(made()))) as client:
            assert await client.restore_sessions() == []
        async with Client(raw_server(raw, credentials=Bearer("stale"))) as client:
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
        assert logins(raw) == []


@pytest.mark.parametrize("version", ["v4", "v8"])
async def test_a_provider_is_asked_once_more_after_a_refusal(version: str) -> None:
    """A password or token that was changed meanwhile; the call succeeds, and the server refuses but once."""
    asked_for: list[str] = []

    def providing(*secrets: str) -> Callable[[], Awaitable[str]]:
        left = list(secrets)

        async def provide() -> str:
            asked_for.append(left[0])
            return left.pop(0) if len(left) > 1 else left[0]

        return provide

    async with BackupServer(version=version, lockout_after=2) as backup:  # type: ignore[arg-type]  # parametrised
        login = Password(backup.username, providing("old", backup.password))
        async with Client(server_of(backup, credentials=login)) as client:
            assert len(await client.restore_sessions()) == 40
        assert asked_for == ["old", backup.password]
        assert (backup.refused_logins, backup.logins) == (1, 1)
        asked_for.clear()
        async with Client(server_of(backup)) as other:
            await other.restore_sessions()
            fresh = other._requester._token_manager._token
            assert fresh is not None
            good = fresh.headers.content["Authorization"].removeprefix("Bearer ")
            logins = backup.logins
            async with Client(server_of(backup, credentials=Bearer(providing("stale", good)))) as client:
                assert len(await client.restore_sessions()) == 40
                assert len(await client.restore_sessions()) == 40
            assert asked_for == ["stale", good]
            assert backup.logins == logins
            # The token belongs to the caller: closing did not end it.
            assert asked(backup, "token/logout") == (1 if version == "v8" else 0)
            assert len(await other.restore_sessions()) == 40
            assert backup.logins == logins


@pytest.mark.parametrize("kind", [Password, Assertion])
async def test_what_a_provider_gives_is_refused_once_however_often_it_gives_it(
    kind: type[Password | Assertion],
) -> None:
    """Nor is the newer one sent again that it goes on giving: accounts lock. It is asked each time."""
    for given, sent in ((["wrong", "wrong"], 1), (["wrong", "also wrong"], 2)):
        left, calls = list(given), Counter[str]()

        async def provide(left: list[str] = left, calls: Counter[str] = calls) -> str:
            calls[left[0]] += 1
            return left.pop(0) if len(left) > 1 else left[0]

        async with BackupServer(assertions={"u": "right"}) as backup:
            async with Client(server_of(backup, credentials=kind("u", provide))) as client:
                for _ in range(3):
                    with pytest.raises(AuthenticationError):
                        await client.restore_sessions()
            assert backup.refused_logins == sent
            assert calls.total() == 2 + 2


async def test_a_bearer_that_stays_refused_is_sent_twice_at_most() -> None:
    """Once more with what its provider gives by then, and no more for this call."""
    async with BackupServer() as backup:
        provide = _provided("stale")
        async with Client(server_of(backup, credentials=Bearer(provide), api_version="v8")) as client:
            with pytest.raises(AuthenticationError):
                await client.restore_sessions()
        assert asked(backup) == 2


def _provided(secret: str) -> Callable[[], Awaitable[str]]:
    async def provide() -> str:
        return secret

    return provide
