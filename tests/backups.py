"""From an embedded backup server to the SDK's `Server`, as tests need it."""

from typing import Any

from aiovbo import TLS, Password, Server
from aiovbo.testing import BackupServer


def server_of(backup: BackupServer, **changes: Any) -> Server:  # whatever Server takes
    """How the SDK reaches `backup`."""
    settings: dict[str, Any] = {
        "credentials": Password(backup.username, backup.password),
        "tls": TLS(ca_file=backup.ca_file) if backup.url.startswith("https") else TLS(),
        "allow_http": True,
        **changes,
    }
    return Server(backup.url, **settings)


def asked(backup: BackupServer, resource: str = "RestoreSessions") -> int:
    """How often `backup` was asked for `resource`."""
    return sum(r.resource.lower() == resource.lower() for r in backup.requests)
