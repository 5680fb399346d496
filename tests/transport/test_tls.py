"""Certificate trust: the errors distinguish every failure of a handshake, before a byte of ours is sent."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from harness import closed_port, tls
from harness.backups import beside_a_healthy_server
from harness.raw import RawServer, Step, fin, rst, send, stall, vbo_routes

from aiovbo import (
    TLS,
    Client,
    ConfigError,
    Fleet,
    Password,
    Server,
    ServerTimeoutError,
    TlsError,
    UnreachableError,
    fetch_certificate,
)

Trust = Callable[[], TLS]


def trusting_the_good() -> TLS:
    """Trust in the authority that issued the good certificate."""
    return TLS(ca_file=tls.good().ca_file)


REFUSED = {
    "other_ca": ("untrusted", "ca_file"),
    "self_signed": ("untrusted", "aiovbo pin"),
    "incomplete_chain": ("untrusted", "ca_file"),
    "expired": ("expired", "clock"),
    "not_yet_valid": ("expired", "clock"),
    "wrong_host": ("hostname", "name"),
    "no_ip_san": ("hostname", "name"),
    "cn_only": ("hostname", "name"),
    "client_cert_required": ("client_cert", "client_cert="),
    "tls11_only": ("protocol", "update"),
    "many_sans": ("protocol", "TLS"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_each_bad_certificate_has_its_reason_and_sees_no_byte_of_ours(name: str) -> None:
    """Nothing is retried, the error says what to do, and a healthy server beside it does not notice."""
    reason, hint = REFUSED[name]
    identity: tls.Identity = getattr(tls, name)()
    foreign = name in ("other_ca", "self_signed")
    trust = trusting_the_good() if foreign else TLS(ca_file=identity.ca_file)
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust, name="bad")
        async with beside_a_healthy_server(server) as fleet:
            with pytest.raises(TlsError) as caught:
                await fleet["bad"].restore_sessions()
            await asyncio.sleep(0.1)
        assert caught.value.reason == reason
        assert hint in caught.value.hint
        assert not caught.value.retryable
        assert caught.value.attempts == 1
        assert raw.received == 0


ACCEPTED: dict[str, tuple[Callable[[], tls.Identity], Trust]] = {
    "issued by a trusted authority": (tls.good, trusting_the_good),
    "a chain in reverse order": (tls.reversed_chain, lambda: TLS(ca_file=tls.reversed_chain().ca_file)),
    "self-signed and pinned": (tls.self_signed, lambda: TLS(pin=tls.self_signed().pin)),
    "expired and pinned": (tls.expired, lambda: TLS(pin=tls.expired().pin)),
    "one of two pins": (tls.good, lambda: TLS(pin=[tls.renewed().pin, tls.good().pin])),
    "anything, insecurely": (tls.self_signed, lambda: TLS(insecure=True)),
    "an old authority, not strictly": (
        tls.weak_ca,
        lambda: TLS(ca_file=tls.weak_ca().ca_file, strict_x509=False),
    ),
    "with a certificate of ours": (
        tls.client_cert_required,
        lambda: TLS(
            ca_file=tls.client_cert_required().ca_file,
            client_cert=tls.client().cert_file,
            client_key=tls.client().key_file,
        ),
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
async def test_what_is_trusted_is_asked(case: str) -> None:
    """By authority, by pin, with a certificate of ours, or insecurely."""
    identity, trust = ACCEPTED[case]
    async with RawServer(vbo_routes(), ssl=identity().context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust())
        async with Client(server) as client:
            assert await client.restore_sessions() == []


async def test_a_certificate_that_is_not_the_pinned_one_gets_no_password() -> None:
    """The error contains the new fingerprint; no byte of a request was sent."""
    async with RawServer(vbo_routes(), ssl=tls.renewed().context) as raw:
        server = Server(raw.url, Password("u", "p"), tls=TLS(pin=tls.good().pin), name="bad")
        async with beside_a_healthy_server(server) as fleet:
            with pytest.raises(TlsError) as caught:
                await fleet["bad"].restore_sessions()
            await asyncio.sleep(0.1)
        assert caught.value.reason == "pin"
        assert tls.renewed().pin in str(caught.value)
        assert raw.received == 0


async def test_an_expired_client_certificate_is_distinguished_from_one_of_the_server() -> None:
    """The server refuses it, perhaps only after the handshake (TLS 1.3)."""
    identity, ours = tls.client_cert_required(), tls.expired_client()
    trust = TLS(ca_file=identity.ca_file, client_cert=ours.cert_file, client_key=ours.key_file)
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust)
        async with Client(server) as client:
            with pytest.raises(TlsError) as caught:
                await client.restore_sessions()
        assert caught.value.reason == "client_cert"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="older Pythons are not strict by themselves")
async def test_an_authority_that_breaks_the_rules_is_refused_with_a_way_out() -> None:
    """Since Python 3.13; the error names the option."""
    identity = tls.weak_ca()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        server = Server(raw.url, Password("u", "p"), tls=TLS(ca_file=identity.ca_file))
        async with Client(server) as client:
            with pytest.raises(TlsError, match="strict_x509=False") as caught:
                await client.restore_sessions()
        assert caught.value.reason == "strict"


async def test_a_handshake_that_stalls_ends_with_the_connect_timeout() -> None:
    """As where https is spoken to a plain port that waits for a request."""
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url.replace("http:", "https:"), Password("u", "p"), name="bad")
        async with beside_a_healthy_server(server) as fleet:
            with pytest.raises(ServerTimeoutError, match="speaks https") as caught:
                await fleet["bad"].restore_sessions()
        assert caught.value.phase == "tls"


@pytest.mark.parametrize("how", [fin, rst])
async def test_a_handshake_that_is_cut_off_says_what_the_server_may_want(how: Callable[[], Step]) -> None:
    """Many servers hang up where others would say which certificate or version of TLS they miss."""
    async with RawServer([how()]) as raw:
        server = Server(raw.url.replace("http:", "https:"), Password("u", "p"), name="bad")
        async with beside_a_healthy_server(server) as fleet:
            with pytest.raises(UnreachableError, match=r"TLS handshake.*client_cert=") as caught:
                await fleet["bad"].restore_sessions()
    assert caught.value.phase == "tls"
    assert caught.value.retryable


async def test_a_plain_answer_to_a_handshake_is_no_tls() -> None:
    """The error names the usual mix-up of ports."""

    async def talk_http(connection: object) -> None:
        await connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # type: ignore[attr-defined]  # a Connection
        await connection.fin()  # type: ignore[attr-defined]

    async with RawServer(talk_http) as raw:
        server = Server(raw.url.replace("http:", "https:"), Password("u", "p"), name="bad")
        async with beside_a_healthy_server(server) as fleet:
            with pytest.raises(TlsError) as caught:
                await fleet["bad"].restore_sessions()
        assert caught.value.reason == "not_tls"


async def test_an_insecure_server_is_named_in_the_log_and_changes_no_others_trust(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its neighbour with a bad certificate is refused as ever."""
    caplog.set_level(logging.WARNING)
    async with (
        RawServer(vbo_routes(), ssl=tls.self_signed().context) as one,
        RawServer(vbo_routes(), ssl=tls.self_signed().context) as other,
    ):
        login = Password("u", "p")
        servers = [
            Server(one.url, login, api_version="v4", tls=TLS(insecure=True), name="open"),
            Server(other.url, login, api_version="v4", tls=trusting_the_good(), name="shut"),
        ]
        async with Fleet(servers) as fleet:
            result = await fleet.restore_sessions()
        assert [answer.server for answer in result.failed] == ["shut"]
        assert "open: its certificate is not checked" in caplog.text


