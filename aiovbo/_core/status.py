"""How a server has been doing: counts what its requests come to, and notifies the observer.

Knows counts, times and names. Knows no metrics library, and nothing that a metric must not be labelled with:
no URL, no id, no text of a server.
"""

import logging
import re
from collections.abc import Callable
from datetime import datetime

from attrs import frozen

from aiovbo._settings.events import (
    ClientEvent,
    LoginFinished,
    Observer,
    RequestFinished,
    RetryScheduled,
    ServerStateChanged,
)
from aiovbo.errors import (
    AuthenticationError,
    PayloadError,
    ServerError,
    ServerFaultError,
    SkippedError,
    UnreachableError,
)

log = logging.getLogger("aiovbo.status")

OK = "ok"
"""The outcome of what went well."""

_DOWN = (AuthenticationError, PayloadError, ServerFaultError, SkippedError, UnreachableError)
"""What says that a server does not do its work; a 404 of one of its sessions does not."""

_KNOWN = (
    "RestoreSessions", "Organizations", "JobSessions", "ServiceInstance", "Events", "Statistics", "Token",
    "Explore", "Stop", "Action", "Mailboxes", "OneDrives", "Sites", "Teams", "Logout",
)  # fmt: skip
_CANONICAL = {name.lower(): name for name in _KNOWN}
_VERSION = re.compile(r"(?i)/v\d+/")
_LONGEST_NAME = 32


@frozen(kw_only=True)
class ServerStatus:
    """How one server has been doing since its client was made."""

    server: str
    """Its name."""
    up: bool | None = None
    """Whether the last request was answered; None before the first."""
    api_version: str | None = None
    """The API version in use; None while it is not known."""
    last_success: datetime | None = None
    """When it last gave an answer of use, aware UTC; None while it has not."""
    last_error: ServerError | None = None
    """The newest failure, if it is the server's; it stays when the server is up again."""
    last_error_at: datetime | None = None
    """When that was, aware UTC."""
    requests: int = 0
    """Requests that were tried, logins and repetitions included."""
    retries: int = 0
    """How many of them were repetitions."""
    logins: int = 0
    """How many of them were logins."""
    clock_skew: float | None = None
    """Seconds that its clock is ahead of ours; None while it has not reported its time."""


class StatusRecorder:
    """Counts what one server's requests come to, and notifies the observer."""

    def __init__(self, server: str, now: Callable[[], datetime], observer: Observer | None) -> None:
        self._server = server
        self._now = now
        self._observer = observer
        self._up: bool | None = None
        self._last_success: datetime | None = None
        self._last_error: ServerError | None = None
        self._last_error_at: datetime | None = None
        self._requests = self._retries = self._logins = 0

    def request(self, method: str, path: str, outcome: int | ServerError | None, seconds: float) -> None:
        """Note a request that has ended: as it should, with another HTTP status, or with an error."""
        self._requests += 1
        if self._observer is not None:
            self._notify(RequestFinished(self._server, _operation(method, path), _outcome(outcome), seconds))

    def login(self, outcome: int | ServerError | None, seconds: float) -> None:
        """Note that a login has ended."""
        self._logins += 1
        if self._observer is not None:
            self._notify(LoginFinished(self._server, _outcome(outcome), seconds))

    def retry(self, method: str, path: str, error: ServerError, delay: float) -> None:
        """Note that a request will be sent again."""
        self._retries += 1
        if self._observer is not None:
            self._notify(RetryScheduled(self._server, _operation(method, path), _outcome(error), delay))

    def success(self) -> None:
        """Note that what was requested has arrived."""
        self._last_success = self._now()
        if self._up is False:
            state = "reachable" if isinstance(self._last_error, UnreachableError) else "working"
            log.info("%s: %s again", self._server, state)
        if self._up is not True:
            self._turn(up=True, outcome=OK)

    def failure(self, error: ServerError, *, of_login: bool = False) -> None:
        """Note that a request, or the login that it needs, has failed."""
        if of_login or isinstance(error, _DOWN):
            self._last_error, self._last_error_at = error, self._now()
            if self._up is not False:
                state = "unreachable" if isinstance(error, UnreachableError) else "failing"
                log.info("%s: %s: %s", self._server, state, error.what)
            self._turn(up=False, outcome=_outcome(error))

    def status(self, api_version: str | None, clock_skew: float | None) -> ServerStatus:
        """All of it, with what others know."""
        return ServerStatus(
            server=self._server,
            up=self._up,
            api_version=api_version,
            last_success=self._last_success,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
            requests=self._requests,
            retries=self._retries,
            logins=self._logins,
            clock_skew=clock_skew,
        )

    def _turn(self, *, up: bool, outcome: str) -> None:
        if self._up is not up:
            self._up = up
            if self._observer is not None:
                self._notify(ServerStateChanged(self._server, up, outcome))

    def _notify(self, signal: ClientEvent) -> None:
        if self._observer is None:
            return
        try:
            self._observer(signal)
        except Exception:
            # Once: what fails for one request fails for the next, and watching must not stop the work.
            self._observer = None
            log.exception("%s: the observer failed, and gets no further events of this server", self._server)


def _outcome(outcome: int | ServerError | None) -> str:
    if isinstance(outcome, ServerError):
        return type(outcome).__name__
    return OK if outcome is None else str(outcome)


def _operation(method: str, path: str) -> str:
    """Few enough to be a label: what is no plain word is an id."""
    resource = _VERSION.split(path, maxsplit=1)[-1].strip("/")
    parts = (
        _CANONICAL.get(part.lower(), part) if part.isalpha() and len(part) <= _LONGEST_NAME else "{id}"
        for part in resource.split("/")
    )
    return f"{method} {'/'.join(parts)}"
