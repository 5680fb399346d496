"""Failures of a forward proxy, distinguished from those of the server behind it; a tunnel without aiohttp.

May use `_core` and below; must not know requests or the session.
"""

import asyncio
import errno
import socket
from http import HTTPStatus

import aiohttp
from yarl import URL

from aiovbo._core.threads import NoThreadError, look_up
from aiovbo._settings.proxies import Proxy
from aiovbo.errors import Phase, UnreachableError, printable

_IS_IT_UP = "Check that the proxy is running, and that its host and port are correct."
_BY_STATUS: dict[int, str] = {
    403: (
        "Allow CONNECT to this host and port at the proxy. Many proxies allow only port 443 by default "
        "(in squid, add the port to SSL_ports)."
    ),
    407: (
        "The proxy requires a login. State the user name and the password in the proxy's URL: "
        "http://user:password@host:port."
    ),
}
_FROM_THE_PROXY = "Check that the proxy can resolve the server's name and connect to its port."
_LENT = " It is the proxy of the session that was lent (http=...)."


def proxy_failure(  # a table
    error: Exception, phase: Phase, proxy: Proxy | None, url: URL
) -> UnreachableError | None:
    """The error where the forward proxy failed; None where something else did."""
    name = f"the proxy {proxy}" if proxy else "the proxy"
    lent = "" if proxy else _LENT
    match error:
        case aiohttp.ClientHttpProxyError():
            return _rejected(name, url, error.status, lent)
        case aiohttp.ClientProxyConnectionError() if error.os_error.errno not in (errno.EMFILE, errno.ENFILE):
            words = printable(error.os_error.strerror or str(error.os_error))
            what = f"{name} cannot be reached: {words}"
            return UnreachableError(what, phase="connect", hint=_IS_IT_UP + lent)
        case _ if proxy is None:
            return None
        case aiohttp.ClientConnectorDNSError(os_error=NoThreadError()):
            return None
        case aiohttp.ClientConnectorDNSError():
            # Only the proxy looks up the server's name.
            return _unresolvable(proxy)
        case (
            aiohttp.ServerDisconnectedError()
            | aiohttp.ClientResponseError()
            | aiohttp.ClientPayloadError()
            | ConnectionError()
        ) if phase == "connect" and not isinstance(error, aiohttp.ClientConnectorError):
            what = f"{name} did not respond to the request to connect (CONNECT) with HTTP"
            return UnreachableError(what, phase="connect", hint=_IS_IT_UP)
        case _:
            return None


def _rejected(name: str, url: URL, status: int, lent: str = "") -> UnreachableError:
    target = f"{url.host_subcomponent}:{url.port}"
    what = f"{name} does not connect to {target}: HTTP {status}"
    is_fault = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    hint = _FROM_THE_PROXY if is_fault else _BY_STATUS.get(status, "Check the configuration of the proxy.")
    return UnreachableError(what, phase="connect", retryable=is_fault, hint=hint + lent)


def _unresolvable(proxy: Proxy) -> UnreachableError:
    what = f"the name of the proxy, {printable(proxy.address.host or '')}, cannot be resolved"
    hint = "Check the proxy's name, and that this machine's name server knows it."
    return UnreachableError(what, phase="dns", hint=hint)


async def open_tunnel(proxy: Proxy, url: URL) -> asyncio.StreamWriter:
    """A connection to the server through the proxy, without TLS.

    Raises: UnreachableError, without a server, where the proxy fails; NoThreadError.
    """
    try:
        reader, writer = await _connect(proxy)
    except socket.gaierror:
        raise _unresolvable(proxy) from None
    except NoThreadError:
        raise
    except OSError as error:
        what = f"the proxy {proxy} cannot be reached: {printable(error.strerror or str(error))}"
        raise UnreachableError(what, phase="connect", hint=_IS_IT_UP) from None
    try:
        writer.write(_request(proxy, url))
        status = _status(await reader.readuntil(b"\r\n\r\n"))
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        status = 0
    except BaseException:
        writer.transport.abort()
        raise
    if status == HTTPStatus.OK:
        return writer
    writer.transport.abort()
    if status:
        name = f"the proxy {proxy}"
        raise _rejected(name, url, status)
    what = f"the proxy {proxy} did not respond to the request to connect (CONNECT) with HTTP"
    raise UnreachableError(what, phase="connect", hint=_IS_IT_UP)


async def _connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure = OSError("it has no address")
    for address in await look_up(proxy.address.host or "", proxy.address.port or 0):
        try:
            return await asyncio.open_connection(address.host, address.port)
        except OSError as error:
            failure = error
    raise failure


def _request(proxy: Proxy, url: URL) -> bytes:
    target = f"{url.host_subcomponent}:{url.port}"
    headers = {"Host": target} | proxy.headers()
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _status(head: bytes) -> int:
    version, _, rest = head.partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/") and rest[:3].isdigit() else 0