@pytest.mark.parametrize("contents", [None, b"", b"no certificate", b"\x30\x82\x01\x0a"])
async def test_a_ca_file_that_cannot_be_used_is_named_before_anything_is_sent(
    contents: bytes | None, tmp_path: Path
) -> None:
    """Missing, empty, or not PEM."""
    file = tmp_path / "ca.pem"
    if contents is not None:
        file.write_bytes(contents)
    with pytest.raises(ConfigError, match=r"ca\.pem.*PEM"):
        async with Fleet(["vbo1"], Password("u", "p"), tls=TLS(ca_file=file)):
            pass


@pytest.mark.parametrize("fault", ["no file", "no key", "another key", "a passphrase", "a folder"])
async def test_a_certificate_of_ours_that_cannot_be_used_is_named_before_anything_is_sent(
    fault: str, tmp_path: Path
) -> None:
    """Also where its key needs a passphrase, for which it does not prompt."""
    ours, file, key = tls.client(), tmp_path / "we.pem", tmp_path / "we.key"
    file.write_bytes(Path(ours.cert_file).read_bytes())
    match fault:
        case "no file":
            file.unlink()
        case "another key":
            key.write_bytes(Path(tls.expired_client().key_file).read_bytes())
        case "a passphrase":
            plain = load_pem_private_key(Path(ours.key_file).read_bytes(), None)
            how = BestAvailableEncryption(b"secret")
            key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        case "a folder":
            key.mkdir()
    with pytest.raises(ConfigError, match=r"client_cert=.*we\.pem"):
        async with Fleet(["vbo1"], Password("u", "p"), tls=TLS(client_cert=file, client_key=key)):
            pass


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        ("ab" * 20, "SHA-1"),
        (":".join(["AB"] * 20), "SHA-1"),
        ("sha1:" + "ab" * 20, "SHA-1"),
        ("ab" * 31, "64 hexadecimal"),
        ("xyz", "64 hexadecimal"),
        ("", "64 hexadecimal"),
    ],
)
def test_what_is_no_sha256_pin_is_refused_with_the_command_that_shows_it(pin: str, words: str) -> None:
    """Windows shows SHA-1 thumbprints, which will not do."""
    with pytest.raises(ConfigError, match=words) as caught:
        TLS(pin=pin)
    assert "openssl" in str(caught.value)


