# The door as type checkers and editors see it; a test compares it with `__init__.py`.

from aiovbo import errors as errors
from aiovbo import models as models
from aiovbo._auth.token_store import FileTokenStore, StoredEntry, TokenStore
from aiovbo._client.client import Client
from aiovbo._client.exploration import Exploration
from aiovbo._core.query import Answer, Page, Query, Rejected
from aiovbo._core.status import ServerStatus
from aiovbo._fleet.fleet import Fleet
from aiovbo._fleet.poll import Poll, PollStatus
from aiovbo._fleet.query import FleetQuery, FleetResult
from aiovbo._protocol.messages import Response
from aiovbo._protocol.session_filter import OrderBy, TimeBound
from aiovbo._resources.enums import (
    RestoreSessionEventStatus,
    RestoreSessionEventType,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
)
from aiovbo._resources.links import JsonObject, Link, Links, Resource
from aiovbo._settings.api_versions import ApiVersion
from aiovbo._settings.clock import Clock, Timers, TimeSource
from aiovbo._settings.credentials import Assertion, Bearer, Credentials, Integration, Password, SecretSource
from aiovbo._settings.events import (
    ClientEvent,
    LoginFinished,
    Observer,
    RequestFinished,
    RetryScheduled,
    ServerStateChanged,
)
from aiovbo._settings.retry import Retry
from aiovbo._settings.servers import TLS, Server, TlsVersion
from aiovbo._transport.certificate import Certificate, fetch_certificate
from aiovbo._transport.interface import TimeLeft, Transport, TransportReply, TransportRequest
from aiovbo._watch.changes import (
    Added,
    AnyChange,
    Change,
    Changed,
    CheckpointEntry,
    Finished,
    Heartbeat,
    Recovered,
    Removed,
    RowRejected,
    ServerCheckpoint,
    SessionRecord,
    Unreachable,
)
from aiovbo._watch.checkpoint import Checkpoint, CheckpointStore, MemoryCheckpoint
from aiovbo._watch.poller import WatchStatus
from aiovbo._watch.watch import Batch, Watch
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
    Phase,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
    ServerTimeoutError,
    SkippedError,
    TlsError,
    TlsReason,
    UnreachableError,
    VboError,
)
from aiovbo.models import (
    BackupOrganization,
    JobSession,
    Mailbox,
    Model,
    OneDrive,
    Organization,
    RestoreSession,
    RestoreSessionEvent,
    RestoreSessionStatistics,
    ServiceInstance,
    SharePointSite,
    TeamsTeam,
)

__version__: str

__all__ = [
    "TLS",
    "Added",
    "Answer",
    "AnyChange",
    "ApiVersion",
    "Assertion",
    "AuthenticationError",
    "BackupOrganization",
    "Batch",
    "Bearer",
    "Certificate",
    "Change",
    "Changed",
    "Checkpoint",
    "CheckpointEntry",
    "CheckpointError",
    "CheckpointStore",
    "Client",
    "ClientEvent",
    "Clock",
    "ClosedError",
    "ConfigError",
    "ConflictError",
    "Credentials",
    "Exploration",
    "FileTokenStore",
    "Finished",
    "Fleet",
    "FleetError",
    "FleetQuery",
    "FleetResult",
    "ForbiddenError",
    "Heartbeat",
    "Integration",
    "JobSession",
    "JsonObject",
    "Link",
    "LinkError",
    "Links",
    "LoginFinished",
    "Mailbox",
    "MemoryCheckpoint",
    "Model",
    "NotFoundError",
    "Observer",
    "OneDrive",
    "OrderBy",
    "Organization",
    "Page",
    "Password",
    "PayloadError",
    "Phase",
    "Poll",
    "PollStatus",
    "Query",
    "RateLimitedError",
    "Recovered",
    "Rejected",
    "Removed",
    "RequestFinished",
    "Resource",
    "Response",
    "ResponseError",
    "RestoreSession",
    "RestoreSessionEvent",
    "RestoreSessionEventStatus",
    "RestoreSessionEventType",
    "RestoreSessionResult",
    "RestoreSessionState",
    "RestoreSessionStatistics",
    "RestoreSessionType",
    "Retry",
    "RetryScheduled",
    "RowRejected",
    "SecretSource",
    "Server",
    "ServerCheckpoint",
    "ServerError",
    "ServerFaultError",
    "ServerStateChanged",
    "ServerStatus",
    "ServerTimeoutError",
    "ServiceInstance",
    "SessionRecord",
    "SharePointSite",
    "SkippedError",
    "StoredEntry",
    "TeamsTeam",
    "TimeBound",
    "TimeLeft",
    "TimeSource",
    "Timers",
    "TlsError",
    "TlsReason",
    "TlsVersion",
    "TokenStore",
    "Transport",
    "TransportReply",
    "TransportRequest",
    "Unreachable",
    "UnreachableError",
    "VboError",
    "Watch",
    "WatchStatus",
    "__version__",
    "fetch_certificate",
]
