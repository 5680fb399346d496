"""Every exception that aiovbo raises.

::

    VboError
    ├── ConfigError                    also ValueError; a setting or an argument that cannot work
    ├── ServerError                    one backup server's failure, a value as much as an exception
    │   ├── UnreachableError           name resolution, TCP, cut off
    │   │   ├── TlsError               certificate not trusted, or no TLS
    │   │   └── ServerTimeoutError     also TimeoutError
    │   ├── ResponseError              a status that is not a success
    │   │   ├── ForbiddenError         403
    │   │   ├── NotFoundError          404
    │   │   ├── ConflictError          409
    │   │   ├── RateLimitedError       429
    │   │   └── ServerFaultError       5xx
    │   ├── AuthenticationError        login rejected by the API, or a fresh token rejected
    │   ├── PayloadError               a response that does not conform to the API
    │   └── SkippedError               not queried, to protect the account
    ├── FleetError                     also ExceptionGroup; the ServerErrors of one fleet query
    ├── LinkError                      also LookupError; missing, unsafe or detached link
    ├── ClosedError                    used after or during closing, or from another event loop
    └── CheckpointError                a watch's checkpoint cannot be read or written
        └── LeaseLostError             another process watches the server now (aiovbo.postgres)

Knows nothing of HTTP libraries, and never holds a secret: every error can be logged, pickled and shown.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self, cast

Phase = Literal["queue", "dns", "connect", "tls", "read", "body", "decoding", "paging"]
"""How far an operation had come: waiting for its turn, resolving the name, connecting, ..., paging."""

_NAMED = 3
"""Servers that the error of a fleet names in its text: enough to recognize a pattern."""

BEFORE_SENDING: tuple[Phase, ...] = ("queue", "dns", "connect", "tls")
"""The phases in which nothing of a request can have arrived."""

TlsReason = Literal[
    "untrusted", "expired", "hostname", "pin", "protocol", "client_cert", "weak", "strict", "not_tls"
]
"""Why a TLS connection failed."""


def printable(text: str, limit: int = 200) -> str:
    """Text that came from a server, safe to show: one line, no control characters, cut at `limit`."""
    head = text[: limit * 4]
    clean = " ".join("".join(c if c.isprintable() else " " for c in head).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


class VboError(Exception):
    """What every error of this package is."""

    def __copy__(self) -> Self:
        # Without traceback and context, which would lead to the locals of other libraries' frames, tokens
        # among them; copyreg may have been taught to keep them, as by importing distributed.
        twin = type(self).__new__(type(self), *self.args)
        twin.args = self.args
        twin.__dict__.update(self.__dict__)
        return twin


class ConfigError(VboError, ValueError):
    """A setting or an argument that cannot work; raised before the request is sent."""


class ServerError(VboError):
    """One backup server's failure: the server, the request, what happened, and what to do next."""

    _retryable_by_default: ClassVar[bool] = False

    def __init__(  # what a reader of an error wants to know
        self,
        what: str,
        *,
        server: str = "",
        operation: str = "",
        phase: Phase | None = None,
        attempts: int = 0,
        elapsed: float = 0.0,
        retryable: bool | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(what)
        self.what = what
        """What happened, in a few words."""
        self.server = server
        """The server's name in the fleet."""
        self.operation = operation
        """The request: method and path, without the query."""
        self.phase: Phase | None = phase
        """How far the last attempt had come; None where it is not known."""
        self.attempts = attempts
        """How often it was tried; 0 where nothing was sent."""
        self.elapsed = elapsed
        """Seconds from the first attempt to the failure."""
        self.retryable: bool = self._retryable_by_default if retryable is None else retryable
        """Whether the same request may well work later, unchanged."""
        self.hint = hint
        """What to do next."""

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.server, self.operation) if part)
        text = f"{place}: {self.what}" if place else self.what
        if self.attempts:
            often = "tried once" if self.attempts == 1 else f"tried {self.attempts} times"
            text += f" ({often}, {self.elapsed:.1f} s)"
        return f"{text.removesuffix('.')}. {self.hint}" if self.hint else text


class UnreachableError(ServerError):
    """No conversation came about, or it was cut off: name resolution, TCP, a lost connection."""

    _retryable_by_default = True


class TlsError(UnreachableError):
    """The TLS connection failed before any request was sent; `reason` states why."""

    _retryable_by_default = False

    def __init__(
        self, what: str, *, reason: TlsReason = "untrusted", hint: str = "", server: str = ""
    ) -> None:
        super().__init__(what, phase="tls", hint=hint, server=server)
        self.reason: TlsReason = reason
        """untrusted, expired, hostname, pin, protocol, client_cert, weak, strict or not_tls."""


