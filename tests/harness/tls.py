"""Servers' identities, good and bad, and the TLS contexts to serve them with.

Knows certificates; each is made when it is first asked for, and kept for the process. All are good for
localhost, 127.0.0.1 and ::1 but for the one fault that they are named for.
"""

import atexit
import hashlib
import ipaddress
import shutil
import ssl
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LOOPBACK = ("localhost", "127.0.0.1", "::1")

_YEAR = timedelta(days=365)
_MANY = 10_000


@dataclass(frozen=True)
class Identity:
    """What a server shows for itself."""

    context: ssl.SSLContext
    """To serve with."""
    ca_file: str
    """What a client has to trust so that only the fault, if any, stands in the way."""
    pin: str
    """The fingerprint, as "sha256:…"."""
    cert_file: str
    """The chain that is sent."""
    key_file: str

    def client_context(self) -> ssl.SSLContext:
        """A new context for a client that trusts `ca_file` alone."""
        return ssl.create_default_context(cafile=self.ca_file)


# ----------------------------------------------------------------------------- whom clients trust


@cache
def authority() -> trustme.CA:
    """The authority that everybody trusts."""
    return trustme.CA()


@cache
def other_authority() -> trustme.CA:
    """An authority that no client trusts by default."""
    return trustme.CA()


@cache
def ca_file() -> str:
    """The certificate of `authority()`, as a file."""
    return _file("ca.pem", authority().cert_pem.bytes())


# ------------------------------------------------------------------------------------ identities


@cache
def good() -> Identity:
    """Nothing wrong with it."""
    return _issued("good")


@cache
def renewed() -> Identity:
    """Nothing wrong with it either, but another fingerprint than `good()`."""
    return _issued("renewed")


@cache
def other_ca() -> Identity:
    """Of an authority that the client does not trust."""
    leaf = other_authority().issue_cert(*LOOPBACK)
    return _identity("other-ca", [blob.bytes() for blob in leaf.cert_chain_pems], _key(leaf))


