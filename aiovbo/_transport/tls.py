"""TLS policies, and the errors of failed handshakes.

Knows ssl, and the form in which aiohttp takes a policy; knows nothing of HTTP.
"""

import asyncio
import hashlib
import os
import re
import ssl
import sys
from typing import Self
from weakref import WeakSet

from aiohttp import Fingerprint, ServerFingerprintMismatch
from attrs import define

from aiovbo._settings.servers import TLS
from aiovbo.errors import ConfigError, TlsError, TlsReason, printable


class NotVerifiedError(ServerFingerprintMismatch):
    """The certificate of a connection is not a pinned one; `got` is empty where nothing was verified."""

    def __init__(self, pins: tuple[str, ...] = (), got: bytes = b"") -> None:
        """`pins` are those that were expected, if any."""
        super().__init__(b"", got, "", 0)
        self.pins = pins


class ServerContext(ssl.SSLContext, Fingerprint):
    """A TLS policy as the `ssl=` of a request: the context of the handshake, and the check after it.

    aiohttp takes a context or a fingerprint; this is both. The check reads the connection, so it works with
    every implementation of TLS. A context equals only itself and is part of the key of pooled connections,
    so no connection serves two policies.
    """

    def __new__(cls, tls: TLS) -> Self:  # noqa: ARG004  # as __init__ has it
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, tls: TLS) -> None:
        """Read the files of the policy; not for the event loop.

        Raises: ConfigError where a file cannot be used.
        """
        self.tls = tls
        self._pins = tls.pin
        self.admitted: WeakSet[asyncio.BaseProtocol] = WeakSet()
        """The connections over which requests may be sent, by their protocols."""
        if tls.insecure or tls.pin:
            self.check_hostname = False
            self.verify_mode = ssl.CERT_NONE
        else:
            self._trust(tls)
        if tls.client_cert is not None:
            try:
                # A passphrase would be requested on the terminal, and the program would hang.
                self.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: "")
            except (OSError, ssl.SSLError) as error:
                message = f"TLS(client_cert={tls.client_cert!r}) cannot be used: {error}"
                raise ConfigError(message) from None
        if tls.minimum_version in ("TLSv1", "TLSv1.1"):
            allow_old_versions(self)
        elif tls.minimum_version == "TLSv1.3":
            self.minimum_version = ssl.TLSVersion.TLSv1_3
        self.set_alpn_protocols(["http/1.1"])
        if keys := os.environ.get("SSLKEYLOGFILE"):
            self.keylog_filename = keys

    def _trust(self, tls: TLS) -> None:
        # Python 3.13 made this the default of `ssl.create_default_context`, which makes no subclasses.
        if sys.version_info >= (3, 13):
            self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            if tls.strict_x509:
                self.verify_flags |= ssl.VERIFY_X509_STRICT
        if tls.ca_file is None:
            self.load_default_certs()
            return
        try:
            self.load_verify_locations(tls.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"TLS(ca_file={tls.ca_file!r}) cannot be used: {error}. It takes a PEM file."
            raise ConfigError(message) from None

    @property
    def trusts_no_authority(self) -> bool:
        """Whether the `ca_file` holds only certificates that may not sign others."""
        return self.tls.ca_file is not None and not self.cert_store_stats()["x509_ca"]

    def check(self, transport: asyncio.Transport) -> None:
        """Verify what the server presented, after the handshake and before a request is sent.

        Raises: NotVerifiedError. `got` is the digest of the certificate; it is empty where the connection
        shows none, or was not made with this context. TlsError for TLS 1.0 where 1.1 is the minimum.
        """
        connection = transport.get_extra_info("ssl_object")
        if (
            self.tls.minimum_version == "TLSv1.1"
            and connection is not None
            and connection.version() == "TLSv1"
        ):
            asyncio.get_running_loop().call_soon(transport.abort)
            raise TlsError("the server offers only TLS 1.0", reason="protocol", hint=_HINTS["protocol"])
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        digest = hashlib.sha256(certificate).digest() if certificate else b""
        if self._pins:
            if f"sha256:{digest.hex()}" in self._pins:
                return
        elif digest and transport.get_extra_info("sslcontext") is self:
            # The handshake verified it, as this context requires.
            return
        # Not at once: aiohttp still reads the address of the connection. A server that does not respond to
        # the closing of TLS would keep it open.
        asyncio.get_running_loop().call_soon(transport.abort)
        raise NotVerifiedError(self._pins, digest if self._pins else b"")


FileStates = list[tuple[int, int, int] | None]
"""When each file of a policy was written, its size and its number; None for one that is not there."""


@define(eq=False)
class LoadedTls:
    """A TLS policy as it was loaded, for all who use it: they get a new context when its files change."""

    context: ServerContext
    files: FileStates
    """The states in which its files were."""


def states_of_files(tls: TLS) -> FileStates:
    """What shows whether a file of the policy was written or replaced; not for the event loop."""
    states: FileStates = []
    for file in (tls.ca_file, tls.client_cert, tls.client_key):
        if file is not None:
            try:
                state = os.stat(file)
            except OSError:
                states.append(None)
            else:
                states.append((state.st_mtime_ns, state.st_size, state.st_ino))
    return states


def allow_old_versions(context: ssl.SSLContext) -> None:
    """Allow TLS 1.0 and 1.1, and the keys, digests and ciphers that they need."""
    # To name one of these versions is deprecated. Python never offers SSL 3.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("DEFAULT:!aNULL:!eNULL:@SECLEVEL=0")


_BY_VERIFY_CODE: dict[int, TlsReason] = {
    9: "expired", 10: "expired", 62: "hostname", 64: "hostname", 66: "weak", 67: "weak", 68: "weak",
    **dict.fromkeys(range(80, 95), "strict"),
}  # fmt: skip
"""Codes of OpenSSL's X509_V_ERR_*; from 80 on those that only VERIFY_X509_STRICT raises."""
_INVALID_CA = 79
_BY_SSL_REASON: dict[str, TlsReason] = {
    "WRONG_VERSION_NUMBER": "not_tls",
    "HTTP_REQUEST": "not_tls",
    "HTTPS_PROXY_REQUEST": "not_tls",
    "UNKNOWN_PROTOCOL": "not_tls",
    "PACKET_LENGTH_TOO_LONG": "not_tls",
    "RECORD_LAYER_FAILURE": "not_tls",
    "BAD_RECORD_TYPE": "not_tls",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "client_cert",
    "SSLV3_ALERT_BAD_CERTIFICATE": "client_cert",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "client_cert",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "client_cert",
    "TLSV1_ALERT_UNKNOWN_CA": "client_cert",
    "TLSV1_ALERT_ACCESS_DENIED": "client_cert",
    "EE_KEY_TOO_SMALL": "weak",
    "CA_KEY_TOO_SMALL": "weak",
    "CA_MD_TOO_WEAK": "weak",
    "DH_KEY_TOO_SMALL": "weak",
    "WRONG_SIGNATURE_TYPE": "weak",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "weak",
    "LEGACY_SIGALG_DISALLOWED_OR_UNSUPPORTED": "weak",
}
_HINTS: dict[TlsReason, str] = {
    "untrusted": (
        "If this is the server's own certificate, trust it: TLS(ca_file=...) with its authority, "
        "or TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
    ),
    "expired": "Renew the server's certificate; check this machine's clock too.",
    "hostname": (
        "Use a name that stands in the certificate, or TLS(pin='sha256:...') with its fingerprint, "
        "which `aiovbo pin` shows. If the address must stay, state the name in the certificate: "
        "TLS(server_name=...)."
    ),
    "pin": "If the certificate was renewed, pin the new fingerprint; if not, find out which server responds.",
    "protocol": (
        "The server offers only versions or ciphers of TLS that are rejected here: update it, or allow old "
        "ones: TLS(minimum_version='TLSv1')."
    ),
    "client_cert": "The server requires a certificate of ours: TLS(client_cert=..., client_key=...).",
    "weak": (
        "The key or the signature is too weak. Renew the certificate (RSA of 2048 bits or more, SHA-256), "
        "or accept this one: TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
    ),
    "strict": "The authority's certificate breaks RFC 5280: renew it, or allow it: TLS(strict_x509=False).",
    "not_tls": "Check that the port is correct, and that the server speaks https.",
}
_WEAK_HANDSHAKE = (
    "The server's keys or signatures in the handshake are too weak: update it, or allow weak ones: "
    "TLS(minimum_version='TLSv1')."
)
_NO_HTTP_1 = (
    "The server, or a proxy in front of it, offers only other protocols than HTTP/1.1, such as HTTP/2. Allow "
    "HTTP/1.1 there, and check the port."
)
_OTHER_AUTHORITY = (
    "TLS(ca_file=...) does not contain the authority that signed the certificate. Add it with those between, "
    "or trust this certificate alone: TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
)
_LEAF_AS_AUTHORITY = (
    "TLS(ca_file=...) contains a server's own certificate, not an authority. Give the certificate of the "
    "authority that signed it, or TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
)
_SIGNED_BY_LEAF = (
    "It was signed by a certificate that may not sign others. Let an authority issue a new one, or accept "
    "it: TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
)
_NOT_VERIFIED = (
    "Lend a session (http=...) whose connector makes TLS connections with the context of the request, "
    "such as aiohttp.TCPConnector."
)


def tls_error(error: BaseException, context: ssl.SSLContext | None = None) -> TlsError:
    """The error for a handshake that failed; with its context, the hint fits what is trusted already."""
    if isinstance(error, ServerFingerprintMismatch):
        if error.got:
            expected = " or ".join(getattr(error, "pins", ()))
            what = (
                f"the certificate is not the pinned one: expected {expected}, found sha256:{error.got.hex()}"
            )
            return TlsError(what, reason="pin", hint=_HINTS["pin"])
        what = "nothing was sent, because the connection does not show that its certificate was verified"
        return TlsError(what, reason="pin" if getattr(error, "pins", ()) else "untrusted", hint=_NOT_VERIFIED)
    if isinstance(error, ssl.SSLCertVerificationError):
        # Only OpenSSL's own errors have a code and a message.
        code: int = getattr(error, "verify_code", 0)
        reason = _BY_VERIFY_CODE.get(code, "untrusted")
        hint = _untrusted_hint(code, context) if reason == "untrusted" else _HINTS[reason]
        message: str = getattr(error, "verify_message", "") or str(error)
        what = f"the certificate is rejected: {printable(message)}"
        return TlsError(what, reason=reason, hint=hint)
    said: str = getattr(error, "reason", None) or ""
    # Python does not name every alert.
    words = said.replace("_", " ").lower() or printable(
        re.sub(r"^\[SSL[^]]*\] *| *\(_ssl.*$", "", str(error))
    )
    reason = _BY_SSL_REASON.get(said, "protocol")
    hint = _HINTS[reason]
    if "no application protocol" in words:
        hint = _NO_HTTP_1
    elif reason == "weak":
        hint = _WEAK_HANDSHAKE
    return TlsError(f"no TLS connection was established: {words}", reason=reason, hint=hint)


def _untrusted_hint(verify_code: int, context: ssl.SSLContext | None) -> str:
    if verify_code == _INVALID_CA:
        return _SIGNED_BY_LEAF
    if not isinstance(context, ServerContext) or context.tls.ca_file is None:
        return _HINTS["untrusted"]
    return _LEAF_AS_AUTHORITY if context.trusts_no_authority else _OTHER_AUTHORITY
