"""A request as whatever carries it takes it: aiohttp, or the transport that a test gives."""

from attrs import define
from yarl import URL

from aiovbo._protocol.messages import Redacted


@define(eq=False)
class OutgoingRequest:
    """One HTTP request inside the SDK, with the limit on its response."""

    method: str
    url: URL
    headers: Redacted[dict[str, str]]
    body: Redacted[bytes] | None
    limit: int
    """Most bytes of the body of a response that is not an error."""
    is_resource: bool
    """Whether the limit is `max_resource`, not `max_body`."""