@pytest.mark.parametrize(
    "pin", ["ab" * 32, "SHA256:" + "AB" * 32, "sha-256=" + ":".join(["Ab"] * 32), " ".join(["ab"] * 32)]
)
def test_a_pin_may_be_written_as_it_is_shown(pin: str) -> None:
    """With or without colons, blanks, capitals and prefix."""
    assert TLS(pin=pin).pin == ("sha256:" + "ab" * 32,)


def test_one_way_of_trust_at_a_time() -> None:
    """They would contradict each other."""
    for arguments in ({"ca_file": "x", "insecure": True}, {"pin": "ab" * 32, "ca_file": "x"}):
        with pytest.raises(ConfigError):
            TLS(**arguments)  # type: ignore[arg-type]  # parametrised


async def test_a_certificate_is_fetched_to_be_looked_at_and_its_pin_works() -> None:
    """Subject, issuer, dates, names and fingerprint; no byte of a request is sent for it."""
    identity = tls.good()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        found = await fetch_certificate(raw.url)
        assert raw.received == 0
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=TLS(pin=found.pin))
        assert await fetch_certificate(server) == found
        async with Client(server) as client:
            assert await client.restore_sessions() == []
    assert found.pin == identity.pin
    assert "127.0.0.1" in found.names
    assert found.not_before < datetime.now(UTC) < found.not_after
    assert not found.is_self_signed
    assert len(found.thumbprint) == 40


@pytest.mark.parametrize("name", ["self_signed", "expired", "not_yet_valid", "wrong_host", "weak_ca"])
async def test_an_untrusted_certificate_can_be_read(name: str) -> None:
    """That is what it is for."""
    identity: tls.Identity = getattr(tls, name)()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        found = await fetch_certificate(raw.url)
    assert found.pin == identity.pin
    assert found.is_self_signed == (name == "self_signed")
    assert (found.not_after < datetime.now(UTC)) == (name == "expired")


