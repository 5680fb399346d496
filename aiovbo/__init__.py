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
"""

from aiovbo._certificate import Certificate, fetch_certificate
from aiovbo._changes import (
    Added,
    Change,
    Changed,
    Finished,
    Heartbeat,
    Known,
    Place,
    Recovered,
    Removed,
    Step,
    Unreachable,
)
from aiovbo._checkpoint import Checkpoint, CheckpointStore, MemoryCheckpoint
from aiovbo._client import Client
from aiovbo._config import TLS, Assertion, Bearer, Clock, Password, Server
from aiovbo._explore import Exploration
from aiovbo._fleet import Fleet
from aiovbo._links import JsonObject, Link, Links, Resource
from aiovbo._lookout import WatchStatus
from aiovbo._merge import FleetQuery, FleetResult
from aiovbo._query import Answer, Page, Query, Rejected
from aiovbo._watch import Watch
from aiovbo.errors import (
    AuthenticationError,
    CheckpointError,
    ClosedError,
    ConfigError,
    ConflictError,
    FleetError,
    ForbiddenError,
    LinkError,
    NotFoundError,
    PayloadError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    SkippedError,
    TlsError,
    UnreachableError,
    VboError,
)
from aiovbo.models import (
    BackupOrganization,
    JobSession,
    Mailbox,
    OneDrive,
    Organization,
    RestoreSession,
    RestoreSessionEvent,
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionStatistics,
    RestoreSessionType,
    ServiceInstance,
    SharePointSite,
    TeamsTeam,
)

__version__ = "0.1.0"

__all__ = [
    "TLS",
    "Added",
    "Answer",
    "Assertion",
    "AuthenticationError",
    "BackupOrganization",
    "Bearer",
    "Certificate",
    "Change",
    "Changed",
    "Checkpoint",
    "CheckpointError",
    "CheckpointStore",
    "Client",
    "Clock",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "Exploration",
    "Finished",
    "Fleet",
    "FleetError",
    "FleetQuery",
    "FleetResult",
    "ForbiddenError",
    "Heartbeat",
    "JobSession",
    "JsonObject",
    "Known",
    "Link",
    "LinkError",
    "Links",
    "Mailbox",
    "MemoryCheckpoint",
    "NotFoundError",
    "OneDrive",
    "Organization",
    "Page",
    "Password",
    "PayloadError",
    "Place",
    "Query",
    "RateLimitedError",
    "Recovered",
    "Rejected",
    "Removed",
    "Resource",
    "ResponseError",
    "RestoreSession",
    "RestoreSessionEvent",
    "RestoreSessionEventStatus",
    "RestoreSessionEventType",
    "RestoreSessionResult",
    "RestoreSessionState",
    "RestoreSessionStatistics",
    "RestoreSessionType",
    "Server",
    "ServerError",
    "ServerFaultError",
    "ServerTimeoutError",
    "ServiceInstance",
    "SharePointSite",
    "SkippedError",
    "Step",
    "TeamsTeam",
    "TlsError",
    "Unreachable",
    "UnreachableError",
    "VboError",
    "Watch",
    "WatchStatus",
    "__version__",
    "fetch_certificate",
]
