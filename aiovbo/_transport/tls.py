"""TLS policies, and the errors of failed handshakes.

Knows ssl, and the form in which aiohttp takes a policy; knows nothing of HTTP.
"""

import asyncio
import hashlib
import os
import ssl
import sys
from typing import Self
from weakref import WeakSet

from aiohttp import Fingerprint, ServerFingerprintMismatch

from aiovbo._settings.servers import TLS
from aiovbo.errors import ConfigError, TlsError, TlsReason, printable


class NotVerifiedError(ServerFingerprintMismatch):
    """The certificate of a connection is not the pinned one; `got` is empty where nothing was verified."""


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
                # A passphrase would be asked for on the terminal, and the program would hang.
                self.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: "")
            except (OSError, ssl.SSLError) as error:
                message = f"TLS(client_cert={tls.client_cert!r}) cannot be used: {error}"
                raise ConfigError(message) from None
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

    def check(self, transport: asyncio.Transport) -> None:
        """Verify what the server presented, after the handshake and before a request is sent.

        Raises: NotVerifiedError. `got` is the digest of the certificate; it is empty where the connection
        shows none, or was not made with this context.
        """
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        digest = hashlib.sha256(certificate).digest() if certificate else b""
        if self._pins:
            if f"sha256:{digest.hex()}" in self._pins:
                return
        elif digest and transport.get_extra_info("sslcontext") is self:
            # The handshake verified it, as this context requires.
            return
        # Not at once: aiohttp still asks the connection for its address. A server that does not answer the
        # closing of TLS would keep it open.
        asyncio.get_running_loop().call_soon(transport.abort)
        expected = bytes.fromhex(self._pins[0].removeprefix("sha256:")) if self._pins else b""
        raise NotVerifiedError(expected, digest if expected else b"", "", 0)


_BY_VERIFY_CODE: dict[int, TlsReason] = {9: "expired", 10: "expired", 62: "hostname", 64: "hostname"}
# Codes of OpenSSL's X509_V_ERR_* that only VERIFY_X509_STRICT raises.
_STRICT_CODES = range(78, 95)
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
}
_HINTS: dict[TlsReason, str] = {
    "untrusted": (
        "If this is the server's own certificate, trust it: TLS(ca_file=...) with its authority, "
        "or TLS(pin='sha256:...') with its fingerprint, which `aiovbo pin` shows."
    ),
    "expired": "Renew the server's certificate; check this machine's clock too.",
    "hostname": (
        "Use a name that stands in the certificate, or TLS(pin='sha256:...') with its fingerprint, "
        "which `aiovbo pin` shows."
    ),
    "pin": "If the certificate was renewed, pin the new fingerprint; if not, find out who answers.",
    "protocol": "The server offers only versions or ciphers of TLS that are refused here: update it.",
    "client_cert": "The server asks for a certificate of ours: TLS(client_cert=..., client_key=...).",
    "strict": "The authority's certificate breaks RFC 5280: renew it, or allow it: TLS(strict_x509=False).",
    "not_tls": "Is this the right port, and does it speak https?",
}
_NOT_VERIFIED = (
    "Lend a session (http=...) whose connector makes TLS connections with the context of the request, "
    "such as aiohttp.TCPConnector."
)


def tls_error(error: BaseException) -> TlsError:
    """The error for a handshake that failed."""
    if isinstance(error, ServerFingerprintMismatch):
        if error.got:
            what = f"the certificate is not the pinned one, its fingerprint is sha256:{error.got.hex()}"
            return TlsError(what, reason="pin", hint=_HINTS["pin"])
        what = "nothing was sent, because the connection does not show that its certificate was verified"
        return TlsError(what, reason="pin" if error.expected else "untrusted", hint=_NOT_VERIFIED)
    if isinstance(error, ssl.SSLCertVerificationError):
        said = printable(error.verify_message)
        reason = _BY_VERIFY_CODE.get(error.verify_code)
        if reason is None:
            reason = "strict" if error.verify_code in _STRICT_CODES else "untrusted"
        return TlsError(f"the certificate is refused: {said}", reason=reason, hint=_HINTS[reason])
    said = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    reason = _BY_SSL_REASON.get(said, "protocol")
    words = said.replace("_", " ").lower() or printable(str(error))
    return TlsError(f"no TLS connection came about: {words}", reason=reason, hint=_HINTS[reason])
