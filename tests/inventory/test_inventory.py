"""An inventory: a file becomes a fleet, and the error of every mistake names its key."""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from harness.backups import asked, server_of
from harness.canary import Canary
from harness.readme import PAGES, blocks
from hypothesis import given
from hypothesis import strategies as st

from aiovbo import TLS, Assertion, AuthenticationError, Bearer, Client, ConfigError, Fleet, Password, Server
from aiovbo._inventory.reader import Inventory, inventory_of, read_inventory
from aiovbo._inventory.schema import inventory_schema
from aiovbo._settings.limits import FleetOptions, Limits
from aiovbo.testing import BackupServer

Write = Callable[[str], Path]
SCHEMA = inventory_schema()
PIN = "sha256:" + "ab" * 32
LOGIN = {"token": {"env": "VBO_TOKEN"}}


# ------------------------------------------------------------------------------------------ merging


def test_a_server_takes_what_it_does_not_say_from_its_group_and_then_from_the_defaults(write: Write) -> None:
    """Key by key, each as a whole: a pin of a server's own is not mixed with its group's authorities."""
    inventory = read_inventory(
        write(
            """
        [defaults]
        credentials = { username = 'TECH\\monitor', password = { env = "VBO_PASSWORD" } }
        tls = { ca_file = "defaults.pem", client_cert = "we.pem", strict_x509 = false }
        api_version = "v6"

        [groups.lab]
        tls = { ca_file = "lab.pem" }
        allow_http = true

        [servers.plain]
        url = "plain.tech.local"

        [servers.grouped]
        url = "http://grouped.tech.local:9191/prefix"
        group = "lab"

        [servers.own]
        url = "own.tech.local"
        group = "lab"
        api_version = "v8"
        allow_http = false
        tls.pin = "PIN"
        credentials.token.env = "VBO_TOKEN"
        """.replace("PIN", PIN)
        )
    )
    plain, grouped, own = inventory.servers
    here = Path.cwd()
    assert [server.name for server in inventory.servers] == ["plain", "grouped", "own"]
    assert str(plain.url) == "https://plain.tech.local:4443"
    assert plain.tls == TLS(ca_file=here / "defaults.pem", client_cert=here / "we.pem", strict_x509=False)
    assert (plain.api_version, plain.allow_http) == ("v6", False)
    assert isinstance(plain.credentials, Password)
    assert plain.credentials.username == "TECH\\monitor"
    assert str(grouped.url) == "http://grouped.tech.local:9191/prefix"
    assert grouped.tls == TLS(ca_file=here / "lab.pem")
    assert (grouped.api_version, grouped.allow_http) == ("v6", True)
    assert grouped.credentials == plain.credentials
    assert own.tls == TLS(pin=PIN)
    assert (own.api_version, own.allow_http) == ("v8", False)
    assert isinstance(own.credentials, Bearer)
    assert inventory.options == {}


def test_labels_are_added_up_and_the_nearest_one_wins() -> None:
    """A server keeps its group's and the defaults' labels beside its own."""
    inventory = inventory_of(
        {
            "defaults": {
                "credentials": {"token": {"env": "PATH"}},
                "labels": {"site": "athens", "tier": "1"},
            },
            "groups": {"lab": {"labels": {"tier": "2", "owner": "qa"}}},
            "servers": {
                "vbo1": {"url": "vbo1", "group": "lab", "labels": {"owner": "ops"}},
                "vbo2": {"url": "vbo2"},
            },
        }
    )
    labels = [dict(server.labels) for server in inventory.servers]
    assert labels == [{"site": "athens", "tier": "2", "owner": "ops"}, {"site": "athens", "tier": "1"}]


def test_labels_cannot_be_changed_and_count_when_servers_are_compared() -> None:
    """A server stays a value that can be hashed, whatever was handed in."""
    given_labels = {"site": "athens"}
    server = Server("vbo1", Bearer("t"), labels=given_labels)
    given_labels["site"] = "sparta"
    assert server.labels == {"site": "athens"}
    assert server == Server("vbo1", Bearer("t"), labels={"site": "athens"})
    assert (
        len({server, Server("vbo1", Bearer("t"), labels={"site": "athens"}), Server("vbo1", Bearer("t"))})
        == 2
    )
    assert repr(server.labels) == "{'site': 'athens'}"
    with pytest.raises(TypeError):
        server.labels["site"] = "sparta"  # type: ignore[index]  # what must not work
    for wrong in ({"site": 1}, {1: "site"}, ["site"], "site", None):
        with pytest.raises(ConfigError, match="labels are texts by name"):
            Server("vbo1", Bearer("t"), labels=wrong)  # type: ignore[arg-type]  # the same


