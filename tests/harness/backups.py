"""Embedded backup servers as tests need them: how the SDK reaches one, and a healthy one beside a bad one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiovbo import TLS, Fleet, Password, Server
from aiovbo.testing import BackupServer
from harness import Bystander


def server_of(backup: BackupServer, **changes: Any) -> Server:  # whatever Server takes
    """How the SDK reaches `backup`."""
    settings: dict[str, Any] = {
        "credentials": Password(backup.username, backup.password),
        "tls": TLS(ca_file=backup.ca_file) if backup.url.startswith("https") else TLS(),
        "allow_http": True,
        **changes,
    }
    return Server(backup.url, **settings)


def view_of(backup: BackupServer, **changes: Any) -> Server:  # whatever Server takes
    """One more server at the address of `backup`, with credentials that are not equal to any others."""

    async def password() -> str:
        return backup.password

    return server_of(backup, **{"credentials": Password(backup.username, password), **changes})


def asked(backup: BackupServer, resource: str = "RestoreSessions") -> int:
    """How often `backup` was asked for `resource`."""
    return sum(r.resource.lower() == resource.lower() for r in backup.requests)


@asynccontextmanager
async def beside_a_healthy_server(server: Server, **limits: Any) -> AsyncIterator[Fleet]:
    """A fleet of `server` and a healthy one, which is polled all along and must not notice anything."""
    tight = {"connect_timeout": 0.3, "read_timeout": 0.3, "deadline": 1.0, "retries": 0}
    async with (
        BackupServer() as healthy,
        Fleet([server_of(healthy, name="healthy"), server], **{**tight, **limits}) as fleet,
    ):
        # On a busy machine a healthy server may take longer than the limits for the other one allow.
        patient = fleet["healthy"].with_options(deadline=60, connect_timeout=30, read_timeout=30)

        async def ask() -> int:
            return len(await patient.restore_sessions())

        assert await ask() == 40
        async with Bystander(ask) as bystander:
            yield fleet
            while len(bystander.latencies) < 3:
                await asyncio.sleep(0.01)
