"""What the clients of one fleet share: connections, the lock-out guard, and recognized sessions.

May use `_auth`, `_transport`, `_decoding` and below. Must not know clients.
"""

import aiohttp

from aiovbo._auth.lockout_guard import LockoutGuard
from aiovbo._decoding.recognition import Recognition
from aiovbo._settings.limits import Options
from aiovbo._settings.servers import Server
from aiovbo._settings.token_store import TokenStore
from aiovbo._settings.transport import Transport
from aiovbo._transport.pool import HttpPool


class SharedParts:
    """The parts that belong to a fleet, or to a client of its own, and not to one server."""

    def __init__(
        self,
        options: Options,
        http: aiohttp.ClientSession | None,
        transport: Transport | None,
        token_store: TokenStore | None,
        lockout_guard: int,
    ) -> None:
        self.pool: HttpPool = HttpPool(options, http, transport)
        """What carries the requests."""
        self.guard: LockoutGuard = LockoutGuard(
            lockout_guard, options.login_cooldown, options.clock, token_store
        )
        """Which server may be sent which secret."""
        self.recognition: Recognition = Recognition()
        """The sessions that are recognized when they arrive again."""

    def register(self, server: Server) -> None:
        """Note that a server will be queried."""
        self.pool.register(server)
        self.guard.register(server)

    def forget(self, server: Server) -> None:
        """Note that it will not be queried any more."""
        self.pool.forget(server)
        self.guard.forget(server)
