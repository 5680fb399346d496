"""The events that an observer receives: requests, retries, logins, and servers that go down and come up.

Counts, times and names. Knows no metrics library, and nothing that a metric must not be labelled with: no
URL, no id, no text of a server.
"""

import inspect
from collections.abc import Callable

from attrs import frozen


@frozen
class RequestFinished:
    """One request to a server has ended, with or without a response."""

    server: str
    """The server's name."""
    operation: str
    """Method and resource, without ids and query, such as `GET RestoreSessions/{id}`."""
    outcome: str
    """"ok"; an HTTP status that is not a success, such as "503"; or the class of the error."""
    seconds: float
    """From the request for a connection to the last byte."""


@frozen
class RetryScheduled:
    """A request has failed and will be sent again."""

    server: str
    """The server's name."""
    operation: str
    """As in `RequestFinished`."""
    outcome: str
    """The class of the error that the last try ended with."""
    seconds: float
    """How long is waited first."""


@frozen
class LoginFinished:
    """A login succeeded or failed."""

    server: str
    """The server's name."""
    outcome: str
    """As in `RequestFinished`; a rejection is "400", "401" or "403"."""
    seconds: float
    """From the request for a connection to the last byte."""


@frozen
class ServerStateChanged:
    """A server does its work now, or no longer does."""

    server: str
    """The server's name."""
    up: bool
    """Whether the last request had a response."""
    outcome: str
    """"ok", or the class of the error."""


ClientEvent = RequestFinished | RetryScheduled | LoginFinished | ServerStateChanged
"""What an observer is notified of."""

Observer = Callable[[ClientEvent], None]
"""A plain function that is notified of what happens, at once and in the event loop: it must be quick."""


def is_plain_function(given: object) -> bool:
    """Whether something can be called, and does its work without being awaited."""
    is_async = any(map(inspect.iscoroutinefunction, (given, getattr(given, "__call__", None))))  # noqa: B004  # to look at it
    return callable(given) and not is_async
