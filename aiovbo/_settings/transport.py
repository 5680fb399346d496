"""What `transport=` must have, in place of HTTP over sockets: for tests."""

from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen
from yarl import URL


@frozen(kw_only=True)
class TransportRequest:
    """One HTTP request to one server."""

    server: str
    """The name of the server."""
    method: str
    """GET or POST."""
    url: URL
    """The complete URL, with the query."""
    headers: Mapping[str, str] = field(repr=False)
    """The headers; Authorization among them."""
    body: bytes | None = field(repr=False)
    """The body; None without one."""


class TransportReply(Protocol):
    """The complete response to a request."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        ...

    @property
    def body(self) -> bytes:
        """The body, after decompression."""
        ...


class TimeLeft(Protocol):
    """How long a request may take."""

    def left(self) -> float:
        """Seconds that are left; negative once the deadline has passed."""
        ...


class Transport(Protocol):
    """What `transport=` must have, in place of HTTP over sockets: one method.

    Raises of `send`: OSError where the server is unreachable (ConnectionRefusedError: nothing listens there),
    EOFError where the connection is closed without a response. Any other exception is raised to the caller.
    """

    async def send(self, request: TransportRequest, deadline: TimeLeft, /) -> TransportReply:
        """Send one request and return the whole response. It is cancelled when a limit is reached."""
        ...
