"""One server as requests reach it: its address, connections and API version, and what its responses show.

May use the rest of `_transport`, and `_core`. Must not know tokens, retries or resources.
"""

import logging
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar

from yarl import URL

from aiovbo._core.status import StatusRecorder
from aiovbo._protocol.error_responses import seconds_ahead
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo._protocol.urls import url_for
from aiovbo._settings.api_versions import ApiVersion
from aiovbo._settings.limits import Options
from aiovbo._settings.servers import Server
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.interface import OutgoingRequest
from aiovbo._transport.pool import HttpPool
from aiovbo._transport.request_timeout import RequestTimeout
from aiovbo.errors import ServerError

log = logging.getLogger("aiovbo.requests")

E = TypeVar("E", bound=ServerError)


class Endpoint:
    """One server at one address, with one TLS policy: sends single requests, and reports how each ended."""

    _date: tuple[str, datetime] | None
    """The server's time as it sent it last, and when that was received."""

    def __init__(
        self,
        server: Server,
        options: Options,
        pool: HttpPool,
        status: StatusRecorder,
        *,
        reads_files_again: bool = False,
    ) -> None:
        self.server: Server = server
        """Whom it reaches."""
        self.pool: HttpPool = pool
        """What carries the requests."""
        self.status: StatusRecorder = status
        """Where it is reported how they end."""
        proxy = server.find_proxy()
        self._connections = ServerConnections(
            server.name, server.tls, proxy, reads_files_again=reads_files_again
        )
        self._now = options.clock.now
        self._most = options.max_body
        self._most_of_resource = min(options.max_body, options.max_resource)
        self.version: ApiVersion | None = self.given_version
        """The API version that it speaks; None while it has not been found."""
        self.has_responded: bool = False
        """Whether it has sent any response."""
        self.is_out_of_reach: bool = False
        """Whether the last request found it unreachable."""
        self.was_unreachable: bool = False
        """Whether the last operation found it unreachable."""
        self._date = None
        self.time_is_known: bool = False
        """Whether it has sent its time."""

    def moved_to(self, server: Server, options: Options) -> "Endpoint":
        """The endpoint of the same server with other settings, over new connections.

        The API version and the clock are kept where the address is the same.
        """
        made = Endpoint(server, options, self.pool, self.status, reads_files_again=True)
        if server.url == self.server.url:
            if self.given_version is None:
                made.version = made.given_version or self.version
            made._date, made.time_is_known = self._date, self.time_is_known  # its own class
        self._connections.close_idle()
        return made

    @property
    def given_version(self) -> ApiVersion | None:
        """The version that the user chose, and may have to choose again."""
        return None if self.server.api_version == "auto" else self.server.api_version

    @property
    def likely_version(self) -> ApiVersion:
        """The API version that it speaks; the newest, while that has not been found."""
        return self.version or self.server.usable_versions[-1]

    def doubt_version(self, reply: Reply) -> None:
        """Where what every version has is not there, look for the version again the next time."""
        if reply.status == HTTPStatus.NOT_FOUND and self.given_version is None:
            self.version = None

    @property
    def clock_skew(self) -> float | None:
        """Seconds that its clock is ahead of ours; None while it has not sent its time."""
        return None if self._date is None else seconds_ahead(*self._date)

    def url(self, target: str) -> URL:
        """The URL of a path and query of its API."""
        return url_for(self.server.url, target)

    async def exchange(
        self,
        attempt: RequestTimeout,
        method: str,
        url: URL,
        *,
        headers: Redacted[dict[str, str]],
        body: Redacted[bytes] | None = None,
        may_be_large: bool = False,
    ) -> Reply:
        """Send one request, and read the whole response.

        Raises: ServerError, without its server and operation; ClosedError.
        """
        limit = self._most if may_be_large else self._most_of_resource
        request = OutgoingRequest(method, url, headers, body, limit, limit < self._most)
        carrier = self.pool.carrier or await self.pool.open()
        reply = await carrier.send(attempt, self._connections, request)
        self.has_responded, self.is_out_of_reach, self.was_unreachable = True, False, False
        date = reply.headers.get("Date")
        if date is not None:
            # Read only when it is needed.
            self._date, self.time_is_known = (date, self._now()), True
        return reply

    def record(
        self, attempt: RequestTimeout, method: str, url: URL, outcome: int | ServerError | None
    ) -> None:
        """Report how a request has ended: None where as it should."""
        seconds = attempt.seconds
        if seconds is not None:
            self.status.request(method, url.raw_path, outcome, seconds)
            how = "answered" if outcome is None else f"HTTP {outcome}"
            if isinstance(outcome, ServerError):
                how = outcome.what
            log.debug("%s: %s %s: %s (%.2f s)", self.server.name, method, url.raw_path, how, seconds)

    def annotate(
        self, url: URL, failure: E, method: str = "GET", attempts: int = 1, elapsed: float = 0.0
    ) -> E:
        """The failure, with what only the sender knows: the server, the request, how often."""
        failure.server = self.server.name
        failure.operation = failure.operation or f"{method} {url.raw_path}"
        failure.attempts = attempts
        failure.elapsed = elapsed
        return failure
