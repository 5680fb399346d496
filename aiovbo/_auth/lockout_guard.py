"""The lock-out guard: limits how often a secret is sent to servers that do not accept it.

Knows the secrets of a fleet by keyed digests only, what servers said of each, and the throttles of their
addresses. Sends nothing.
"""

import json
from collections import Counter
from collections.abc import Hashable
from hashlib import blake2b
from secrets import token_bytes

from aiovbo._auth.credential_verdicts import CredentialVerdicts, LoginTurn
from aiovbo._auth.login_rounds import LoginLimits
from aiovbo._auth.shared_logins import SharedLogins
from aiovbo._auth.token_throttle import TokenThrottle
from aiovbo._protocol.messages import Redacted
from aiovbo._settings.clock import TimeSource
from aiovbo._settings.credentials import Assertion, Bearer, Credentials, Integration, Password
from aiovbo._settings.servers import Server
from aiovbo._settings.token_store import TokenStore, check_token_store

_SECRETS_PER_SERVER = 16
"""Secrets that are remembered: a provider may give a new one for every login."""


class LockoutGuard:
    """What servers said of the secrets of a fleet, and which server may be sent a secret now.

    Domain accounts lock after a few wrong passwords, on whichever server. So a secret that no server has
    accepted is sent to at most `limit` servers that reject it; after `cooldown` seconds to as many others;
    then, from an hour later on, to one server an hour. A `cooldown` of 0 disables all of this.
    """

    def __init__(
        self, limit: int, cooldown: float, clock: TimeSource, token_store: TokenStore | None = None
    ) -> None:
        if token_store is not None:
            check_token_store(token_store)
        self.shared: SharedLogins | None = None if token_store is None else SharedLogins(token_store, clock)
        """Where other processes read and write tokens and verdicts."""
        self._limits = LoginLimits(limit, cooldown)
        self._clock = clock
        self._key = token_bytes(32)
        self._shared: Counter[Hashable] = Counter()
        self._verdicts: dict[bytes, CredentialVerdicts] = {}
        self._throttles: dict[tuple[str | None, int | None], TokenThrottle] = {}

    def throttle(self, server: Server) -> TokenThrottle:
        """The throttle of logins at the server's address, which all servers there share."""
        address = server.url.host, server.url.port
        return self._throttles.setdefault(address, TokenThrottle(self._clock))

    def register(self, server: Server) -> None:
        """Note that one more server uses its credentials."""
        self._shared[self._identity(server.credentials)] += 1

    def forget(self, server: Server) -> None:
        """Note that a server left: no other server yields to it any more."""
        self._shared[self._identity(server.credentials)] -= 1
        for verdicts in self._verdicts.values():
            verdicts.forget(server)

    def is_widely_shared(self, credentials: Credentials) -> bool:
        """Whether more servers use these credentials than may try them at once."""
        return self._limits.cooldown > 0 and self._shared[self._identity(credentials)] > self._limits.limit(0)

    def verdicts(self, form: Redacted[dict[str, str]]) -> CredentialVerdicts:
        """What is known of the secret in a login form; only a digest of it is kept."""
        digest = self._digest(form)
        found = self._verdicts.pop(digest, None) or CredentialVerdicts(self._limits, self._clock)
        # The newest is last; what was not used for longest is dropped.
        self._verdicts[digest] = found
        most = _SECRETS_PER_SERVER * (1 + self._shared.total())
        for oldest in list(self._verdicts)[: max(0, len(self._verdicts) - most)]:
            del self._verdicts[oldest]
        return found

    async def load(self, form: Redacted[dict[str, str]]) -> CredentialVerdicts:
        """What is known of the secret in a login form, by this process and those that share its store."""
        found = self.verdicts(form)
        if self.shared is not None and self._limits.cooldown > 0 and not found.turns:
            stored = await self.shared.verdicts(form)
            # Not over what a turn of this process has changed meanwhile.
            if stored is not None and not found.turns:
                found.restore(stored)
        return found

    async def save(self, form: Redacted[dict[str, str]], server: Server, turn: LoginTurn) -> None:
        """Let other processes know how a turn ended."""
        try:
            outcome = turn.outcome
            if self.shared is None or self._limits.cooldown <= 0 or outcome is None:
                return

            def change(stored: str | None) -> str:
                # As it is by now: another process may have written since it was loaded.
                verdicts = CredentialVerdicts(self._limits, self._clock)
                if stored is not None:
                    verdicts.restore(stored)
                outcome(verdicts, server)
                return verdicts.dump()

            await self.shared.update_verdicts(form, change)
        finally:
            turn.finish()

    def _digest(self, form: Redacted[dict[str, str]]) -> bytes:
        # Accounts of a domain do not distinguish case.
        fields = [(n, v.casefold() if n == "username" else v) for n, v in sorted(form.content.items())]
        return blake2b(json.dumps(fields).encode(), key=self._key).digest()

    def _identity(self, credentials: Credentials) -> Hashable:
        match credentials:
            case Password():
                return credentials.username.casefold(), credentials.password.fingerprint(self._key)
            case Assertion():
                return credentials.client_id, credentials.assertion.fingerprint(self._key)
            case Integration():
                return credentials.integration_token.fingerprint(self._key)
            case Bearer():
                return None
