"""Trust: TLS policies to contexts, and failed handshakes to errors that say what to do.

Knows ssl; knows nothing of HTTP.
"""

import hashlib
import ssl
from collections.abc import Callable
from typing import Any

from aiovbo._config import TLS
from aiovbo.errors import ConfigError, TlsError, TlsReason, printable


class PinMismatchError(ssl.SSLCertVerificationError):
    """The server's certificate is none of the pinned ones; `seen` is its fingerprint."""

    seen = ""


def make_context(
    tls: TLS, handshake_began: Callable[[], None], handshake_ended: Callable[[], None]
) -> ssl.SSLContext:
    """The context for a policy; reads files, so not for the event loop.

    `handshake_began` and `handshake_ended` are called in the context of whoever connects.

    Raises: ConfigError where a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except (OSError, ssl.SSLError) as error:
        message = f"TLS(ca_file={tls.ca_file!r}) cannot be used: {error}. It takes a PEM file."
        raise ConfigError(message) from None
    if tls.insecure or tls.pin:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if not tls.strict_x509:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.client_cert is not None:
        try:
            # A passphrase would be asked for on the terminal, and the program would hang.
            context.load_cert_chain(tls.client_cert, tls.client_key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            message = f"TLS(client_cert={tls.client_cert!r}) cannot be used: {error}"
            raise ConfigError(message) from None
    context.set_alpn_protocols(["http/1.1"])
    context.sslobject_class = _ssl_object(tls.pin, handshake_began, handshake_ended)
    return context


def _ssl_object(
    pins: tuple[str, ...], handshake_began: Callable[[], None], handshake_ended: Callable[[], None]
) -> type[ssl.SSLObject]:
    class PinnedObject(ssl.SSLObject):
        """A TLS connection that comes about only with a pinned certificate, before a byte is sent over it."""

        def do_handshake(self) -> None:
            handshake_began()
            super().do_handshake()
            if pins:
                certificate: Any = self.getpeercert(binary_form=True)
                seen = f"sha256:{hashlib.sha256(certificate or b'').hexdigest()}"
                if seen not in pins:
                    mismatch = PinMismatchError("certificate is not the pinned one")
                    mismatch.seen = seen
                    raise mismatch
            handshake_ended()

    return PinnedObject


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


def tls_error(error: BaseException) -> TlsError:
    """The error for a handshake that failed."""
    if isinstance(error, PinMismatchError):
        what = f"the certificate is not the pinned one, its fingerprint is {error.seen}"
        return TlsError(what, reason="pin", hint=_HINTS["pin"])
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