class ServerTimeoutError(UnreachableError, TimeoutError):
    """A limit of time was reached; `phase` states where the time passed."""


class ResponseError(ServerError):
    """The server responded with a status that is not a success."""

    def __init__(  # the same
        self,
        what: str,
        *,
        status: int = 0,
        error_code: str | None = None,
        message: str = "",
        retryable: bool | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(what, retryable=retryable, hint=hint)
        self.status = status
        """The HTTP status."""
        self.error_code = error_code
        """Veeam's `errorCode`, such as ResourceNotFound; None where the response has none."""
        self.message = message
        """The server's own words, the first 200 characters."""


class ForbiddenError(ResponseError):
    """403: logged in, but this account may not do that."""


class NotFoundError(ResponseError):
    """404: no such resource, or an API version that this server does not offer."""


class ConflictError(ResponseError):
    """409: the server's present state forbids it."""


class RateLimitedError(ResponseError):
    """429: too many requests; `retry_after` states how long to wait."""

    _retryable_by_default = True
    retry_after: float | None = None
    """Seconds to wait, as the server states; None where it does not."""


class ServerFaultError(ResponseError):
    """5xx: the server, or a proxy in front of it, failed."""

    _retryable_by_default = True
    retry_after: float | None = None
    """Seconds to wait, as the server states; None where it does not."""


class AuthenticationError(ServerError):
    """The API rejected the login, or a token that it had just granted."""


class PayloadError(ServerError):
    """A response that is not what the API promises: empty, cut short, too large, of the wrong shape."""

    def __init__(
        self,
        what: str,
        *,
        problems: Sequence[str] = (),
        phase: Phase | None = "body",
        retryable: bool | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(what, phase=phase, retryable=retryable, hint=hint)
        self.problems: tuple[str, ...] = tuple(problems)
        """What is wrong with it, one entry each, with the path inside the document."""


class SkippedError(ServerError):
    """Not queried, to protect the account; `reason` states why."""

    def __init__(
        self, what: str, *, reason: Literal["lockout_guard"] = "lockout_guard", hint: str = ""
    ) -> None:
        super().__init__(what, phase="queue", hint=hint)
        self.reason: Literal["lockout_guard"] = reason
        """lockout_guard: the account would be locked."""


class FleetError(VboError, ExceptionGroup[ServerError]):
    """Some servers failed; raised after every healthy server's items were delivered."""

    @property
    def exceptions(self) -> tuple[ServerError, ...]:
        """The errors of the servers that failed, without groups in between."""
        # The group keeps them; all that is new here is what a type checker knows of them.
        return cast("tuple[ServerError, ...]", super().exceptions)

    @classmethod
    def of(cls, errors: Sequence[ServerError], asked: int) -> Self:
        """The error for `errors` out of `asked` servers."""
        named = "; ".join(f"{error.server}: {error.what}" for error in errors[:_NAMED])
        alone = len(errors) == asked > 1 and all(_is_out_of_reach(error) for error in errors)
        ours = ". All of them are out of reach: check this machine's own network" if alone else ""
        more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        return cls(f"{len(errors)} of {asked} servers failed: {named}{more}{ours}", errors)

    def derive(self, excs: Sequence[Exception]) -> ExceptionGroup[Exception]:  # type: ignore[override]  # typeshed's overloads cannot say "the same group, narrowed"
        """A group for a part of the errors, as `split` and `except*` need it."""
        errors = [error for error in excs if isinstance(error, ServerError)]
        if len(errors) == len(excs):
            return type(self)(self.message, errors)
        return ExceptionGroup(self.message, excs)


def _is_out_of_reach(error: ServerError) -> bool:
    return isinstance(error, UnreachableError) and error.phase in ("dns", "connect")


class LinkError(VboError, LookupError):
    """A link that is missing, unsafe to follow, or detached from the client it came from."""


class ClosedError(VboError):
    """Used after closing or while closing, or from an event loop other than its own."""


class CheckpointError(VboError):
    """A watch's saved place cannot be read or written; it never starts over by itself."""


class LeaseLostError(CheckpointError):
    """Another process watches a server now: what was found of it here cannot be saved any more.

    Raised by `batch.ack(connection)`: leave the transaction, so that it is rolled back, and continue with the
    next batch. The process that watches the server now delivers its changes.
    """

    def __init__(self, what: str, *, servers: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.servers: tuple[str, ...] = tuple(servers)
        """The names of the servers."""
