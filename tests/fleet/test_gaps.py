"""What the SDK must do and does not yet: each test fails today, and its reason says how."""

import asyncio
import os
import ssl
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import RawServer, json_answer, send, stall, tls
from harness.backups import server_of
from harness.watches import FAST, NOW, take

from aiovbo import (
    TLS,
    Bearer,
    Client,
    ConfigError,
    Fleet,
    MemoryCheckpoint,
    Password,
    RestoreSession,
    Server,
    UnreachableError,
)
from aiovbo.models import Model
from aiovbo.testing import BackupServer, World

LISTING = json_answer({"results": [], "_links": {}})


@frozen(kw_only=True)
class Proxy(Model):
    """A model of the caller's own, for a resource that the SDK has no class for."""

    id: str
    name: str | None = None


@frozen(kw_only=True)
class Annotated(RestoreSession):
    """A session with a member that only the caller knows."""

    note: str | None = None


@pytest.mark.parametrize("model", [Proxy, Annotated, Model])
async def test_a_model_of_the_callers_own_can_be_fetched_and_queried(model: type[Any]) -> None:
    """Its fields are filled as those of the SDK's models are."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=2)) as backup,
        Client(server_of(backup)) as client,
    ):
        one = await client.fetch(f"RestoreSessions/{backup.world.sessions[0].id}", model)
        assert isinstance(one, model)
        several = await client.query("RestoreSessions", model)
        assert [type(item) for item in several] == [model, model]


@dataclass
class Vault:
    """Provides a secret; as a dataclass that can be compared, it has no hash."""

    path: str

    async def __call__(self) -> str:
        """The secret."""
        return self.path


async def test_a_secret_provider_needs_no_hash() -> None:
    """A fleet takes it as a client does, and logs in with it."""
    async with BackupServer(World(now=NOW, speed=0, sessions=2)) as backup:
        login = Password(backup.username, Vault(backup.password))
        async with Fleet([server_of(backup, credentials=login)]) as fleet:
            assert len((await fleet.restore_sessions()).items) == 2


class SlowStore(MemoryCheckpoint):
    """Saves only when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.saving = asyncio.Event()
        self.may_save = asyncio.Event()

    async def save(self, *arguments: Any) -> None:
        """Wait, then save."""
        self.saving.set()
        await self.may_save.wait()
        await super().save(*arguments)


async def test_a_server_that_joins_while_a_watch_closes_is_not_watched() -> None:
    """After the watch is closed it has no task and sends no request."""
    store = SlowStore()
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v6", name="early") as early,
        BackupServer(World(now=NOW, speed=0, sessions=0), version="v6", name="late") as late,
        Fleet([server_of(early, name="early")]) as fleet,
    ):
        early.world.add(creation_time=NOW, end_time=None)
        store.may_save.set()
        changes = fleet.watch(every=FAST, checkpoint=store, ack="manual")
        await changes.__aenter__()
        (change,) = await take(changes, 1)
        store.saving.clear()
        store.may_save.clear()
        changes.ack(change)
        async with asyncio.timeout(10):
            await store.saving.wait()
        closing = asyncio.create_task(changes.aclose())
        for _ in range(10):
            await asyncio.sleep(0)
        fleet.add(server_of(late, name="late"))
        store.may_save.set()
        await closing
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any(name.endswith("watch late") for name in names)


async def test_one_query_can_be_entered_twice() -> None:
    """An inner block ends what was begun inside it, and no more."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=3)) as backup,
        Fleet([server_of(backup)]) as fleet,
    ):
        query = fleet.restore_sessions()
        async with query:
            seen = 0
            async for _ in query:
                async with query:
                    seen += 1
        assert seen == 3


async def test_a_query_to_one_server_can_be_entered() -> None:
    """As a query to a fleet."""
    async with (
        BackupServer(World(now=NOW, speed=0, sessions=3)) as backup,
        Client(server_of(backup)) as client,
        client.restore_sessions() as query,
    ):
        assert len([session async for session in query]) == 3


async def test_a_server_that_is_removed_is_logged_out_of() -> None:
    """Its token does not stay valid for an hour."""
    async with BackupServer(World(now=NOW, speed=0, sessions=3)) as backup:
        async with Fleet([server_of(backup, name="vbo")]) as fleet:
            await fleet.restore_sessions()
            fleet.remove("vbo")
        assert [request.path for request in backup.requests if request.path.endswith("/logout")]


ODD_ADDRESSES = [
    "https://127.1",
    "https://2130706433",
    "https://0177.0.0.1",
    "https://127.0.0.1.",
    "https://0",
    "https://256.256.256.256",
    "https://1.2.3.4.5",
    "h:4443:4443",
    'https://a"b',
    "https://h%0a",
    "https://a<b>",
    "https://" + ".".join(["a" * 60] * 5),
]


@pytest.mark.parametrize("url", ODD_ADDRESSES, ids=lambda url: url[:40])
def test_an_address_that_can_never_be_reached_is_refused_at_once(url: str) -> None:
    """Not by a failure without a hint when it is queried."""
    with pytest.raises(ConfigError):
        Server(url, Bearer("t"), api_version="v8")


@pytest.mark.parametrize("zone", ["%lo", "%25lo"])
async def test_an_ipv6_address_with_a_scope_is_connected_to(zone: str) -> None:
    """As RFC 6874 writes it in a URL, and as people do."""
    async with RawServer({("GET", "/v8/RestoreSessions"): LISTING}, host="::1") as raw:
        server = Server(f"http://[::1{zone}]:{raw.port}", Bearer("t"), api_version="v8", allow_http=True)
        async with Client(server, retries=0) as client:
            assert (await client.restore_sessions().answer()).error is None
        # Another machine does not know the names of this one's interfaces.
        assert raw.requests[0].headers["Host"] == f"[::1]:{raw.port}"


async def test_an_address_with_an_unknown_interface_is_reported_as_such() -> None:
    """It is no name that a name server could know."""
    server = Server("http://[fe80::1%nosuch0]", Bearer("t"), api_version="v8", allow_http=True)
    async with Client(server) as client:
        with pytest.raises(UnreachableError, match=r"no network interface nosuch0 .*after '%'") as caught:
            await client.restore_sessions()
    assert not caught.value.retryable


PROGRAM = """
import asyncio, os, resource, sys
from aiovbo import TLS, Bearer, Fleet, Server

