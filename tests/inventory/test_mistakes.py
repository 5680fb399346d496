"""Mistakes in an inventory: each is reported with the file, its key and what was expected."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from aiovbo import AuthenticationError, ConfigError, Fleet
from aiovbo.testing import BackupServer, World

Write = Callable[[str], Path]
PIN = "sha256:" + "ab" * 32


# ----------------------------------------------------------------------------------------- mistakes

VBO1 = '[servers.vbo1]\nurl = "vbo1"\n'
TOKEN = 'credentials.token.env = "VBO_TOKEN"\n'
GOOD = VBO1 + TOKEN

MISTAKES = {
    "a SHA-1 pin": (
        f'{GOOD}tls.pin = "{"ab" * 20}"',
        (
            "fleet.toml: servers.vbo1.tls.pin: is a SHA-1 thumbprint, which proves nothing any more; give "
            "the SHA-256 fingerprint. To see it: openssl s_client -connect HOST:4443 </dev/null | openssl "
            "x509 -noout -fingerprint -sha256"
        ),
    ),
    "a misspelt key": (
        f"{VBO1}credentials = {{ username = 'u', passwort.env = 'VBO_PASSWORD' }}",
        "fleet.toml: servers.vbo1.credentials: unknown key 'passwort'; did you mean 'password'?",
    ),
    "a key in the wrong table": (
        f"{GOOD}passwort.env = 'VBO_PASSWORD'",
        "fleet.toml: servers.vbo1: unknown key 'passwort'; did you mean 'credentials.password'?",
    ),
    "a key of a server in the place of its name": (
        f"{GOOD}\n[servers.tls]\npin = '{'ab' * 32}'",
        (
            "fleet.toml: servers.tls: belongs to a server or to [defaults], such as "
            'vbo1 = { url = "vbo1.tech.local", tls = { … } }'
        ),
    ),
    "a key like no other": (
        f"{GOOD}colour = 'red'",
        (
            "fleet.toml: servers.vbo1: unknown key 'colour'; expected credentials, tls, api_version, "
            "allow_http, proxy, labels, url or group"
        ),
    ),
    "a misspelt table": (
        "[server.vbo1]\nurl = 'vbo1'",
        "fleet.toml: unknown key 'server'; did you mean 'servers'?",
    ),
    "no TOML": (
        f"{GOOD}\n[fleet]\nretries 3",
        "fleet.toml, line 6: Expected '=' after a key in a key/value pair",
    ),
    "a bare backslash": (
        f'{VBO1}credentials.username = "TECH\\monitor"',
        (
            "fleet.toml, line 3: Unescaped '\\' in a string; a backslash is written twice, or the text "
            "between single quotes"
        ),
    ),
    "a tab where a backslash was meant": (
        f'{VBO1}credentials = {{ username = "TECH\\tom", password.env = "VBO_PASSWORD" }}',
        (
            "fleet.toml: servers.vbo1.credentials.username: has a control character; between double quotes a "
            "backslash is written twice: DOMAIN\\\\user"
        ),
    ),
    "a text for a whole number": (
        f"{GOOD}[fleet]\nretries = 'three'",
        "fleet.toml: fleet.retries: expected a whole number, not 'three'",
    ),
    "a text for seconds": (
        f"{GOOD}[fleet]\ndeadline = '60 s'",
        "fleet.toml: fleet.deadline: expected a number of seconds, not '60 s'",
    ),
    "no limit at all": (
        f"{GOOD}[fleet]\ndeadline = inf",
        "fleet.toml: fleet.deadline: expected a number of seconds, not inf",
    ),
    "a limit out of bounds": (
        f"{GOOD}[fleet]\nconnections = 0",
        "fleet.toml: fleet.connections: is a whole number of at least 1, not 0",
    ),
    "a text for true": (
        f"{GOOD}tls.insecure = 'yes'",
        "fleet.toml: servers.vbo1.tls.insecure: expected true or false, not a text",
    ),
    "a text for a table": (
        f"{GOOD}tls = 'ca.pem'",
        "fleet.toml: servers.vbo1.tls: expected a table, not a text",
    ),
    "two ways to trust": (
        f"{GOOD}tls = {{ ca_file = 'ca.pem', insecure = true }}",
        "fleet.toml: servers.vbo1.tls: TLS takes one of ca_file, pin and insecure: each replaces the others",
    ),
    "a secret in plain text": (
        f"{VBO1}credentials.token = '0123456789'",
        (
            "fleet.toml: servers.vbo1.credentials.token: a secret in plain text; expected { env = ... }, "
            "{ file = ... } or { keyring = ... }, or allow_literal_secrets = true at the top"
        ),
    ),
    "two places of one secret": (
        f"{VBO1}credentials.token = {{ env = 'VBO_TOKEN', file = 'token' }}",
        "fleet.toml: servers.vbo1.credentials.token: expected one of env, file and keyring",
    ),
    "two ways to log in": (
        f"{GOOD}credentials.username = 'u'",
        (
            "fleet.toml: servers.vbo1.credentials: expected username and password, or token, or client_id "
            "and assertion, or integration_token"
        ),
    ),
    "half a login": (
        f"{VBO1}credentials.username = 'u'",
        "fleet.toml: servers.vbo1.credentials.password: missing",
    ),
    "no login": (
        VBO1,
        "fleet.toml: servers.vbo1.credentials: missing; expected here, in its group or in [defaults]",
    ),
    "no URL": (f"[servers.vbo1]\n{TOKEN}", "fleet.toml: servers.vbo1.url: missing"),
    "a URL that is none": (
        f"[servers.vbo1]\nurl = 'ftp://vbo1'\n{TOKEN}",
        (
            "fleet.toml: servers.vbo1.url: 'ftp://vbo1' is no server URL: expected https://host or "
            "https://host:port"
        ),
    ),
    "http without leave": (
        f"[servers.vbo1]\nurl = 'http://vbo1'\n{TOKEN}",
        (
            "fleet.toml: servers.vbo1.url: http:// sends the password unencrypted; expected https://, or "
            "allow_http = true"
        ),
    ),
    "an unknown group": (
        f"{GOOD}group = 'athen'\n[groups.athens]",
        "fleet.toml: servers.vbo1.group: no group is called 'athen'; did you mean 'athens'?",
    ),
    "an API version of the future": (
        f"{GOOD}api_version = 'v99'",
        "fleet.toml: servers.vbo1.api_version: expected one of auto, v4, v5, v6, v7, v8",
    ),
    "a label that is no text": (
        f"{GOOD}labels.tier = 1",
        "fleet.toml: servers.vbo1.labels.tier: expected a text, not a whole number",
    ),
    "a name with dots": (
        "[servers.vbo1.tech.local]\nurl = 'vbo1.tech.local'",
        'fleet.toml: servers.vbo1: a name with dots is quoted: [servers."vbo1.tech.local"]',
    ),
    "a name that needs quotes": (
        f"[servers.'vbo1.tech.local']\nurl = 5\n{TOKEN}",
        'fleet.toml: servers."vbo1.tech.local".url: expected a text, not a whole number',
    ),
    "no server": (
        "[fleet]\nretries = 3",
        "fleet.toml: no server; expected at least one table [servers.NAME]",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_by_file_key_and_what_was_expected(mistake: str, write: Write) -> None:
    """Each in a line of its own, and nothing else is complained of."""
    text, expected = MISTAKES[mistake]
    with pytest.raises(ConfigError) as caught:
        Fleet.from_toml(write(text))
    assert str(caught.value) == expected


def test_all_mistakes_are_reported_at_once(write: Write) -> None:
    """A line each, those of the defaults only once although every server has them."""
    file = write(f"""
    defaults.credentials.token = {{}}
    groups.lab.tls.pin = ["{PIN}", 7, "xyz"]
    fleet = {{ retries = -1, concurency = 5 }}
    [servers.vbo1]
    uri = "vbo1"
    [servers.vbo2]
    url = "http://vbo2"
    group = "lap"
    [servers.vbo3]
    url = "vbo3"
    credentials.token.env = "VBO_TOKEN"
    """)
    with pytest.raises(ConfigError) as caught:
        Fleet.from_toml(file)
    assert str(caught.value).splitlines() == [
        "fleet.toml: fleet: unknown key 'concurency'; did you mean 'concurrency'?",
        "fleet.toml: fleet.retries: is a whole number of at least 0, not -1",
        "fleet.toml: defaults.credentials.token: expected one of env, file and keyring",
        "fleet.toml: groups.lab.tls.pin.1: expected a text, not a whole number",
        (
            "fleet.toml: groups.lab.tls.pin.2: is no SHA-256 fingerprint (64 hexadecimal digits). To see it: "
            "openssl s_client -connect HOST:4443 </dev/null | openssl x509 -noout -fingerprint -sha256"
        ),
        "fleet.toml: servers.vbo1: unknown key 'uri'; did you mean 'url'?",
        "fleet.toml: servers.vbo2.group: no group is called 'lap'; did you mean 'lab'?",
    ]


TWO_MISTAKES = {
    "no login and http": (
        "[servers.a]\nurl = 'http://a'",
        ["servers.a.credentials: missing", "servers.a.url: http:// sends the password unencrypted"],
    ),
    "an invalid URL and no login": (
        "[servers.a]\nurl = 'ftp://a'",
        ["servers.a.url: 'ftp://a' is no server URL", "servers.a.credentials: missing"],
    ),
    "an invalid key and an unknown group": (
        f"{GOOD}api_version = 'v99'\ngroup = 'lab'",
        ["servers.vbo1.api_version: expected one of", "servers.vbo1.group: no group is called 'lab'"],
    ),
    "invalid defaults and http": (
        f"[defaults]\ntls.pin = 5\n[servers.a]\nurl = 'http://a'\n{TOKEN}",
        ["defaults.tls.pin: expected a text", "servers.a.url: http:// sends the password unencrypted"],
    ),
    "invalid defaults and one server twice": (
        f"[defaults]\n{TOKEN}tls.pin = 5\n[servers.a]\nurl = 'a'\n[servers.b]\nurl = 'a'",
        ["defaults.tls.pin: expected a text", "servers.b: 'b' is the same server as 'a'"],
    ),
    "an invalid pin beside another trust": (
        f"{GOOD}tls = {{ pin = 'x', insecure = true }}",
        [
            "servers.vbo1.tls.pin: is no SHA-256",
            "servers.vbo1.tls: TLS takes one of ca_file, pin and insecure",
        ],
    ),
    "an unknown key and an invalid value of a login": (
        f"{VBO1}credentials = {{ usrname = 'u', username = 5 }}",
        [
            "servers.vbo1.credentials: unknown key 'usrname'; did you mean 'username'?",
            "servers.vbo1.credentials.username: expected a text",
        ],
    ),
    "two ways to log in, one invalid": (
        f"{GOOD}credentials.username = ''",
        [
            "servers.vbo1.credentials: expected username and password, or token",
            "servers.vbo1.credentials.username: is empty; expected a user name",
        ],
    ),
    "an invalid name and no login": (
        "[servers.\"a\\nb\"]\nurl = 'a'",
        [
            "servers.\"a b\": a server's name is a line of text, not 'a\\nb'",
            'servers."a b".credentials: missing',
        ],
    ),
    "limits and servers of the wrong kind": (
        "servers = 5\nfleet.retries = -1",
        ["fleet.retries: is a whole number of at least 0", "servers: expected tables by name"],
    ),
}


@pytest.mark.parametrize("mistakes", TWO_MISTAKES)
def test_two_mistakes_are_reported_at_once(mistakes: str, write: Write) -> None:
    """Whether they are in one table or in several that add up; each is one line."""
    text, expected = TWO_MISTAKES[mistakes]
    with pytest.raises(ConfigError) as caught:
        Fleet.from_toml(write(text))
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith(f"fleet.toml: {part}")


async def test_a_missing_variable_fails_only_the_servers_that_need_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inventory is read, the other servers are queried, and the error names the variable and the key."""
    async with BackupServer(World(sessions=2)) as backup:
        monkeypatch.setenv("VBO_GOOD", backup.password)
        monkeypatch.delenv("VBO_MISSING", raising=False)
        text = f"""
        [defaults]
        tls.ca_file = "{backup.ca_file}"
        [servers.good]
        url = "{backup.url}"
        credentials = {{ username = '{backup.username}', password.env = "VBO_GOOD" }}
        [servers.bad]
        url = "{backup.url}"
        credentials = {{ username = 'other', password.env = "VBO_MISSING" }}
        """
        async with await asyncio.to_thread(Fleet.from_toml, write(text)) as fleet:
            result = await fleet.restore_sessions(started_after=timedelta(days=1000))
        assert [len(result.answers[name].items) for name in ("good", "bad")] == [2, 0]
        (failed,) = result.failed
        assert isinstance(failed.error, AuthenticationError)
        expected = (
            "servers.bad.credentials.password: the environment variable VBO_MISSING is missing or empty"
        )
        assert expected in failed.error.what
        assert backup.logins == 1


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (None, "fleet.toml: cannot be read: No such file or directory"),
        (b"a = 1\nb = '\xff'", "fleet.toml, line 2: is not UTF-8"),
        (b"a = " + b"[" * 9999, "fleet.toml: has too many lists or tables within each other"),
        (b"a = " + b"1" * 9999, "fleet.toml: Exceeds the limit"),
        (b"a = 1\n\na = 2\n\n", "fleet.toml, line 3: Cannot overwrite a value"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(contents: bytes | None, words: str, write: Write) -> None:
    """Missing, or no TOML in one way or another."""
    file = write("")
    file.unlink() if contents is None else file.write_bytes(contents)
    with pytest.raises(ConfigError) as caught:
        Fleet.from_toml(file)
    assert str(caught.value).startswith(words)


def test_a_file_from_windows_is_read(write: Write) -> None:
    """With a byte order mark, and carriage returns."""
    file = write("")
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert list(Fleet.from_toml(file)) == ["vbo1"]