def test_the_same_credentials_are_the_same_wherever_they_are_written(write: Write) -> None:
    """So that the guard against lock-outs counts their refusals together."""
    servers = "".join(
        f"""
        [servers.vbo{n}]
        url = "vbo{n}"
        credentials = {{ username = "u", password = {{ file = "{file}" }} }}
        """
        for n, file in enumerate(["secret", "./secret", "other"])
    )
    one, two, three = (server.credentials for server in read_inventory(write(servers)).servers)
    assert one == two
    assert hash(one) == hash(two)
    assert one != three


def test_fleet_options_are_the_files_and_what_is_said_in_code_comes_first(write: Write) -> None:
    """All of them reach the fleet; each is an argument of `Fleet`, with the same default."""
    file = write("""
    fleet = { retries = 5, deadline = 90, strict = true, concurrency = 7, lockout_guard = 2 }
    [servers.vbo1]
    url = "vbo1"
    credentials.token.env = "VBO_TOKEN"
    """)
    expected = {"retries": 5, "deadline": 90.0, "strict": True, "concurrency": 7, "lockout_guard": 2}
    assert read_inventory(file).options == expected
    fleet = Fleet.from_toml(file, retries=0)
    assert (fleet._options.retries, fleet._options.deadline, fleet._options.strict) == (0, 90.0, True)
    signature = inspect.signature(Fleet).parameters
    arguments = {p.name: p.default for p in signature.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    limits = {name: getattr(Limits(), name) for name in FleetOptions.__annotations__}
    assert limits == {
        name: arguments[name]
        for name in arguments
        if name not in {"tls", "proxy", "http", "observer", "clock", "token_store", "transport"}
    }


# ------------------------------------------------------------------------------------------ secrets

KEPT = {
    "env": '{ env = "VBO_SECRET" }',
    "file": '{ file = "secrets/vbo" }',
    "keyring": '{ keyring = "backup/operators/monitor" }',
    "literal": '"%s"',
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize(
    "login", ["username = '{}', password", "token", "client_id = 'app', assertion", "integration_token"]
)
async def test_every_kind_of_secret_logs_on_to_a_real_server(
    kind: str, login: str, write: Write, monkeypatch: pytest.MonkeyPatch, canary: Canary
) -> None:
    """From wherever it is kept, for each way to log in; a file's last line break is not part of it."""
    keyring: dict[tuple[str, str], str] = {}
    # v6 does not log out, so that a token is good after the client that obtained it.
    async with BackupServer(
        version="v6", assertions={"app": "a-signed-assertion"}, integration_token="a-signed-assertion"
    ) as backup:
        secret = backup.password if "password" in login else "a-signed-assertion"
        if login == "token":
            async with Client(server_of(backup)) as client:
                await client.restore_sessions()
            secret = backup.requests[-1].token
        canary.watch(secret)
        monkeypatch.setenv("VBO_SECRET", secret)
        Path("secrets").mkdir()
        Path("secrets/vbo").write_text(f"{secret}\r\n", encoding="utf-8-sig")
        keyring["backup/operators", "monitor"] = secret
        file = write(
            f"""
            allow_literal_secrets = {str(kind == "literal").lower()}
            defaults.tls.ca_file = "{backup.ca_file}"
            [servers.vbo1]
            url = "{backup.url}"
            credentials = {{ {login.format(backup.username)} = {KEPT[kind].replace("%s", secret)} }}
            """
        )

        def look_up(service: str, username: str) -> str | None:
            return keyring.get((service, username))

        inventory = await asyncio.to_thread(read_inventory, file, keyring=look_up)
        monkeypatch.chdir("/")
        already = asked(backup)
        async with Fleet(inventory.servers, **inventory.options) as fleet:
            assert len((await fleet.restore_sessions()).items) == 40
        assert asked(backup) == already + 1
        canary.assert_absent(inventory, fleet)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\n\n"])
async def test_a_line_break_at_the_end_of_an_env_secret_is_not_sent(
    line_break: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `echo` writes it into a variable; other white space is part of the secret."""
    async with BackupServer(tls=False, password=" spaced ") as backup:
        monkeypatch.setenv("VBO_SECRET", f" spaced {line_break}")
        file = write(f"""
        [servers.vbo1]
        url = "{backup.url}"
        allow_http = true
        credentials = {{ username = '{backup.username}', password.env = "VBO_SECRET" }}
        """)
        async with await asyncio.to_thread(Fleet.from_toml, file) as fleet:
            assert len((await fleet.restore_sessions()).items) == 40
        assert backup.refused_logins == 0


async def test_a_secret_is_read_anew_when_it_was_refused(write: Write) -> None:
    """As where a password was changed, and with it the file that holds it."""
    async with BackupServer() as backup:
        secret = Path("secret")
        secret.write_text("an old one")
        file = write(f"""
        [servers.vbo1]
        url = "{backup.url}"
        tls.ca_file = "{backup.ca_file}"
        credentials = {{ username = '{backup.username}', password.file = "secret" }}
        """)
        async with await asyncio.to_thread(Fleet.from_toml, file, login_cooldown=0) as fleet:
            assert len((await fleet.restore_sessions()).failed) == 1
            secret.write_text(backup.password)
            assert len((await fleet.restore_sessions()).items) == 40


PROGRAM = """
import asyncio
from aiovbo import Fleet

async def main():
    async with Fleet.from_toml("fleet.toml", deadline=0.3) as fleet:
        print(*[answer.error for answer in (await fleet.restore_sessions()).failed])

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file without an end")
async def test_a_secret_that_cannot_be_read_to_its_end_does_not_keep_the_program(write: Write) -> None:
    """As on a network drive that is gone: its server fails, and the program ends."""
    write("""
    [servers.vbo1]
    url = "vbo1"
    api_version = "v8"
    credentials = { username = "u", password.file = "endless" }
    """)
    os.mkfifo("endless")
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            said, complaints = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()
    assert (complaints, program.returncode) == (b"", 0)
    assert b"the provider of its password failed" in said


async def test_a_secret_that_is_gone_when_it_is_needed_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place and the key; nothing is sent."""
    Path("empty").touch()
    Path("bytes").write_bytes(b"\xff\xfe")
    here = Path.cwd()
    kept = {
        '{ file = "nowhere" }': f"the file {here / 'nowhere'} cannot be read: No such file or directory",
        '{ file = "empty" }': f"the file {here / 'empty'} is missing or empty",
        '{ file = "bytes" }': f"the file {here / 'bytes'} is not UTF-8",
        '{ env = "VBO_TOKEN" }': "the environment variable VBO_TOKEN is missing or empty",
        '{ keyring = "vbo/monitor" }': "the keyring's entry vbo/monitor is missing or empty",
        '{ keyring = "locked/monitor" }': "the keyring's entry locked/monitor cannot be read: RuntimeError",
    }

    def keyring(service: str, username: str) -> str | None:
        if service == "locked":
            raise RuntimeError(username)
        return None

    async with BackupServer() as backup:
        for place, expected in kept.items():
            monkeypatch.setenv("VBO_TOKEN", "0123456789")
            file = write(f"""
            [defaults]
            credentials.token = {place}
            [servers.vbo1]
            url = "{backup.url}"
            api_version = "v8"
            tls.ca_file = "{backup.ca_file}"
            """)
            inventory = await asyncio.to_thread(read_inventory, file, keyring=keyring)
            monkeypatch.delenv("VBO_TOKEN")
            async with Fleet(inventory.servers) as fleet:
                (answer,) = (await fleet.restore_sessions()).failed
            assert isinstance(answer.error, AuthenticationError)
            assert f"(fleet.toml: defaults.credentials.token: {expected})" in answer.error.what
            assert answer.error.__context__ is None
        assert backup.requests == []


def test_a_keyring_needs_its_package(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported at once, with the command that installs it. Other inventories do not need it."""
    monkeypatch.setattr(sys, "path", [])
    file = write("""
    [servers.vbo1]
    url = "vbo1"
    credentials.token.keyring = "vbo/monitor"
    """)
    with pytest.raises(ConfigError, match=r"token: the package keyring is missing: .*\[keyring\]"):
        Fleet.from_toml(file)


LITERAL = """
allow_literal_secrets = true
[servers.vbo1]
url = "vbo1"
credentials = { token = "0123456789" }
"""


@pytest.mark.skipif(os.name != "posix", reason="files have no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o622])
def test_secrets_in_a_file_that_others_may_read_are_warned_of(
    mode: int, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """Only then, and not where they are kept elsewhere."""
    caplog.set_level(logging.INFO, "aiovbo.inventory")
    write(LITERAL).chmod(mode)
    Fleet.from_toml("fleet.toml")
    warned = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    warning = "fleet.toml: others may read the secrets in it; chmod 600 it"
    assert warned == ([("aiovbo.inventory", "WARNING", warning)] if mode & 0o044 else [])
    caplog.clear()
    write(LITERAL.replace('"0123456789"', '{ env = "VBO_TOKEN" }')).chmod(mode)
    Fleet.from_toml("fleet.toml")
    assert not caplog.records


@pytest.mark.parametrize("allowed", ["true", "false"])
def test_no_mistake_shows_a_secret(allowed: str, write: Write, canary: Canary) -> None:
    """Whatever is wrong around it: not in the text, nor in what a debugger shows of our frames."""
    secret = canary.watch("c4n4ry-c4n4ry")
    for credentials in (
        f'"{secret}"', f'["{secret}"]', f'{{ token = "{secret}", operator = "{secret}" }}',
        f'{{ tokken = "{secret}" }}', f'{{ password = "{secret}" }}', f'{{ token = ["{secret}"] }}',
        f'{{ token = {{ env = "{secret}" }} }}', f'{{ token = {{ env = ["{secret}"] }} }}',
        f'{{ token = {{ value = "{secret}" }} }}', f'{{ token = {{ keyring = "{secret}" }} }}',
        f'{{ token = {{ env = "VBO_TOKEN", file = "{secret}" }} }}', f'{{ token = "{secret}"',
        f'{{ client_id = "x", assertion = "{secret}", operator = "{secret}" }}', secret,
        f'{{ username = "{secret}\\t", password = "{secret}" }}', f'{{ token = "{secret}" }}\nretries = 1',
    ):  # fmt: skip
        text = f"allow_literal_secrets = {allowed}\n[servers.vbo1]\nurl = 'vbo1'\n"
        with pytest.raises(ConfigError) as caught:
            Fleet.from_toml(write(f"{text}credentials = {credentials}\n"))
        canary.assert_absent(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None


# ----------------------------------------------------------------------------------------- mistakes

VBO1 = '[servers.vbo1]\nurl = "vbo1"\n'


# ------------------------------------------------------------------------------------------- schema

FULL: dict[str, Any] = {
    "allow_literal_secrets": True,
    "fleet": {
        "deadline": 30, "connect_timeout": 2.5, "read_timeout": 5, "retries": 0, "concurrency": 10,
        "connections": 2, "max_body": 1000, "login_cooldown": 0, "lockout_guard": 1, "strict": True,
    },
    "defaults": {
        "credentials": {"username": "u", "password": "p"}, "tls": {"ca_file": "ca.pem", "strict_x509": False},
        "api_version": "v7", "allow_http": False, "labels": {"site": "athens"},
    },
    "groups": {
        "lab": {"credentials": {"client_id": "c", "assertion": {"file": "jwt"}, "operator": True}},
        "mtls": {"tls": {"pin": [PIN, PIN], "client_cert": "we.pem", "client_key": "we.key"}},
    },
    "servers": {
        "vbo1": {"url": "vbo1", "group": "lab", "tls": {"insecure": True}},
        "vbo2": {"url": "http://vbo2", "group": "mtls", "allow_http": True, "api_version": "auto"},
        "vbo3": {"url": "vbo3", "credentials": {"token": {"env": "PATH"}}, "tls": {"pin": PIN}},
    },
}  # fmt: skip

BAD: list[tuple[str, object]] = [
    ("retries", {}), ("fleet", {"retries": -1}), ("fleet", {"deadline": 0}), ("fleet", {"retries": "3"}),
    ("fleet", {"clock": {}}), ("defaults", {"url": "vbo1"}), ("defaults", {"api_version": "v3"}),
    ("defaults", {"labels": {"tier": 1}}), ("defaults", {"credentials": {}}),
    ("defaults", {"credentials": {"username": "u"}}), ("groups", {"lab": {"group": "lab"}}),
    ("defaults", {"credentials": {"token": "t", "username": "u", "password": "p"}}),
    ("defaults", {"credentials": {"token": {}}}), ("defaults", {"tls": {"pin": 5}}),
    ("defaults", {"credentials": {"token": {"env": "PATH", "file": "x"}}}),
    ("defaults", {"tls": {"pins": []}}), ("servers", {}), ("servers", {"vbo1": {}}), ("servers", []),
]  # fmt: skip


def valid(document: object) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def test_a_good_inventory_fits_the_schema() -> None:
    """One in which every key is used, at that."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert valid(FULL)
    assert len(inventory_of(FULL).servers) == 3


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_bad_inventory_does_not_fit_the_schema(key: str, value: object) -> None:
    """Nor is it read."""
    document = {**FULL, key: value}
    assert not valid(document)
    with pytest.raises(ConfigError):
        inventory_of(document)


def tables(schema: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], dict[str, Any]]:
    """The properties of every table in a schema, by the keys that lead there; NAME stands for any name."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in [schema, *schema.get("anyOf", [])]:
        if "properties" in one:
            found[path] = {**found.get(path, {}), **one["properties"]}
            for key, inner in one["properties"].items():
                found |= tables(inner, (*path, key))
        elif isinstance(one.get("additionalProperties"), dict):
            found |= tables(one["additionalProperties"], (*path, "NAME"))
        elif one is not schema:
            found |= tables(one, path)
    return found


TABLES = tables(SCHEMA)


@pytest.mark.parametrize("path", TABLES, ids=".".join)
def test_the_schema_has_the_keys_that_are_read_and_no_others(path: tuple[str, ...]) -> None:
    """Each table is tried with every key of all tables; each key of the schema has a description."""
    candidates = {key for properties in TABLES.values() for key in properties} | {"clock", "name", "http"}
    read = set()
    for key in candidates:
        document: dict[str, Any] = {key: object()}
        for name in reversed(path):
            document = {name: document}
        with pytest.raises(ConfigError) as caught:
            inventory_of(document)
        if f"unknown key '{key}'" not in str(caught.value):
            read.add(key)
    assert read == set(TABLES[path])
    assert all(len(text["description"]) > 15 for text in TABLES[path].values())


# ----------------------------------------------------------------------------------------- anything

WORDS = sorted({key for properties in TABLES.values() for key in properties})
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.just(5000).map(lambda digits: 10**digits)
    | st.sampled_from(["vbo1", "http://vbo1", "v8", "PATH", "a/b", PIN, "lab", 2**63, b"bytes"])
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def nearly_good(draw: st.DrawFn) -> Any:
    """The full inventory with up to two values replaced, added or taken away, at any depth."""
    document = deepcopy(FULL)
    for _ in range(draw(st.integers(0, 2))):
        table = document
        key = draw(st.sampled_from(list(table)))
        while isinstance(table[key], dict) and table[key] and draw(st.integers(0, 4)):
            table = table[key]
            key = draw(st.sampled_from(list(table)))
        change = draw(st.sampled_from(["replace", "add", "drop"]))
        if change == "drop":
            del table[key]
        else:
            table[key if change == "replace" else draw(st.sampled_from(WORDS))] = draw(ANYTHING)
    return document


@given(
    nearly_good() | st.dictionaries(st.sampled_from(WORDS) | st.text() | st.integers(), ANYTHING) | ANYTHING
)
def test_whatever_is_in_a_mapping_it_gives_a_fleet_or_says_what_is_wrong(document: Any) -> None:
    """Nothing else is ever raised; what gives a fleet fits the schema too."""
    fleet, complaint = None, ""
    try:
        fleet = Fleet.from_mapping(document)
    except ConfigError as error:
        complaint = str(error)
    if fleet is None:
        assert complaint
        assert all(line.startswith("inventory: ") for line in complaint.splitlines())
    else:
        assert list(fleet) == list(document["servers"])
        assert valid(document)


def test_the_inventory_of_the_docs_is_read_as_printed(write: Write) -> None:
    """And means what the page states."""
    text, *_ = blocks("toml", PAGES["inventory"])
    inventory: Inventory = read_inventory(write(text))
    fleet = Fleet.from_toml("fleet.toml")
    one, two, lab = inventory.servers
    assert list(fleet) == ["vbo1", "vbo2", "lab"]
    assert one.tls == two.tls == TLS(ca_file=Path.cwd() / "authorities.pem")
    assert one.credentials == two.credentials
    assert isinstance(lab.credentials, Assertion)
    assert lab.tls.pin
    assert dict(two.labels) == {"tenant": "contoso", "site": "athens"}
    assert inventory.options == {"deadline": 30.0}
