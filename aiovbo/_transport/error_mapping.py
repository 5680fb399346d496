"""Exceptions of aiohttp and of the operating system, as errors of the SDK.

One table. No exception of aiohttp passes it, not even as a cause: their repr prints the bearer token. Knows
no tokens, no retries, no resources.
"""

import errno
import re
import ssl
from collections.abc import Iterator
from types import FrameType, TracebackType

import aiohttp

from aiovbo._core.deadline import IS_IT_UP
from aiovbo._core.threads import NoThreadError
from aiovbo._transport.connections import EarlyDataError
from aiovbo._transport.tls import NotVerifiedError, ServerContext, tls_error
from aiovbo.errors import (
    ClosedError,
    ConfigError,
    PayloadError,
    Phase,
    ServerError,
    ServerTimeoutError,
    UnreachableError,
    printable,
)

ERROR_LIMIT = 64 * 1024
"""Bytes of an error response that are read."""

_QUOTED = re.compile(r"""[\s:(]+b?['"]""")


class TooLargeError(Exception):
    """The body is larger than we are ready to read."""

    def __init__(self, most: int, *, is_resource: bool) -> None:
        super().__init__(f"the response is larger than {most:,} bytes")
        self.hint = "Request fewer items (page_size=...), or raise max_body."
        if is_resource:
            self.hint = "Check what is at this address. If it is right, raise max_resource."


def forget_origin(error: BaseException) -> None:
    """Drop the frames of other packages, and the errors that it came from.

    The frames of the HTTP library hold the token in their locals, and its errors show it in their repr.
    """
    entries = list(_entries(error.__traceback__))
    kept: TracebackType | None = None
    for entry in reversed(entries):
        if _is_ours(entry.tb_frame):
            kept = TracebackType(kept, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = kept
    error.__cause__ = error.__context__ = None
    # Set with the cause, it would hide what the caller was handling.
    error.__suppress_context__ = False


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def _is_bug(error: Exception) -> bool:
    """Whether it was raised by this package, neither by the HTTP library nor by the operating system."""
    *_, last = _entries(error.__traceback__)
    return _is_ours(last.tb_frame)


def map_aiohttp_error(  # noqa: C901, PLR0912  # a table, one line of thought per row
    error: Exception, phase: Phase, context: ServerContext | None
) -> Exception:
    """Our error for one of aiohttp's, of the operating system's, or of zlib's."""
    # aiohttp tries another address of the server then, and may fail in that.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotVerifiedError):
            return tls_error(cause)
        cause = cause.__context__
    match error:
        case ServerError() | ConfigError() | ClosedError():
            return error
        case TooLargeError():
            return PayloadError(str(error), retryable=False, hint=error.hint)
        case aiohttp.ServerFingerprintMismatch():
            return tls_error(error)
        case aiohttp.ClientConnectorCertificateError():
            return tls_error(error.certificate_error, context)
        case aiohttp.ClientSSLError():
            return tls_error(error.os_error, context)
        case aiohttp.ConnectionTimeoutError():
            return ServerTimeoutError("no connection in time", phase="connect", hint=IS_IT_UP)
        case aiohttp.ClientConnectorDNSError(os_error=NoThreadError()):
            return no_thread_left()
        case RuntimeError() if "new thread" in str(error):
            # A borrowed session looks names up in the event loop's own threads.
            return no_thread_left()
        case aiohttp.ClientConnectorDNSError():
            hint = "Check the name, and that this machine's name server knows it."
            what = f"the name {printable(error.host)} cannot be resolved"
            return UnreachableError(what, phase="dns", hint=hint)
        case aiohttp.ClientConnectorError():
            return _unreachable(error.os_error, phase)
        case ConnectionRefusedError():
            # Not of aiohttp, but of a transport that was given in its place.
            return _unreachable(error, phase)
        case aiohttp.ServerDisconnectedError() | EOFError():
            hint = "The server, or a proxy in front of it, closed the connection. Try again."
            what = "the connection was closed without a response"
            return PayloadError(what, phase=phase, retryable=True, hint=hint)
        case EarlyDataError():
            hint = "Check the port, and whether a proxy changes responses."
            what = "it sent data before it was sent a request, so this is not HTTP"
            return PayloadError(what, phase="read", retryable=True, hint=hint)
        case aiohttp.ClientPayloadError():
            hint = "The connection was cut off, or a proxy changes responses. Try again."
            return PayloadError("the response broke off", retryable=True, hint=hint)
        case aiohttp.ClientResponseError():
            # Without what it quotes of the response, which may be an echo of our request.
            said = _QUOTED.split(error.message, maxsplit=1)[0]
            what = f"the response is not HTTP: {printable(said)}"
            hint = "Check the port, and whether a proxy changes responses."
            return PayloadError(what, phase="read", retryable=True, hint=hint)
        case OSError():
            # After the handshake of TLS 1.3, a server may still refuse our certificate.
            for cause in (error.__cause__, error.__context__, error):
                if isinstance(cause, ssl.SSLError):
                    return tls_error(cause, context)
            hint = "The server, or a device in between, closed the connection. Try again."
            return UnreachableError("the connection was lost", phase=phase, hint=hint)
        case aiohttp.ClientError():
            return UnreachableError("no conversation came about", phase=phase)
        case MemoryError():
            hint = "Query fewer servers at once (concurrency=...), or allow this process more memory."
            return UnreachableError("this process has no memory left for the request", phase=phase, hint=hint)
        case _ if _is_bug(error):
            return error
        case _:
            # Without its text, which may quote the request.
            what = f"the HTTP library failed with {type(error).__name__}"
            hint = "Try again. If it fails again, check the server's address and its responses."
            return UnreachableError(what, phase=phase, hint=hint)


def no_thread_left() -> UnreachableError:
    """The error where no thread can be started to look a name up."""
    hint = (
        "Allow this process more threads (ulimit -u, TasksMax, the container's limit of processes), or "
        "configure the server by its IP address, which needs no thread."
    )
    return UnreachableError("no thread is left to look up its name", phase="dns", hint=hint)


def handshake_failure(error: OSError) -> UnreachableError:
    """Our error for an OSError on the way to a TLS connection."""
    return tls_error(error) if isinstance(error, ssl.SSLError) else _unreachable(error, "tls")


def _unreachable(error: OSError, phase: Phase) -> UnreachableError:
    # A connection attempt over several addresses carries its cause in its text only.
    words = error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UnreachableError(
            "this process has no file descriptor left for a connection",
            phase="connect",
            hint="Raise the limit (ulimit -n), or query fewer servers at once (concurrency=...).",
        )
    if error.errno == errno.ECONNREFUSED or "refused" in words:
        hint = "Check that the REST API service is running and that the port is correct."
        return UnreachableError("the connection was refused", phase="connect", hint=hint)
    if phase == "tls" and isinstance(error, ConnectionResetError):
        hint = (
            "Is this the right port? The server may refuse our versions of TLS, or ask for a certificate "
            "of ours: TLS(client_cert=..., client_key=...)."
        )
        what = "the connection was cut off during the TLS handshake"
        return UnreachableError(what, phase="tls", hint=hint)
    hint = "Check that the server is running, and that there is a route to it."
    return UnreachableError(f"no connection: {printable(words)}", phase="connect", hint=hint)
