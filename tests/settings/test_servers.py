"""Servers and credentials as they are written: what is filled in, and what is refused at once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import aiohttp
import attrs
import pytest
from yarl import URL

from aiovbo import (
    TLS,
    Assertion,
    AuthenticationError,
    Bearer,
    Checkpoint,
    Client,
    Clock,
    ClosedError,
    ConfigError,
    Fleet,
    Password,
    Server,
)

LOGIN = Password("u", "p")


async def async_observer(_: object) -> None:
    """A function that no caller would await."""


@pytest.mark.parametrize(
    ("written", "meant", "name"),
    [
        ("vbo1", "https://vbo1:4443", "vbo1"),
        ("vbo1:9419", "https://vbo1:9419", "vbo1:9419"),
        ("https://10.0.0.7", "https://10.0.0.7:4443", "10.0.0.7"),
        ("https://vbo1:443", "https://vbo1:443", "vbo1:443"),
        ("proxy/vbo1/", "https://proxy:4443/vbo1", "proxy"),
        ("//vbo1", "https://vbo1:4443", "vbo1"),
        ("::1", "https://[::1]:4443", "[::1]"),
        ("[::1]:9419", "https://[::1]:9419", "[::1]:9419"),
        ("fe80::1%eth0", "https://[fe80::1%eth0]:4443", "[fe80::1%eth0]"),
        ("[fe80::1%25eth0]:9419", "https://[fe80::1%eth0]:9419", "[fe80::1%eth0]:9419"),
    ],
)
def test_what_an_address_leaves_out_is_filled_in(written: str, meant: str, name: str) -> None:
    """Scheme, port and name; a port that is the scheme's own is kept like any other, in copies too."""
    servers = [Server(written, LOGIN)]
    if "//" in written:
        servers.append(Server(URL(written), LOGIN))
    servers.append(attrs.evolve(servers[0], api_version="v6"))
    for server in servers:
        assert (server.url.scheme, server.url.raw_authority, server.url.path) == (
            "https",
            URL(meant).raw_authority,
            URL(meant).path,
        )
        assert server.name == name


@pytest.mark.parametrize(
    "written",
    [
        "",
        "https://",
        "https:/vbo1",
        "ftp://vbo1",
        "vbo1:port",
        "vbo1/v6",
        "vbo1?x=1",
        "vbo1/a%00b",
        "vb o1",
        "vbo1,vbo2",
        "*.tech.local",
        "%76bo1",
        "xn--a",
        "0x7f.1",
        "10.0.0.7%eth0",
        "[v1.x]",
        "[fe80::1%]",
        "[fe80::1%a/b]",
        None,
        5,
        b"vbo1",
    ],
)
def test_what_is_no_address_of_a_server_is_refused(written: Any) -> None:
    """At once, not when the first request fails."""
    with pytest.raises(ConfigError, match=r"URL|version"):
        Server(written, LOGIN)


def test_a_plain_address_must_be_allowed() -> None:
    """Everybody on the way would read the password."""
    with pytest.raises(ConfigError, match="allow_http=True"):
        Server("http://vbo1", LOGIN)
    assert Server("http://vbo1", LOGIN, allow_http=True).url.port == 4443


