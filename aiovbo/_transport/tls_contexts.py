"""The TLS contexts of one session: made once per policy, and made again when the files of one have changed.

Uses threads for the files. Must not know requests.
"""

from contextlib import suppress
from functools import partial

from aiovbo._core.threads import NoThreadError, in_thread, in_thread_if_possible
from aiovbo._settings.servers import TLS
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.tls import FileStates, LoadedTls, ServerContext, states_of_files
from aiovbo.errors import ConfigError, TlsError, TlsReason


class TlsContexts:
    """Contexts by policy; a server that was replaced has one of its own."""

    def __init__(self) -> None:
        self._shared: dict[TLS, LoadedTls] = {}

    async def load(self, tls: TLS) -> LoadedTls:
        """The context that all servers with this policy share.

        Raises: ConfigError where a file cannot be used.
        """
        if tls not in self._shared:
            self._shared[tls] = await _load(tls)
        return self._shared[tls]

    async def load_for(self, connections: ServerConnections) -> LoadedTls:
        """The context for a server's connections, before their first request.

        Raises: TlsError where a file of a server that joined late, or was replaced, cannot be used.
        """
        tls = connections.tls
        try:
            loaded = await (_load(tls) if connections.reads_files_again else self.load(tls))
        except ConfigError as error:
            problem = str(error)
        else:
            connections.loaded = loaded
            return loaded
        reason: TlsReason = "client_cert" if tls.client_cert else "untrusted"
        raise TlsError(problem, reason=reason, hint="Fix this, then add the server again.")

    async def reload(self, connections: ServerConnections, failed: ServerContext) -> ServerContext | None:
        """A new context, where files of the one with which a handshake failed have changed; None otherwise.

        Certificates are renewed while a program runs: it needs no restart for that.
        """
        current = connections.loaded
        if current is None or current.context is not failed:
            # Another request has been here.
            return None if current is None else current.context
        if not current.files:
            return None
        try:
            if await in_thread(partial(states_of_files, connections.tls)) == current.files:
                return None
            made = await _load(connections.tls)
        except (ConfigError, NoThreadError):
            # It may be being written just now: the next failure reads it again.
            return None
        current.context, current.files = made.context, made.files
        return made.context


async def _load(tls: TLS) -> LoadedTls:
    files: FileStates = []
    if tls.ca_file is not None or tls.client_cert is not None:
        with suppress(NoThreadError):
            # Before they are read: a file that is written meanwhile counts as changed.
            files = await in_thread(partial(states_of_files, tls))
    return LoadedTls(await in_thread_if_possible(partial(ServerContext, tls)), files)
