"""Each cause of a failed handshake has the reason and the hint that fit it; names and versions can be set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from harness import tls
from harness.raw import RawServer, fin, send, vbo_routes

from aiovbo import TLS, Client, ConfigError, Fleet, Password, Server, TlsError, TlsVersion, fetch_certificate


async def failure(raw: RawServer, trust: TLS) -> TlsError:
    """The error of a query of this server; nothing was sent to it."""
    server = Server(raw.url.replace("http:", "https:"), Password("u", "p"), api_version="v4", tls=trust)
    async with Client(server, retries=0, deadline=10) as client:
        error = (await client.restore_sessions().answer()).error
    assert isinstance(error, TlsError), repr(error)
    return error


async def is_queried(raw: RawServer, trust: TLS) -> bool:
    """Whether a query of this server gets its response."""
    server = Server(raw.url, Password("u", "p"), api_version="v4", tls=trust)
    async with Client(server, retries=0, deadline=10) as client:
        return await client.restore_sessions() == []


WEAK = {"a key of 1024 bits": tls.weak_key, "a signature with SHA-1": tls.sha1_signed}


@pytest.mark.parametrize("fault", WEAK)
async def test_a_weak_certificate_is_named_as_weak_although_its_authority_is_trusted(fault: str) -> None:
    """To add it to the trusted certificates would not help; to renew or to pin it does."""
    identity = WEAK[fault]()
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        error = await failure(raw, TLS(ca_file=identity.ca_file))
        assert error.reason == "weak"
        assert "Renew" in error.hint
        assert "ca_file" not in error.hint
        assert raw.received == 0
        assert await is_queried(raw, TLS(pin=identity.pin))


async def test_a_servers_own_certificate_as_authority_is_named(tmp_path: Path) -> None:
    """The authority that signed it is missing."""
    chain = Path(tls.good().cert_file).read_bytes()
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(chain.partition(b"-----END CERTIFICATE-----")[0] + b"-----END CERTIFICATE-----\n")
    # Python 3.13 accepts the leaf itself, so another server's is presented.
    async with RawServer(vbo_routes(), ssl=tls.renewed().context) as raw:
        error = await failure(raw, TLS(ca_file=leaf))
    assert error.reason == "untrusted"
    assert "not an authority" in error.hint


async def test_an_authority_that_did_not_sign_is_named() -> None:
    """Where `ca_file` is set already, the hint is not to set it."""
    async with RawServer(vbo_routes(), ssl=tls.other_ca().context) as raw:
        error = await failure(raw, TLS(ca_file=tls.ca_file()))
    assert error.reason == "untrusted"
    assert "does not contain the authority" in error.hint


async def test_a_server_with_http2_alone_is_named() -> None:
    """It ends the handshake with an alert that Python does not name."""
    alert = b"\x15\x03\x03\x00\x02\x02\x78"
    async with RawServer([send(alert), fin()]) as raw:
        error = await failure(raw, TLS(insecure=True))
    assert error.reason == "protocol"
    assert "HTTP/1.1" in error.hint
    assert "no application protocol" in error.what
    assert "_ssl.c" not in error.what


async def test_a_server_with_old_versions_alone_is_rejected_with_a_way_out() -> None:
    """The hint names the setting."""
    async with RawServer(vbo_routes(), ssl=tls.tls11_only().context) as raw:
        error = await failure(raw, TLS(ca_file=tls.ca_file()))
    assert error.reason == "protocol"
    assert "minimum_version='TLSv1'" in error.hint


VERSIONS: list[tuple[TlsVersion, Callable[[], tls.Identity], bool]] = [
    ("TLSv1", tls.tls10_only, True),
    ("TLSv1", tls.tls11_only, True),
    ("TLSv1", tls.good, True),
    ("TLSv1.1", tls.tls10_only, False),
    ("TLSv1.1", tls.tls11_only, True),
    ("TLSv1.2", tls.tls11_only, False),
    ("TLSv1.2", tls.good, True),
    ("TLSv1.3", tls.good, True),
    ("TLSv1.3", tls.tls12_only, False),
]


@pytest.mark.parametrize(("lowest", "identity", "accepted"), VERSIONS)
async def test_the_lowest_version_of_tls_can_be_set(
    lowest: TlsVersion, identity: Callable[[], tls.Identity], *, accepted: bool
) -> None:
    """Anything older is rejected before a request is sent."""
    async with RawServer(vbo_routes(), ssl=identity().context) as raw:
        trust = TLS(ca_file=tls.ca_file(), minimum_version=lowest)
        if accepted:
            assert await is_queried(raw, trust)
        else:
            assert (await failure(raw, trust)).reason == "protocol"
            assert raw.received == 0


async def test_an_old_version_does_not_weaken_whom_is_trusted() -> None:
    """The certificate is still checked."""
    async with RawServer(vbo_routes(), ssl=tls.tls11_only().context) as raw:
        trust = TLS(pin=tls.good().pin, minimum_version="TLSv1")
        assert (await failure(raw, trust)).reason == "pin"
        assert raw.received == 0


async def test_a_name_in_the_certificate_that_is_not_in_the_url_can_be_set() -> None:
    """It is sent to the server, and compared with the certificate."""
    identity, names = tls.wrong_host(), list[str]()
    identity.context.sni_callback = lambda _connection, name, _context: names.append(name)
    async with RawServer(vbo_routes(), ssl=identity.context) as raw:
        trust = TLS(ca_file=tls.ca_file(), server_name="vbo.elsewhere.example")
        assert await is_queried(raw, trust)
        shown = await fetch_certificate(Server(raw.url, Password("u", "p"), tls=trust))
        assert shown.pin == identity.pin
        assert set(names) == {"vbo.elsewhere.example"}
        # The address itself is not in the certificate.
        error = await failure(raw, TLS(ca_file=tls.ca_file()))
        assert error.reason == "hostname"
        assert "server_name=" in error.hint


async def test_a_name_that_is_not_in_the_certificate_is_rejected() -> None:
    """Although the one in the URL is."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        error = await failure(raw, TLS(ca_file=tls.ca_file(), server_name="other.example"))
        assert error.reason == "hostname"
        assert raw.received == 0


