"""What a server keeps of each request, for tests to look at.

Knows no secret: neither the password nor a refresh token is kept, and the access token is not
shown. Must not know how responses are made.
"""

from fnmatch import fnmatchcase

import attrs

_ACCEPTED = 200


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
    """What kind of login was requested; empty elsewhere."""
    document: object = attrs.field(repr=False)
    """The JSON that was sent; None without any."""
    at: float
    """When it came, in seconds of `time.monotonic()`, or of the server's clock."""
    status: int | None = None
    """The status of the response; None while there is none, and where the connection was closed instead."""

    def __str__(self) -> str:
        query = f"?{self.query}" if self.query else ""
        return f"{self.status or 'no answer'} {self.method} {self.path}{query}"


class ReceivedRequests:
    """The requests of one server, and what a test expects of them."""

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        """All, in the order of arrival; tests clear it."""
        self._logins: list[ReceivedRequest] = []
        self._expected_logins = 0

    def add(self, request: ReceivedRequest) -> None:
        """Record a request that has arrived."""
        self.requests.append(request)
        if request.grant_type not in {"", "refresh_token"}:
            self._logins.append(request)

    def expect(self, pattern: str, times: int | None) -> None:
        """Check the number of requests that match, which is at least one for `times=None`.

        Raises: AssertionError for another number.
        """
        method, _, resource = pattern.rpartition(" ")
        found = [
            one
            for one in self.requests
            if method.upper() in {"", one.method} and fnmatchcase(one.resource.lower(), resource.lower())
        ]
        if not found if times is None else len(found) != times:
            wanted = "at least 1" if times is None else str(times)
            received = "\n".join(f"  {one}" for one in self.requests) or "  no request"
            msg = f"expected {wanted} of {pattern!r}, received {len(found)}:\n{received}"
            raise AssertionError(msg)
        self._expected_logins = max(self._expected_logins, *(self._place(one) for one in found), 0)

    def assert_no_more_logins(self) -> None:
        """Check that no login follows the first accepted one, or those that were expected.

        Raises: AssertionError with the further logins.
        """
        accepted = (place for place, one in enumerate(self._logins, 1) if one.status == _ACCEPTED)
        last = self._expected_logins or next(accepted, len(self._logins))
        if further := self._logins[last:]:
            lines = "\n".join(f"  {one} ({one.grant_type})" for one in further)
            msg = f"expected no more logins, received {len(further)}:\n{lines}"
            raise AssertionError(msg)

    def _place(self, request: ReceivedRequest) -> int:
        """Which login a request is, counted from 1; 0 where it is none."""
        return next((place for place, one in enumerate(self._logins, 1) if one is request), 0)