async def test_where_there_is_no_certificate_the_error_says_why() -> None:
    """Refused, silent, unresolvable, plain HTTP, and another protocol."""
    with closed_port() as port, pytest.raises(UnreachableError, match="refused") as refused:
        await fetch_certificate(f"127.0.0.1:{port}")
    assert refused.value.server == f"127.0.0.1:{port}"
    with pytest.raises(UnreachableError, match="resolved"):
        await fetch_certificate("name.invalid")
    with pytest.raises(ConfigError, match="not https"):
        await fetch_certificate("http://vbo1")
    async with RawServer([stall()]) as silent:
        with pytest.raises(ServerTimeoutError, match=r"0\.1 s") as late:
            await fetch_certificate(f"127.0.0.1:{silent.port}", timeout=0.1)
        assert late.value.elapsed > 0.05
    async with RawServer([send(b"SSH-2.0-OpenSSH_9.2\r\n"), stall()]) as other:
        with pytest.raises(TlsError) as caught:
            await fetch_certificate(f"127.0.0.1:{other.port}")
    assert caught.value.reason == "not_tls"


async def test_a_ca_file_that_is_broken_while_a_client_runs_changes_nothing_for_it(tmp_path: Path) -> None:
    """A running client keeps its trust; one that is opened later names the file."""
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(tls.good().ca_file).read_bytes())
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=TLS(ca_file=file))
        async with Client(server) as client:
            file.write_text("half a certifi")
            assert await client.restore_sessions() == []
        with pytest.raises(ConfigError, match="PEM"):
            await Client(server).restore_sessions()


async def test_a_ca_file_that_changed_is_read_again_when_a_handshake_fails(tmp_path: Path) -> None:
    """The server's certificate and the file are renewed under a fleet: it goes on, and so does the other."""
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(tls.other_ca().cert_file).read_bytes())
    async with (
        RawServer(vbo_routes(), ssl=tls.good().context) as raw,
        RawServer(vbo_routes(), ssl=tls.good().context) as healthy,
    ):
        login = Password("u", "p")
        servers = [
            Server(raw.url, login, name="renewed", api_version="v4", tls=TLS(ca_file=file)),
            Server(healthy.url, login, name="other", api_version="v4", tls=trusting_the_good()),
        ]
        async with Fleet(servers, retries=0) as fleet:
            (failed,) = (await fleet.restore_sessions()).failed
            assert isinstance(failed.error, TlsError)
            file.write_text("half a certifi")
            (failed,) = (await fleet.restore_sessions()).failed
            assert isinstance(failed.error, TlsError)
            file.write_bytes(Path(tls.good().ca_file).read_bytes())
            assert not (await fleet.restore_sessions()).failed


async def test_a_ca_file_that_did_not_change_is_not_tried_again(tmp_path: Path) -> None:
    """A certificate that is not trusted costs one connection for each request, not two."""
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(tls.other_ca().cert_file).read_bytes())
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        server = Server(raw.url, Password("u", "p"), api_version="v4", tls=TLS(ca_file=file))
        async with Client(server) as client:
            for number in (1, 2):
                with pytest.raises(TlsError):
                    await client.restore_sessions()
                assert len(raw.connections) == number


KEYS_PROGRAM = """
import asyncio, sys
from aiovbo import TLS, Client, Password, Server

async def main(url, pin):
    async with Client(Server(url, Password("u", "p"), api_version="v4", tls=TLS(pin=pin))) as client:
        assert await client.restore_sessions() == []

asyncio.run(main(*sys.argv[1:]))
"""


async def test_keys_are_logged_where_the_environment_asks_for_it(tmp_path: Path) -> None:
    """SSLKEYLOGFILE, with which a developer reads recorded traffic, works as in Python's own contexts."""
    file = tmp_path / "keys"
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        # In a process of its own, because OpenSSL keeps the file open for as long as the context exists.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KEYS_PROGRAM, raw.url, tls.good().pin,
            env={**os.environ, "SSLKEYLOGFILE": str(file)},
        )  # fmt: skip
        assert await process.wait() == 0
    assert "CLIENT_TRAFFIC_SECRET" in file.read_text()
