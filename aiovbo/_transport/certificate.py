"""The certificate that a server shows, to look at before it is trusted.

Knows TLS and X.509; sends no request, and no secret.
"""

import asyncio
import hashlib
import socket
import ssl
import time
from copy import copy
from datetime import datetime

from attrs import frozen
from yarl import URL

from aiovbo._core.threads import NoThreadError, look_up
from aiovbo._extras import install_command
from aiovbo._settings.numbers import check_seconds
from aiovbo._settings.proxies import Proxy
from aiovbo._settings.servers import Server, server_url
from aiovbo._transport.error_mapping import handshake_failure, no_thread_left
from aiovbo._transport.proxy import open_tunnel
from aiovbo._transport.tls import allow_old_versions
from aiovbo.errors import (
    ConfigError,
    PayloadError,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
    printable,
)


@frozen(kw_only=True)
class Certificate:
    """What a server's certificate contains; it has not been verified."""

    subject: str
    """Whom it was issued to, such as `CN=vbo1.tech.local`."""
    issuer: str
    """Who issued it; the subject itself where it is self-signed."""
    not_before: datetime
    """From when it is good; aware, UTC."""
    not_after: datetime
    """Until when it is good; aware, UTC."""
    names: tuple[str, ...]
    """Names and addresses that it is good for."""
    pin: str
    """Its SHA-256 fingerprint, as `TLS(pin=...)` takes it."""
    thumbprint: str
    """Its SHA-1 fingerprint, as Windows shows it: to compare by eye, not to trust."""

    @property
    def is_self_signed(self) -> bool:
        """Whether no authority stands behind it."""
        return self.subject == self.issuer


async def fetch_certificate(
    server: Server | URL | str, *, timeout: float = 10.0
) -> Certificate:  # over several steps
    """The certificate that a server shows to everybody; one TLS handshake, and no request.

    Compare it with what the server's administrator sees, then trust its `pin`. Needs the extra
    `aiovbo[certificate]`.

    Units: timeout in seconds.
    Raises: ConfigError for a plain `http://` address, or without the extra; ServerError where no handshake
    comes about.
    """
    check_seconds("timeout", timeout)
    url = server.url if isinstance(server, Server) else server_url(server)
    if url.scheme != "https":
        message = f"{url} has no certificate: it is not https"
        raise ConfigError(message)
    name = server.name if isinstance(server, Server) else f"{url.host_subcomponent}:{url.port}"
    server_name = server.tls.server_name if isinstance(server, Server) else None
    proxy = server.find_proxy() if isinstance(server, Server) else None
    began = time.monotonic()
    failure: ServerError
    try:
        async with asyncio.timeout(timeout):
            return _read(await _shown_by(url, server_name, proxy))
    except TimeoutError:
        hint = "Check that the server is running, that the port is correct, and that it speaks https."
        failure = ServerTimeoutError(f"no TLS handshake within {timeout:g} s", phase="connect", hint=hint)
    except NoThreadError:
        failure = no_thread_left()
    except socket.gaierror:
        hint = "Check the name, and that this machine's name server knows it."
        failure = UnreachableError(f"the name {url.host} cannot be resolved", phase="dns", hint=hint)
    except (PayloadError, UnreachableError) as error:
        failure = copy(error)
    except OSError as error:
        failure = handshake_failure(error)
    failure.server, failure.operation, failure.attempts = name, "TLS handshake", 1
    failure.elapsed = time.monotonic() - began
    raise failure


async def open_connection(
    url: URL,
    context: ssl.SSLContext | None = None,
    server_name: str | None = None,
    proxy: Proxy | None = None,
) -> asyncio.StreamWriter:
    """A connection to the first of the server's addresses that accepts one, or through a proxy.

    With a context, over TLS.

    Raises: OSError where none does; UnreachableError where the proxy fails.
    """
    if proxy is not None:
        writer = await open_tunnel(proxy, url)
        try:
            if context is not None:
                await writer.start_tls(context, server_hostname=server_name or url.host)
        except BaseException:
            writer.transport.abort()
            raise
        return writer
    host, failure = url.host or "", OSError("it has no address")
    # asyncio's own look-up uses the event loop's threads, for which its end waits however long one hangs.
    for address in await look_up(host, url.port or 0):
        try:
            # Without the scope of an IPv6 address, which no certificate has.
            _, writer = await asyncio.open_connection(
                address.host,
                address.port,
                ssl=context,
                server_hostname=(server_name or host.partition("%")[0]) if context else None,
            )
        except OSError as error:
            failure = error
        else:
            return writer
    raise failure


async def _shown_by(url: URL, server_name: str | None, proxy: Proxy | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # No secret is sent, so an old server may show its certificate too.
    allow_old_versions(context)
    writer = await open_connection(url, context, server_name, proxy)
    try:
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return connection.getpeercert(binary_form=True) or b""
    finally:
        writer.transport.abort()


def _read(der: bytes) -> Certificate:
    try:
        from cryptography import x509  # an extra, imported only when used
    except ImportError:
        message = f"reading certificates needs cryptography: {install_command('certificate')}"
        raise ConfigError(message) from None
    try:
        found = x509.load_der_x509_certificate(der)
        alternatives = [
            str(name.value)
            for extension in found.extensions
            if isinstance(extension.value, x509.SubjectAlternativeName)
            for name in extension.value
        ]
        return Certificate(
            subject=found.subject.rfc4514_string(),
            issuer=found.issuer.rfc4514_string(),
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            names=tuple(alternatives),
            pin=f"sha256:{hashlib.sha256(der).hexdigest()}",
            thumbprint=hashlib.sha1(der, usedforsecurity=False).hexdigest(),
        )
    except Exception as error:  # whatever the library makes of a stranger's bytes
        what = f"its certificate cannot be read: {printable(str(error))}"
        raise PayloadError(what, phase="tls", retryable=False) from None