url, ca_file = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def open_files():
    return len(os.listdir("/dev/fd"))

async def main():
    tls, peak = TLS(ca_file=ca_file), 0
    servers = [Server(url, Bearer(f"t{n}"), name=f"vbo{n}", api_version="v8", tls=tls) for n in range(60)]

    def observe(_):
        nonlocal peak
        peak = max(peak, open_files())

    async with Fleet(servers, retries=0, observer=observe) as fleet:
        result = await fleet.restore_sessions()
    print(len(result.failed), peak)

asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="open files cannot be counted here")
async def test_the_limit_of_open_files_counts_sockets_until_they_are_closed() -> None:
    """The files that belong to the rest of the application stay free, however many servers there are."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(LISTING)
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.good().context) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, url, tls.good().ca_file),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    failed, peak = map(int, out.split())
    assert failed == 0
    # Of 64 files, 32 are left to the application.
    assert peak <= 32


async def test_a_line_break_at_the_end_of_a_secret_in_the_environment_is_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of a secret in a file."""
    async with BackupServer(World(now=NOW, speed=0, sessions=2)) as backup:
        monkeypatch.setenv("VBO_TEST_PASSWORD", backup.password + "\n")
        written = {
            "defaults": {"tls": {"ca_file": backup.ca_file}},
            "servers": {
                "vbo": {
                    "url": backup.url,
                    "credentials": {"username": backup.username, "password": {"env": "VBO_TEST_PASSWORD"}},
                }
            },
        }
        async with Fleet.from_mapping(written) as fleet:
            await fleet.restore_sessions()
        assert backup.refused_logins == 0


@pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_command_works_without_a_standard_stream(closed: str) -> None:
    """As a daemon starts it: it ends with the status that it has otherwise."""
    words = "sessions --url http://127.0.0.1:9 --allow-http --user u --deadline 0.1"
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "aiovbo", *words.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, "VBO_PASSWORD": "p"},
    )
    assert done.returncode in {2, 4}
    assert "Traceback" not in done.stderr


def weak_identity(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server with a key of 1,024 bits, and the file in which it is its own authority."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # it is to be too weak
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=9))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    form = PrivateFormat.TraditionalOpenSSL
    key_file.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(cert_file, key_file)
    return context, str(cert_file)


async def test_the_hint_for_a_weak_key_says_that_the_key_is_weak(tmp_path: Path) -> None:
    """To trust it does not help: it must be renewed, or pinned."""
    context, ca_file = weak_identity(tmp_path)
    async with RawServer(stall(), ssl=context) as raw:
        server = Server(raw.url, Bearer("t"), api_version="v8", tls=TLS(ca_file=ca_file))
        async with Client(server, retries=0) as client:
            error = (await client.restore_sessions().answer()).error
    assert error is not None
    assert error.hint is not None
    assert "TLS(ca_file" not in error.hint
    assert "renew" in error.hint.lower()


async def test_the_hint_for_a_server_that_speaks_http2_only_says_so() -> None:
    """Its versions and ciphers of TLS are all right."""
    no_application_protocol = bytes.fromhex("15 0303 0002 02 78")
    async with RawServer([send(no_application_protocol), stall()]) as raw:
        server = Server(f"https://127.0.0.1:{raw.port}", Bearer("t"), api_version="v8")
        async with Client(server, retries=0) as client:
            error = (await client.restore_sessions().answer()).error
    assert error is not None
    assert error.hint is not None
    assert "HTTP/2" in error.hint
    assert "versions or ciphers" not in error.hint