async def test_two_names_at_one_address_share_no_connection() -> None:
    """Each server checks its own."""
    async with RawServer(vbo_routes(), ssl=tls.good().context) as raw:
        servers = [
            Server(raw.url, Password(name, "p"), api_version="v4", tls=trust, name=name)
            for name, trust in {
                "right": TLS(ca_file=tls.ca_file()),
                "wrong": TLS(ca_file=tls.ca_file(), server_name="other.example"),
            }.items()
        ]
        async with Fleet(servers, retries=0, deadline=10) as fleet:
            result = await fleet.restore_sessions()
    assert [answer.server for answer in result.failed] == ["wrong"]


@pytest.mark.parametrize("name", ["", " ", "https://vbo1", ".vbo1", "vbo1:4443/x", "a b", "x" * 64, 5])
def test_a_server_name_that_cannot_be_one_is_rejected(name: object) -> None:
    """When it is set."""
    with pytest.raises(ConfigError, match="server_name"):
        TLS(server_name=cast("Any", name))


@pytest.mark.parametrize("version", ["", "SSLv3", "1.2", "tlsv1.2", 1.2])
def test_a_version_of_tls_that_does_not_exist_is_rejected(version: object) -> None:
    """With those that do."""
    with pytest.raises(ConfigError, match=r"minimum_version is one of TLSv1, .*TLSv1\.3"):
        TLS(minimum_version=cast("Any", version))


def test_an_inventory_sets_both() -> None:
    """As keys of `tls`."""
    table = {"server_name": "vbo1.tech.local", "minimum_version": "TLSv1.1"}
    server = {"url": "10.0.0.7", "credentials": {"token": "t"}, "tls": table}
    document = {"allow_literal_secrets": True, "servers": {"a": server}}
    fleet = Fleet.from_mapping(document)
    assert fleet["a"].server.tls == TLS(server_name="vbo1.tech.local", minimum_version="TLSv1.1")
    table["minimum_version"] = "TLSv2"
    with pytest.raises(ConfigError, match=r"servers\.a\.tls\.minimum_version: is one of TLSv1, "):
        Fleet.from_mapping(document)


async def test_the_error_of_a_pin_shows_what_was_expected_and_found() -> None:
    """All that were expected, where there are several."""
    async with RawServer(vbo_routes(), ssl=tls.renewed().context) as raw:
        error = await failure(raw, TLS(pin=[tls.good().pin, tls.self_signed().pin]))
    expected = f"expected {tls.good().pin} or {tls.self_signed().pin}, found {tls.renewed().pin}"
    assert expected in str(error)
