"""The TLS contexts of one session: made once per policy, and made again when the files of one have changed.

Uses threads for the files. Must not know requests.
"""

from functools import partial
from weakref import WeakKeyDictionary

from aiovbo._core.threads import in_thread_if_possible
from aiovbo._settings.servers import TLS
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.tls import ServerContext
from aiovbo.errors import ConfigError, TlsError, TlsReason


class TlsContexts:
    """Contexts by policy; a server that was replaced has one of its own."""

    def __init__(self) -> None:
        self._shared: dict[TLS, ServerContext] = {}
        self._own: WeakKeyDictionary[ServerConnections, ServerContext] = WeakKeyDictionary()

    async def load(self, tls: TLS) -> ServerContext:
        """The context that all servers with this policy share.

        Raises: ConfigError where a file cannot be used.
        """
        if tls not in self._shared:
            self._shared[tls] = await in_thread_if_possible(partial(ServerContext, tls))
        return self._shared[tls]

    async def context_for(self, connections: ServerConnections) -> ServerContext:
        """The context for a server's connections.

        Raises: TlsError where a file of a server that joined late, or was replaced, cannot be used.
        """
        found = self._own.get(connections)
        if found is None and not connections.reads_files_again:
            found = self._shared.get(connections.tls)
        return found or await self._load_late(connections)

    async def _load_late(self, connections: ServerConnections) -> ServerContext:
        tls = connections.tls
        try:
            if not connections.reads_files_again:
                return await self.load(tls)
            made = await in_thread_if_possible(partial(ServerContext, tls))
        except ConfigError as error:
            problem = str(error)
        else:
            self._own[connections] = made
            return made
        reason: TlsReason = "client_cert" if tls.client_cert else "untrusted"
        raise TlsError(problem, reason=reason, hint="Fix this, then add the server again.")

    async def reload(self, connections: ServerConnections, failed: ServerContext) -> ServerContext | None:
        """A new context, where files of the one with which a handshake failed have changed; None otherwise.

        Certificates are renewed while a program runs: it needs no restart for that.
        """
        current = self._own.get(connections) or self._shared.get(connections.tls)
        if current is not None and current is not failed:
            # Another request has been here.
            return current
        try:
            made = await in_thread_if_possible(failed.reload)
        except ConfigError:
            # It may be being written just now: the next failure reads it again.
            return None
        if made is None:
            return None
        if connections in self._own:
            self._own[connections] = made
        else:
            self._shared[connections.tls] = made
        return made
