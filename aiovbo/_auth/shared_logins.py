"""Logins that are shared with other processes through a token store.

Knows keys, and tokens as they are stored. A store that fails costs a warning, never a login.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from hashlib import blake2b, scrypt
from secrets import token_bytes, token_hex
from typing import Any, cast

from aiovbo import errors
from aiovbo._core.threads import in_thread_if_possible
from aiovbo._protocol.messages import Redacted
from aiovbo._protocol.tokens import Grant, checked_token
from aiovbo._settings.clock import TimeSource
from aiovbo._settings.servers import Server
from aiovbo._settings.token_store import StoredEntry, TokenStore
from aiovbo.errors import AuthenticationError, ServerError

log = logging.getLogger("aiovbo.login")

_PLAIN = (str, int, float, bool, type(None))
"""Types of an error's attributes that are stored."""

_PATIENCE, _AFTER_DEADLINE = 5.0, 0.1
"""Seconds to wait for a store, and for one that is written after a login was cancelled."""

_DAY = 86400.0
_SALT_LASTS = 10 * 365 * _DAY
_REFRESH_LASTS = 7 * _DAY
"""Seconds for which an expired token is kept, for its refresh token."""

_VERDICTS_LAST = 7 * _DAY
"""Seconds for which it is kept what servers said of a secret."""

_REMEMBERED = 256
"""Secrets whose digests are kept in memory: each costs the time of scrypt."""


class SharedLogins:
    """Tokens and verdicts of a fleet's servers in a token store."""

    def __init__(self, store: TokenStore, clock: TimeSource) -> None:
        self._store = store
        self._clock = clock
        self._salt: bytes | None = None
        self._memory_key = token_bytes(32)
        self._digests: dict[bytes, bytes] = {}
        self._computing = asyncio.Lock()
        self._has_failed = False

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def token(self, server: Server, form: Redacted[dict[str, str]]) -> Grant | None:
        """The newest token that was granted for a login form, with the lifetime that is left, perhaps none.

        None where nothing is stored.
        """
        key = await self._key(form, str(server.url))
        found = await self._read(key) if key else None
        try:
            members = cast("dict[str, Any]", json.loads(found.value)) if found is not None else {}
            access = checked_token(members["access_token"], phase="queue", hint="")
            refresh = members["refresh_token"]
            lifetime = float(members["expires"]) - self._now()
        except (ValueError, TypeError, KeyError, AuthenticationError):
            return None
        return Grant(access, refresh if isinstance(refresh, str) and refresh else None, lifetime)

    async def save_token(self, server: Server, form: Redacted[dict[str, str]], grant: Grant) -> None:
        """Store a token that was granted for a login form."""
        key = await self._key(form, str(server.url))
        entry = _entry(grant, self._now() + grant.lifetime)
        if key:
            await self._update(key, lambda _: entry)

    async def verdicts(self, form: Redacted[dict[str, str]]) -> str | None:
        """What is stored of a secret; None where nothing is."""
        key = await self._key(form, "verdicts")
        found = await self._read(key) if key else None
        return None if found is None else found.value

    async def update_verdicts(
        self, form: Redacted[dict[str, str]], change: Callable[[str | None], str]
    ) -> None:
        """Replace what is stored of a secret."""
        key = await self._key(form, "verdicts")
        expires = self._now() + _VERDICTS_LAST
        if key:
            await self._update(
                key, lambda old: StoredEntry(change(None if old is None else old.value), expires)
            )

    async def _key(self, form: Redacted[dict[str, str]], purpose: str) -> str:
        """The key of an entry; it can be computed only by who knows the secret. Empty without a salt."""
        if self._salt is None:
            fresh = StoredEntry(token_hex(16), self._now() + _SALT_LASTS)
            found = await self._read("salt")
            if found is None:
                await self._update("salt", lambda old: old or fresh)
                found = await self._read("salt")
            if found is None:
                return ""
            self._salt = found.value.encode()
        salt = self._salt
        secret = _secret_of(form)
        known = blake2b(secret.content, key=self._memory_key).digest()
        # One at a time: all servers of a fleet need the same one at once.
        async with self._computing:
            if known not in self._digests:
                if len(self._digests) >= _REMEMBERED:
                    self._digests.clear()
                # Slow on purpose: a copy of the store must not be a way to guess passwords.
                self._digests[known] = await in_thread_if_possible(
                    lambda: scrypt(secret.content, salt=salt, n=2**14, r=8, p=1, dklen=32)
                )
            digest = self._digests[known]
        return blake2b(purpose.encode(), key=digest, digest_size=16).hexdigest()

    async def _read(self, key: str) -> StoredEntry | None:
        try:
            async with _timeout():
                return await self._store.read(key)
        except Exception as error:  # whatever a store raises, the login goes on
            self._warn(error)
            return None

    async def _update(self, key: str, change: Callable[[StoredEntry | None], StoredEntry | None]) -> None:
        try:
            async with _timeout():
                await self._store.update(key, change)
        except Exception as error:  # as above
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed = True
            # Only the operating system's words: others could repeat a token.
            why = type(error).__name__
            if isinstance(error, OSError) and error.strerror:
                why = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            log.warning("the token store cannot be used, logins continue without it: %s", why)


def _timeout() -> asyncio.Timeout:
    """Limits a call of the store; a login that was cancelled at its deadline has hardly any time left."""
    task = asyncio.current_task()
    is_cancelled = task is not None and task.cancelling() > 0
    return asyncio.timeout(_AFTER_DEADLINE if is_cancelled else _PATIENCE)


def dump_error(error: ServerError) -> dict[str, object]:
    """What an error says, as JSON; errors contain no secret."""
    said = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN)}
    return {"kind": type(error).__name__, **said}


def restore_error(found: dict[str, Any]) -> ServerError:
    """The error that another process has stored.

    Raises: TypeError where it is none.
    """
    kind: object = getattr(errors, str(found["kind"]), None)
    if not (isinstance(kind, type) and issubclass(kind, ServerError)):
        raise TypeError
    error = kind(str(found["what"]))
    for name, value in found.items():
        if hasattr(error, name) and isinstance(value, _PLAIN):
            setattr(error, name, value)
    return error


def _secret_of(form: Redacted[dict[str, str]]) -> Redacted[bytes]:
    # Accounts of a domain do not distinguish case.
    fields = [(n, v.casefold() if n == "username" else v) for n, v in sorted(form.content.items())]
    return Redacted(json.dumps(fields).encode())


def _entry(grant: Grant, expires: float) -> StoredEntry:
    members = {
        "access_token": grant.access_token,
        "refresh_token": grant.refresh_token,
        "expires": expires,
    }
    return StoredEntry(json.dumps(members), expires + _REFRESH_LASTS)