@cache
def self_signed() -> Identity:
    """Of no authority but itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("self-signed", "self-signed", key).add_extension(_names(), critical=False)
    return _identity("self-signed", [_pem(builder.sign(key, SHA256()))], _key_pem(key))


@cache
def expired() -> Identity:
    """Good until a year ago."""
    now = datetime.now(UTC)
    return _issued("expired", not_before=now - 2 * _YEAR, not_after=now - _YEAR)


@cache
def not_yet_valid() -> Identity:
    """Good in a year."""
    now = datetime.now(UTC)
    return _issued("not-yet-valid", not_before=now + _YEAR, not_after=now + 2 * _YEAR)


@cache
def wrong_host() -> Identity:
    """For another server."""
    return _issued("wrong-host", names=["vbo.elsewhere.example"])


@cache
def no_ip_san() -> Identity:
    """For localhost, but not for the address."""
    return _issued("no-ip-san", names=["localhost"])


@cache
def cn_only() -> Identity:
    """The address is in the subject only, which clients no longer read."""
    return _made_by_hand("cn-only", "127.0.0.1", alternative_names=False)


@cache
def weak_ca() -> Identity:
    """Of a trusted authority whose certificate does not say that it may sign: strict clients refuse it."""
    return _made_by_hand("weak-ca", "localhost", ca_key_usage=False)


@cache
def incomplete_chain() -> Identity:
    """Signed by an authority in between, whose certificate is not sent."""
    leaf = authority().create_child_ca().issue_cert(*LOOPBACK)
    return _identity("incomplete-chain", [leaf.cert_chain_pems[0].bytes()], _key(leaf))


@cache
def reversed_chain() -> Identity:
    """The whole chain is sent, in the wrong order; no reason to refuse it."""
    leaf = authority().create_child_ca().issue_cert(*LOOPBACK)
    own, *rest = [blob.bytes() for blob in leaf.cert_chain_pems]
    chain = [own, authority().cert_pem.bytes(), *rest]
    return _identity("reversed-chain", chain, _key(leaf))


@cache
def many_sans() -> Identity:
    """Good for ten thousand names, with a certificate as large as that."""
    names = [f"server-{number}.tenant.example" for number in range(_MANY)]
    return _issued("many-sans", names=[*names, *LOOPBACK])


@cache
def client_cert_required() -> Identity:
    """Requires a certificate of `authority()` from clients too; with TLS 1.3 they notice it late."""
    identity = _issued("client-cert-required")
    identity.context.verify_mode = ssl.CERT_REQUIRED
    identity.context.load_verify_locations(ca_file())
    return identity


@cache
def tls11_only() -> Identity:
    """Speaks nothing newer than TLS 1.1, as Windows servers once did."""
    identity = _issued("tls11-only")
    identity.context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        identity.context.minimum_version = ssl.TLSVersion.TLSv1
        identity.context.maximum_version = ssl.TLSVersion.TLSv1_1
    return identity


@cache
def tls10_only() -> Identity:
    """Offers TLS 1.0 alone."""
    identity = _issued("tls10-only")
    identity.context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        identity.context.minimum_version = ssl.TLSVersion.TLSv1
        identity.context.maximum_version = ssl.TLSVersion.TLSv1
    return identity


@cache
def tls12_only() -> Identity:
    """Offers nothing newer than TLS 1.2."""
    identity = _issued("tls12-only")
    identity.context.maximum_version = ssl.TLSVersion.TLSv1_2
    return identity


@cache
def weak_key() -> Identity:
    """Self-signed, with an RSA key of 1024 bits."""
    key = rsa.generate_private_key(65537, 1024)  # noqa: S505  # the fault
    builder = _builder("weak-key", "weak-key", key).add_extension(_names(), critical=False)
    chain = [_pem(builder.sign(key, SHA256()))]
    return _weak_identity("weak-key", chain, _key_pem(key), _file("weak-key-ca.pem", chain[0]))


@cache
def sha1_signed() -> Identity:
    """Signed by its authority with SHA-1, which the library no longer does; good for a hundred years."""
    chain = [_SHA1_LEAF.encode()]
    return _weak_identity("sha1", chain, _SHA1_KEY.encode(), _file("sha1-ca.pem", _SHA1_AUTHORITY.encode()))


_SHA1_AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAT+gAwIBAgIUNYR1yfjeTm3AmdGdfmUEoUN9fPowCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOc2hhMSBhdXRob3JpdHkwIBcNMjYxMTI3MTIxODI1WhgPMjEy
NjExMDMxMjE4MjVaMBkxFzAVBgNVBAMMDnNoYTEgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEKVAZ5D8QN5lOLP7WoMRqCt6OzegWTtU6ewRVi2uD
hT7mDxolVcKX608hxe3onQqq/JygdY9VjRO1vqFovvQcmqNjMGEwHQYDVR0OBBYE
FFUi//sKmv6nGeKQ2lALwGVrW74wMB8GA1UdIwQYMBaAFFUi//sKmv6nGeKQ2lAL
wGVrW74wMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49
BAMCA0kAMEYCIQDVVjcZlGeuDw6A+9A2rpUAFIKxf94xn3HMPOc9zrXzKgIhANFi
jYE2v4KTNWua6UsEVWQh8J8IABZ8hvas7tJpP4vD
-----END CERTIFICATE-----
"""
_SHA1_LEAF = """\
-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIBBzAJBgcqhkjOPQQBMBkxFzAVBgNVBAMMDnNoYTEgYXV0
aG9yaXR5MCAXDTI2MTEyNzEyMTgyNloYDzIxMjYxMTAzMTIxODI2WjAUMRIwEAYD
VQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQcX0RZ+BZW
43Y+4SkcgoZ3O0LCLcCRIR/CufQjSZ0ZUU7pc4U/nxWgfnGVBrhLnp5DLDsqw/eN
MOQBE5202amCo3AwbjAsBgNVHREEJTAjgglsb2NhbGhvc3SHBH8AAAGHEAAAAAAA
AAAAAAAAAAAAAAEwHwYDVR0jBBgwFoAUVSL/+wqa/qcZ4pDaUAvAZWtbvjAwHQYD
VR0OBBYEFA0MSFNM1ZBggA9bQaQTQEO0lN73MAkGByqGSM49BAEDSQAwRgIhALwJ
2P5agm0oDwoEyuCJ1DcXyhrBapqyKD3w1ynXUuyoAiEAjbTs64TNG/LCXynMH7Cd
D0IZZosQurOT8+lSGB+s4z0=
-----END CERTIFICATE-----
"""
_SHA1_KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEII5avOsHxZ8giGS5m5z06sMe0zU7CB7PBz1gfXlqwYNUoAoGCCqGSM49
AwEHoUQDQgAEHF9EWfgWVuN2PuEpHIKGdztCwi3AkSEfwrn0I0mdGVFO6XOFP58V
oH5xlQa4S56eQyw7KsP3jTDkAROdtNmpgg==
-----END EC PRIVATE KEY-----
"""


# --------------------------------------------------------------------------------------- clients


@cache
def client() -> Identity:
    """A certificate that `client_cert_required()` accepts from a client."""
    return _issued("client", names=["monitor@tech.example"])


@cache
def expired_client() -> Identity:
    """One that it does not accept any more."""
    now = datetime.now(UTC)
    return _issued(
        "expired-client",
        names=["monitor@tech.example"],
        not_before=now - 2 * _YEAR,
        not_after=now - _YEAR,
    )


# ---------------------------------------------------------------------------------------- making


@cache
def _folder() -> Path:
    folder = tempfile.mkdtemp(prefix="aiovbo-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _file(name: str, data: bytes) -> str:
    path = _folder() / name
    path.write_bytes(data)
    return str(path)


def _identity(name: str, chain: Sequence[bytes], key: bytes, trusted: str = "") -> Identity:
    cert_file, key_file = _file(f"{name}.pem", b"".join(chain)), _file(f"{name}.key", key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert_file, key_file)
    seen = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain[0].decode()))
    return Identity(context, trusted or ca_file(), f"sha256:{seen.hexdigest()}", cert_file, key_file)


def _weak_identity(name: str, chain: Sequence[bytes], key: bytes, trusted: str) -> Identity:
    """An identity that OpenSSL serves only at its lowest level of security."""
    cert_file, key_file = _file(f"{name}.pem", b"".join(chain)), _file(f"{name}.key", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(cert_file, key_file)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain[0].decode())).hexdigest()
    return Identity(context, trusted, f"sha256:{pin}", cert_file, key_file)


def _issued(
    name: str,
    *,
    names: Sequence[str] = LOOPBACK,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Identity:
    leaf = authority().issue_cert(*names, not_before=not_before, not_after=not_after)
    return _identity(name, [blob.bytes() for blob in leaf.cert_chain_pems], _key(leaf))


def _key(leaf: trustme.LeafCert) -> bytes:
    return leaf.private_key_pem.bytes()


def _made_by_hand(
    name: str, common_name: str, *, alternative_names: bool = True, ca_key_usage: bool = True
) -> Identity:
    """A leaf and an authority that trustme is too careful to make."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    known_as = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = _builder(f"{name} authority", f"{name} authority", ca_key)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(known_as, critical=False)
    if ca_key_usage:
        ca = ca.add_extension(_may_sign(), critical=True)
    leaf = _builder(common_name, f"{name} authority", key)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known_as)
    leaf = leaf.add_extension(issuer, critical=False)
    if alternative_names:
        leaf = leaf.add_extension(_names(), critical=False)
    trusted = _file(f"{name}-ca.pem", _pem(ca.sign(ca_key, SHA256())))
    return _identity(name, [_pem(leaf.sign(ca_key, SHA256()))], _key_pem(key), trusted)


def _builder(
    subject: str, issuer: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=_name(issuer),
        subject_name=_name(subject),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - _YEAR,
        not_valid_after=now + _YEAR,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _names() -> x509.SubjectAlternativeName:
    name, *addresses = LOOPBACK
    return x509.SubjectAlternativeName(
        [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in addresses)]
    )


def _may_sign() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
