"""What a server keeps of each request, for tests to look at.

Knows no secret: neither the password nor a refresh token is kept, and the access token is not
shown. Must not know how requests are answered.
"""

import attrs


@attrs.define
class ReceivedRequest:
    """One request that a server received, in the order of arrival."""

    method: str
    """GET or POST."""
    path: str
    """As it came, with version and path prefix, without the query."""
    query: str
    """As it came, still encoded."""
    version: str
    """`v8`, whatever its case in the path; empty where the path has none."""
    resource: str
    """The path below the version, such as `RestoreSessions/<id>`; what faults are matched with."""
    scheme: str
    """Of the Authorization header, such as `Bearer`; empty without one."""
    token: str = attrs.field(repr=False)
    """Of the Authorization header; empty without one."""
    form: tuple[str, ...]
    """Names of the form fields that were sent."""
    grant_type: str
    """What kind of login was asked for; empty elsewhere."""
    document: object = attrs.field(repr=False)
    """The JSON that was sent; None without any."""
    at: float
    """When it came, in seconds of `time.monotonic()`."""
    status: int | None = None
    """What was answered; None while nothing is, and where the connection was closed instead."""
