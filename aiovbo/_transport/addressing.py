"""Host and name of a server in requests and handshakes, and IPv6 addresses with the scope of an interface.

The scope concerns this machine only (RFC 6874), so it is not sent.
"""

import re
import socket
from typing import Any

from yarl import URL

from aiovbo._transport.tls import ServerContext
from aiovbo.errors import UnreachableError, printable

_SCOPE = re.compile(r"%[^]]*")

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` gives for an address."""


def own_headers(url: URL, user_agent: str) -> dict[str, str]:
    """The headers that every request to a URL has."""
    own = {"User-Agent": user_agent}
    if "%" in (url.raw_host or ""):
        own["Host"] = _SCOPE.sub("", url.host_port_subcomponent or "")
    return own


def server_name(url: URL, context: ServerContext) -> str | None:
    """The name that the handshake sends and the certificate must have; None for the host of the URL."""
    address, scope, _ = (url.raw_host or "").partition("%")
    return context.tls.server_name or (address if scope else None)


def with_interface_number(found: AddressInfo) -> AddressInfo:
    """The address with the number of its network interface in place of the name.

    An event loop would look up an address with a name in it, in one of its own threads.

    Raises: UnreachableError where there is no such interface.
    """
    host, port, *_ = found[4]
    address, _, scope = host.partition("%")
    if not scope:
        return found
    try:
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    except OSError:
        hint = "Check the part of the address after '%'."
        what = f"this machine has no network interface {printable(scope)}"
    else:
        return (*found[:4], (address, port, 0, number))
    raise UnreachableError(what, phase="connect", retryable=False, hint=hint)
