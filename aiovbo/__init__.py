"""Ask many Veeam Backup for Microsoft 365 servers one question, and get one stream of answers.

A tour, from the outside in:

- `Fleet` holds many `Server`s behind one HTTP session; `Client` is one of them. `Password` or `Bearer` log
  on, `TLS` says whom to trust.
- `fleet.restore_sessions(...)` is a `FleetQuery`: iterate it, await it for a `FleetResult`, or take an
  `Answer` per server. `client.restore_sessions(...)` is a `Query` to one server. Nothing is sent before one
  of them is used.
- `RestoreSession` is a frozen value. Its `links` lead on, each a request, sent when somebody awaits it.
- A server's trouble is a `ServerError`, in `Answer.error` or in the `FleetError` at the end of a stream.

`aiovbo.testing` has a backup server to test against.

Knows where each name lives, and imports it when it is first asked for: a command that prints its help, or a
test run that has our plugin installed, needs no HTTP library. Type checkers and editors read `__init__.pyi`.
"""

from importlib import import_module

__version__ = "0.1.0"

_NAMES = {
    "_certificate": "Certificate fetch_certificate",
    "_changes": (
        "Added AnyChange Change Changed Finished Heartbeat Known Place Recovered Removed Step Unreachable"
    ),
    "_checkpoint": "Checkpoint CheckpointStore MemoryCheckpoint",
    "_client": "Client",
    "_config": "TLS ApiVersion Assertion Bearer Clock Credentials Password SecretSource Server",
    "_enums": (
        "RestoreSessionEventStatus RestoreSessionEventType RestoreSessionResult RestoreSessionState "
        "RestoreSessionType"
    ),
    "_explore": "Exploration",
    "_fleet": "Fleet",
    "_links": "JsonObject Link Links Resource",
    "_lookout": "WatchStatus",
    "_merge": "FleetQuery FleetResult",
    "_observe": (
        "LogonFinished Observer RequestFinished RetryScheduled ServerStateChanged ServerStatus Signal"
    ),
    "_query": "Answer Page Query Rejected",
    "_watch": "Watch",
    "_wire": "Moment OrderBy",
    "errors": (
        "AuthenticationError CheckpointError ClosedError ConfigError ConflictError FleetError "
        "ForbiddenError LinkError NotFoundError PayloadError Phase RateLimitedError ResponseError "
        "ServerError ServerFaultError ServerTimeoutError SkippedError TlsError TlsReason UnreachableError "
        "VboError"
    ),
    "models": (
        "BackupOrganization JobSession Mailbox OneDrive Organization RestoreSession RestoreSessionEvent "
        "RestoreSessionStatistics ServiceInstance SharePointSite TeamsTeam"
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("errors", "models")

__all__ = [  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  # the stub has them one by one
    *sorted([*_HOMES, "__version__"], key=lambda name: (not name.isupper(), name))
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"aiovbo.{name}")
    if name not in _HOMES:
        message = f"module 'aiovbo' has no attribute {name!r}"
        raise AttributeError(message)
    value = globals()[name] = getattr(import_module(f"aiovbo.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, *_MODULES]
