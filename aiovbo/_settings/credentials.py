"""Credentials: frozen values, checked when they are made, and the secrets in them, which nothing shows.

Does no I/O: a provider of a secret is called when the secret is needed.
"""

import re
from collections.abc import Awaitable, Callable, Hashable
from hashlib import blake2b
from typing import NoReturn

from attrs import Attribute, field, frozen

from aiovbo.errors import ConfigError

SecretSource = str | Callable[[], Awaitable[str]]
"""A secret, or an async callable that provides it when it is needed."""


def can_be_sent(text: str) -> bool:
    """Whether a text can be written as UTF-8: what is read from the environment cannot always."""
    # Not by trying: the exception would quote the text.
    return not _SURROGATE.search(text)


_SURROGATE = re.compile("[\ud800-\udfff]")


class Secret:
    """A secret that is not shown: not by repr, not by pickle, only to the one who reveals it."""

    __slots__ = ("_source",)

    def __init__(self, source: SecretSource) -> None:
        if not isinstance(source, str) and not callable(source):
            message = "a secret is a str, or an async callable that returns one"
            raise ConfigError(message)
        if isinstance(source, str) and not can_be_sent(source):
            message = "a password or token is not UTF-8: check the encoding of its variable"
            raise ConfigError(message)
        self._source = source

    @property
    def has_provider(self) -> bool:
        """Whether the user is prompted for it."""
        return not isinstance(self._source, str)

    async def reveal(self) -> str:
        """The secret's text; calls the provider where there is one.

        Raises: ConfigError where that is no async function.
        """
        if isinstance(self._source, str):
            return self._source
        given: object = self._source()
        if not isinstance(given, Awaitable):
            raise ConfigError("it is no async function")
        text: str = await given
        return text

    def fingerprint(self, key: bytes) -> Hashable:
        """A keyed digest of the text; where there is a provider, the secret itself, which compares it."""
        if not isinstance(self._source, str):
            return self
        return blake2b(self._source.encode(), key=key).digest()

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return False
        mine, its = self._source, other._source
        return mine is its or bool(mine == its)

    def __hash__(self) -> int:
        try:
            return hash(self._source)
        except TypeError:
            # A provider that can be compared and not hashed, such as a dataclass: equal ones have one type.
            return hash(type(self._source))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        message = (
            "credentials are not pickled, that would write the secret down: "
            "make them where they are used, for instance from the environment"
        )
        raise TypeError(message)


def _secret(value: SecretSource | Secret) -> Secret:
    # What holds one already was copied, by attrs.evolve.
    return value if isinstance(value, Secret) else Secret(value)


def _sent_secret(value: SecretSource | Secret) -> Secret:
    if value == "":
        message = "an empty secret would be sent, and rejected: check that its variable is set"
        raise ConfigError(message)
    return _secret(value)


def _username(value: str) -> str:
    given: object = value
    if not isinstance(given, str) or not given:
        message = "Password needs a user name such as 'DOMAIN\\user' or 'user@domain'"
        raise ConfigError(message)
    return _utf8(value)


def _utf8(value: str) -> str:
    given: object = value
    if not isinstance(given, str):
        message = f"a user name or client ID is a text, not {type(given).__name__}"
        raise ConfigError(message)
    if not can_be_sent(value):
        message = f"{value!r} is not UTF-8: check the encoding of its variable"
        raise ConfigError(message)
    return value


def is_switch(_: object, attribute: "Attribute[bool]", value: bool) -> None:  # noqa: FBT001  # as attrs calls it
    # "no" from a file or an environment would be true.
    if type(value) is not bool:
        message = f"{attribute.name} is True or False, not {value!r}"
        raise ConfigError(message)


@frozen
class Password:
    """A user name and password, exchanged for a token that is renewed as long as it is needed."""

    username: str = field(converter=_username)
    """`DOMAIN\\user` or `user@domain`."""
    password: Secret = field(converter=_sent_secret)
    """A `str`, or an async callable that provides it."""


@frozen
class Bearer:
    """A token that was obtained elsewhere; it cannot be renewed here."""

    token: Secret = field(converter=_secret)
    """A `str`, or an async callable that provides it; called again when a server rejects it."""


@frozen
class Assertion:
    """A signed assertion (JWT) of an application or an operator, exchanged for a token."""

    client_id: str = field(converter=_utf8)
    """The application's ID; for operators, user ID and tenant ID as `userId.tenantId`."""
    assertion: Secret = field(converter=_sent_secret)
    """A `str`, or an async callable that provides it; assertions do not live long."""
    operator: bool = field(default=False, validator=is_switch, kw_only=True)
    """True for the grant of restore operators; since v6."""


@frozen
class Integration:
    """An integration token, exchanged for an access token; API v6 and v7 only."""

    integration_token: Secret = field(converter=_sent_secret, alias="token")
    """A `str`, or an async callable that provides it."""


Credentials = Password | Bearer | Assertion | Integration
"""A way to log in."""
