"""Query many Veeam Backup for Microsoft 365 servers for their restore sessions at once.

A tour, from the outside in:

- `Fleet` holds many `Server`s behind one HTTP session; `Client` is one of them. `Password` or `Bearer` log
  in, `TLS` states which certificates to trust.
- `fleet.restore_sessions(...)` is a `FleetQuery`: iterate it, await it for a `FleetResult`, or take an
  `Answer` per server. `client.restore_sessions(...)` is a `Query` to one server. Nothing is sent before one
  of them is used.
- `RestoreSession` is a frozen value. Its `links` lead on, each a request, sent when it is awaited.
- A server's failure is a `ServerError`, in `Answer.error` or in the `FleetError` at the end of a stream.

`aiovbo.testing` has a backup server to test against.

Knows where each name lives, and imports it when it is first requested: a command that prints its help, or a
test run that has our plugin installed, needs no HTTP library. Type checkers and editors read `__init__.pyi`.
"""

from importlib import import_module
from os import environ

from aiovbo._settings.version import __version__ as __version__

_NAMES = {
    "_auth.file_token_store": "FileTokenStore",
    "_client.client": "Client",
    "_client.exploration": "Exploration",
    "_core.query": "Answer Page Query Rejected",
    "_core.status": "ServerStatus",
    "_fleet.fleet": "Fleet",
    "_fleet.poll": "Poll PollStatus",
    "_fleet.query": "FleetQuery FleetResult",
    "_protocol.messages": "Response",
    "_protocol.session_filter": "OrderBy TimeBound",
    "_resources.enums": (
        "JobSessionStatus RestoreSessionEventStatus RestoreSessionEventType RestoreSessionResult "
        "RestoreSessionState RestoreSessionType"
    ),
    "_resources.links": "JsonObject Link Links Resource",
    "_settings.credentials": "Assertion Bearer Credentials Integration Password SecretSource",
    "_settings.events": (
        "ClientEvent LoginFinished Observer RequestFinished RetryScheduled ServerStateChanged"
    ),
    "_settings.clock": "Clock TimeSource Timers",
    "_settings.retry": "Retry",
    "_settings.api_versions": "ApiVersion",
    "_settings.servers": "TLS Server TlsVersion",
    "_settings.token_store": "StoredEntry TokenStore",
    "_settings.transport": "TimeLeft Transport TransportReply TransportRequest",
    "_transport.certificate": "Certificate fetch_certificate",
    "_watch.changes": (
        "Added AnyChange Change Changed CheckpointEntry Finished Heartbeat Recovered Removed "
        "RowRejected ServerCheckpoint SessionRecord Unreachable"
    ),
    "_watch.checkpoint": "Checkpoint CheckpointStore MemoryCheckpoint",
    "_watch.status": "WatchStatus",
    "_watch.watch": "Batch Watch",
    "errors": (
        "AuthenticationError CheckpointError ClosedError ConfigError ConflictError FleetError "
        "ForbiddenError LeaseLostError LinkError NotFoundError PayloadError Phase RateLimitedError "
        "ResponseError ServerError ServerFaultError ServerTimeoutError SkippedError TlsError TlsReason "
        "UnreachableError VboError"
    ),
    "models": (
        "BackupOrganization JobSession Mailbox Model OneDrive Organization RestoreEvent RestoreSession "
        "RestoreSessionEvent RestoreSessionStatistics ServiceInstance SharePointSite TeamsTeam"
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
_MODULES = ("errors", "models")

__all__ = [  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  # the stub has them one by one
    *sorted([*_HOMES, "__version__"], key=lambda name: (not name.isupper(), name))
]


if "AIOVBO_LOG" in environ:
    from aiovbo._settings.log_output import show_log_of_environment

    show_log_of_environment()


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