def test_one_address_is_no_list_of_addresses() -> None:
    """It would be taken letter by letter, and the password sent to hosts called v, b, o and 1."""
    with pytest.raises(ConfigError, match="letter by letter") as caught:
        Fleet("u:secret@vbo1", LOGIN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Client("u:secret@vbo1"),  # type: ignore[arg-type]  # the point
        lambda: Server("vbo1", "secret"),  # type: ignore[arg-type]
        lambda: Server("vbo1", LOGIN, tls=None),  # type: ignore[arg-type]
        lambda: Server("vbo1..tech.local", LOGIN),
        lambda: Server(f"{'v' * 64}.tech.local", LOGIN),
        lambda: Server("vbo1:0", LOGIN),
        lambda: Server("https://u:12/secret@vbo1", LOGIN),
        lambda: Server("https:///u:secret@vbo1", LOGIN),
        lambda: Server("https://u:secret%40vbo1", LOGIN),
        lambda: Password("u", "\udcff"),
        lambda: Password("u\udcff", "secret"),
        lambda: Server("vbo1", LOGIN, name=5),  # type: ignore[arg-type]
        lambda: Server("vbo1", LOGIN, api_version="v9"),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, concurrency=1.5),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, lockout_guard=0),
        lambda: Fleet(["vbo1"], LOGIN, deadline=0),
        lambda: Fleet(["vbo1"], LOGIN, deadline="60"),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, read_timeout=timedelta(1)),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, login_cooldown=None),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN).watch(every=30),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN).watch(every=timedelta()),
        lambda: Fleet(["vbo1"], LOGIN).watch(heartbeat=-timedelta(1)),
        lambda: Fleet(["vbo1"], LOGIN).watch(overlap=-timedelta(1)),
        lambda: Fleet(["vbo1"], LOGIN).watch(ack="foo"),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN).watch(checkpoint="x.db"),  # type: ignore[arg-type]
        lambda: Fleet({"vbo1": LOGIN}, LOGIN),
        lambda: Fleet(Server("vbo1", LOGIN)),  # type: ignore[arg-type]
        lambda: Fleet(URL("https://vbo1"), LOGIN),  # type: ignore[arg-type]
        lambda: Fleet([Server("vbo1", LOGIN)], "secret"),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, tls=False),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, http="session"),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, observer=1),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, observer=[print]),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, observer=async_observer),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, clock=Clock),  # type: ignore[arg-type]
        lambda: Fleet(["vbo1"], LOGIN, strict="no"),  # type: ignore[arg-type]
        lambda: Server("http://vbo1", LOGIN, allow_http="no"),  # type: ignore[arg-type]
        lambda: TLS(insecure="no"),  # type: ignore[arg-type]
        lambda: TLS(strict_x509="no"),  # type: ignore[arg-type]
        lambda: TLS(pin=1),  # type: ignore[arg-type]
        lambda: Assertion("app", "secret", operator="no"),  # type: ignore[arg-type]
        lambda: Assertion(1, "secret"),  # type: ignore[arg-type]
        lambda: Password(1, "secret"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_when_it_is_written(make: Callable[[], object]) -> None:
    """Not in the midst of the first query, by an AttributeError."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("login", [LOGIN, Bearer("t"), Assertion("app", "jwt")])
def test_credentials_are_values_that_can_be_copied(login: Password | Bearer | Assertion) -> None:
    """Equal and hashable; a copy with another field keeps the secret."""
    assert attrs.evolve(login) == login
    assert hash(attrs.evolve(login)) == hash(login)
    assert Server("vbo1", login) == Server("vbo1", login, tls=TLS())


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (
            Bearer("Bearer abc"),
            "vbo1: GET /v8/RestoreSessions: the token is empty.*without 'Bearer' before it",
        ),
        (Bearer("abc\n"), "a line's end after it"),
        (Bearer(""), "GET /v8/RestoreSessions: the token is empty"),
        (Password("u", lambda: "p"), r"the provider of its password failed \(it is no async function\)"),  # type: ignore[arg-type, return-value]
    ],
)
async def test_a_secret_that_cannot_be_used_is_described_in_the_error(login: Any, said: str) -> None:
    """Neither a server nor a provider is blamed that had no part in it; nothing was tried."""
    async with Client(Server("vbo1", login, api_version="v8")) as client:
        with pytest.raises(AuthenticationError, match=said) as caught:
            await client.restore_sessions()
    assert caught.value.attempts == 0


async def test_a_borrowed_session_that_is_closed_is_reported_as_such() -> None:
    """The fleet itself is open, and was never closed."""
    http = aiohttp.ClientSession()
    await http.close()
    async with Client(Server("vbo1", LOGIN, api_version="v8"), http=http) as client:
        with pytest.raises(ClosedError, match="the session that was lent"):
            await client.restore_sessions()


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.query("Organizations", dict),
        lambda client: client.query(5),
        lambda client: client.fetch(5),
        lambda client: client.fetch("Organizations", int),
        lambda _: Checkpoint(""),
        lambda _: Fleet(["vbo1"], LOGIN).watch(checkpoint=Checkpoint),  # type: ignore[arg-type]  # the point
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(make: Callable[[Client], Any]) -> None:
    """By what it should have been, not by a KeyError from within."""
    async with Client(Server("vbo1", LOGIN, api_version="v8")) as client:
        with pytest.raises(ConfigError, match=r"what is requested|is not a model|checkpoint"):
            await make(client)
