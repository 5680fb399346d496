"""Forward proxies: where they are, and which one a server is reached through.

May use `errors`; must not know HTTP libraries.
"""

from base64 import b64encode
from typing import Literal, NoReturn

from attrs import field, frozen
from yarl import URL

from aiovbo.errors import ConfigError

_EXPECTED = 'expected proxy="http://host:port" or proxy="environment"'


@frozen
class Proxy:
    """A forward proxy that connects to servers (CONNECT). Its text is its host and port alone."""

    address: URL
    """`http://host:port`, without credentials."""
    username: str | None
    """User name for the proxy; None where it needs none."""
    password: str = field(default="", repr=False)
    """Password of that user."""

    def headers(self) -> dict[str, str]:
        """What a request to the proxy itself contains: its login, if it needs one."""
        if self.username is None:
            return {}
        login = b64encode(f"{self.username}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {login}"}

    def __reduce__(self) -> NoReturn:
        message = "proxies are not pickled, because that would write down their password"
        raise TypeError(message)

    def __str__(self) -> str:
        return f"{self.address.host_subcomponent}:{self.address.port}"


def parse_proxy(value: "URL | str | Proxy | None") -> "Proxy | Literal['environment'] | None":
    """The forward proxy that a setting names.

    Raises: ConfigError, without a password.
    """
    if value is None or isinstance(value, Proxy):
        return value
    if value == "environment":
        return "environment"
    found = _parsed(value)
    # A debugger would show the password in it.
    del value
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def _parsed(value: object) -> Proxy | str:  # one check after another
    """The proxy, or what is wrong with it."""
    if not isinstance(value, URL | str):
        return f"proxy is a URL, not {type(value).__name__}: {_EXPECTED}"
    text = str(value)
    if "://" not in text:
        text = f"http://{text}"
    try:
        url = URL(text)
        host, port = url.host, url.port
        _ = (host or "").encode("idna")
    except ValueError:
        # Without its words, which quote what was given.
        return f"the proxy's URL is invalid: {_EXPECTED}"
    if url.scheme != "http":
        return f"a proxy is reached by http, not by {url.scheme}: {_EXPECTED}"
    if not text.isprintable() or " " in text or not host or not port:
        return f"the proxy's URL is invalid: {_EXPECTED}"
    if url.path not in ("", "/") or url.query_string or url.fragment:
        return f"the proxy's URL has a path or a query: {_EXPECTED}"
    if ":" in (url.user or "") or (url.password and not url.user):
        return "the proxy's URL has a password without a user name, or a user name with a colon"
    address = URL.build(scheme="http", host=host, port=port)
    return Proxy(address, url.user, url.password or "")


def environment_proxy(url: URL) -> Proxy | None:
    """The proxy of HTTPS_PROXY (for `http://`, HTTP_PROXY) or ALL_PROXY; none where NO_PROXY has the server.

    Raises: ConfigError where the variable does not name one.
    """
    from urllib.request import getproxies_environment, proxy_bypass  # it imports HTTP

    named = getproxies_environment()
    variable = url.scheme if named.get(url.scheme) else "all"
    text = named.get(variable)
    if not text or proxy_bypass(f"{url.host}:{url.port}"):
        return None
    found = _parsed(text)
    del named, text
    if isinstance(found, str):
        message = f"the environment variable {variable.upper()}_PROXY: {found}"
        raise ConfigError(message)
    return found
