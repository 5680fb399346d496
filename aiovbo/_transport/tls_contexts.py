"""The TLS contexts of one session: made once per policy, and made again when the files of one have changed.

Uses threads for the files. Must not know requests.
"""

from contextlib import suppress
from functools import partial
from weakref import WeakKeyDictionary

from attrs import frozen

from aiovbo._core.threads import NoThreadError, in_thread, in_thread_if_possible
from aiovbo._settings.servers import TLS
from aiovbo._transport.connections import ServerConnections
from aiovbo._transport.tls import FileStates, ServerContext, states_of_files
from aiovbo.errors import ConfigError, TlsError, TlsReason


@frozen(eq=False)
class _Loaded:
    """A context, and the states in which its files were."""

    context: ServerContext
    files: FileStates


class TlsContexts:
    """Contexts by policy; a server that was replaced has one of its own."""

    def __init__(self) -> None:
        self._shared: dict[TLS, _Loaded] = {}
        self._own: WeakKeyDictionary[ServerConnections, _Loaded] = WeakKeyDictionary()

    async def load(self, tls: TLS) -> ServerContext:
        """The context that all servers with this policy share.

        Raises: ConfigError where a file cannot be used.
        """
        if tls not in self._shared:
            self._shared[tls] = await _load(tls)
        return self._shared[tls].context

    async def context_for(self, connections: ServerConnections) -> ServerContext:
        """The context for a server's connections.

        Raises: TlsError where a file of a server that joined late, or was replaced, cannot be used.
        """
        found = self._loaded(connections)
        return await self._load_late(connections) if found is None else found.context

    def _loaded(self, connections: ServerConnections) -> _Loaded | None:
        found = self._own.get(connections)
        return found if found or connections.reads_files_again else self._shared.get(connections.tls)

    async def _load_late(self, connections: ServerConnections) -> ServerContext:
        tls = connections.tls
        try:
            if not connections.reads_files_again:
                return await self.load(tls)
            made = await _load(tls)
        except ConfigError as error:
            problem = str(error)
        else:
            self._own[connections] = made
            return made.context
        reason: TlsReason = "client_cert" if tls.client_cert else "untrusted"
        raise TlsError(problem, reason=reason, hint="Fix this, then add the server again.")

    async def reload(self, connections: ServerConnections, failed: ServerContext) -> ServerContext | None:
        """A new context, where files of the one with which a handshake failed have changed; None otherwise.

        Certificates are renewed while a program runs: it needs no restart for that.
        """
        current = self._loaded(connections)
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
        if connections in self._own:
            self._own[connections] = made
        else:
            self._shared[connections.tls] = made
        return made.context


async def _load(tls: TLS) -> _Loaded:
    files: FileStates = []
    if tls.ca_file is not None or tls.client_cert is not None:
        with suppress(NoThreadError):
            # Before they are read: a file that is written meanwhile counts as changed.
            files = await in_thread(partial(states_of_files, tls))
    return _Loaded(await in_thread_if_possible(partial(ServerContext, tls)), files)
