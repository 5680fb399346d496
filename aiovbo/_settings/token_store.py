"""What `token_store=` must have, such as a `FileTokenStore`."""

from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from aiovbo.errors import ConfigError


@frozen
class StoredEntry:
    """One entry of a token store."""

    value: str = field(repr=False)
    """A text that may contain a token."""
    expires: float
    """When the entry is of no use any more, in seconds since 1970."""


class TokenStore(Protocol):
    """Where processes share tokens and rejected logins.

    Keys contain no secret, values may contain tokens. Where a method fails, the failure is logged, and the
    login continues without the store.
    """

    async def read(self, key: str, /) -> StoredEntry | None:
        """The entry of that key; None where there is none."""

    async def update(self, key: str, change: Callable[[StoredEntry | None], StoredEntry | None], /) -> None:
        """Replace the entry by what `change` returns for it, while no other process replaces it."""


def check_token_store(given: object) -> None:
    """Return if it is a token store.

    Raises: ConfigError where it is something else, such as a path.
    """
    if isinstance(given, type) or not all(
        callable(getattr(given, name, None)) for name in ("read", "update")
    ):
        message = f"token_store is a TokenStore, such as FileTokenStore('tokens'), not {given!r}"
        raise ConfigError(message)
