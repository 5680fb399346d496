"""A server and how it is trusted: address, credentials, TLS policy. Frozen values, checked when made.

Knows nothing of HTTP libraries and does no I/O: files are named here and read elsewhere.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from os import PathLike, fspath
from typing import Literal

from attrs import field, frozen
from yarl import URL

from aiovbo._settings.api_versions import API_VERSIONS, ApiVersion, versions_with
from aiovbo._settings.credentials import Credentials, Integration, is_switch
from aiovbo._settings.proxies import Proxy, environment_proxy, parse_proxy
from aiovbo.errors import ConfigError

TlsVersion = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
"""A version of TLS."""
TLS_VERSIONS: tuple[TlsVersion, ...] = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""The versions of TLS that can be the lowest, oldest first."""

DEFAULT_PORT = 4443
"""Source: Veeam Backup for Microsoft 365 help center, "REST API", read 2026-11-23."""

_FINGERPRINT = "openssl s_client -connect HOST:4443 </dev/null | openssl x509 -noout -fingerprint -sha256"


def _path(value: "str | PathLike[str] | None") -> str | None:
    return None if value is None else fspath(value)


def _pins(value: str | Iterable[str]) -> tuple[str, ...]:
    given: object = value
    if not isinstance(given, Iterable):
        message = f"a pin is a text such as 'sha256:...', or several, not {given!r}"
        raise ConfigError(message)
    return tuple(_pin(text) for text in ([value] if isinstance(value, str) else value))


def _pin(text: str) -> str:
    digits = re.sub(r"[:\s]", "", re.sub(r"(?i)^\s*sha-?256\s*[:=]", "", text)).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits):
        return f"sha256:{digits}"
    if re.fullmatch(r"(sha-?1)?[0-9a-f]{40}", digits.removeprefix("sha1=")):
        problem = "is a SHA-1 thumbprint, which proves nothing any more; give the SHA-256 fingerprint"
    else:
        problem = "is no SHA-256 fingerprint (64 hexadecimal digits)"
    message = f"the pin {text!r} {problem}. To see it: {_FINGERPRINT}"
    raise ConfigError(message)


def _server_name(_: object, __: object, value: str | None) -> None:
    if value is None:
        return
    given: object = value
    problem = not isinstance(given, str) or not re.fullmatch(r"[\w:-][\w.:-]*", given)
    try:
        str(value).encode("idna")
    except ValueError:
        problem = True
    if problem:
        message = f"server_name is the name of a server, such as 'vbo1.tech.local', not {value!r}"
        raise ConfigError(message)


def _tls_version(_: object, __: object, value: TlsVersion | None) -> None:
    if value is not None and value not in TLS_VERSIONS:
        message = f"minimum_version is one of {', '.join(TLS_VERSIONS)}, not {value!r}"
        raise ConfigError(message)


@frozen(cache_hash=True)
class TLS:
    """Whom to trust. Without arguments: the certificates that the operating system trusts.

    Files are read when a client or fleet is opened; one that is replaced later counts from the next opening.
    """

    ca_file: str | None = field(default=None, converter=_path, kw_only=True)
    """PEM file of the authorities to trust, in place of the system's."""
    pin: tuple[str, ...] = field(default=(), converter=_pins, kw_only=True)
    """SHA-256 fingerprints of the server's own certificate, `sha256:…`, one or several; nothing else
    of the certificate is checked then, so a self-signed one will do."""
    insecure: bool = field(default=False, validator=is_switch, kw_only=True)
    """Check nothing at all. An attacker in between reads the password."""
    client_cert: str | None = field(default=None, converter=_path, kw_only=True)
    """PEM file with the client certificate, for servers that require one."""
    client_key: str | None = field(default=None, converter=_path, kw_only=True)
    """PEM file with its key; None: it is in `client_cert`."""
    strict_x509: bool = field(default=True, validator=is_switch, kw_only=True)
    """False accepts old authorities that break RFC 5280, which Python 3.13 and later reject."""
    server_name: str | None = field(default=None, validator=_server_name, kw_only=True)
    """Name in the certificate, where it is not the one in the URL: sent to the server (SNI), and compared
    with the certificate."""
    minimum_version: TlsVersion | None = field(default=None, validator=_tls_version, kw_only=True)
    """Lowest version of TLS that is accepted; None: TLSv1.2. "TLSv1" and "TLSv1.1" are for old servers: they
    allow weak keys, digests and ciphers too."""

    def __attrs_post_init__(self) -> None:
        if sum((self.ca_file is not None, bool(self.pin), self.insecure)) > 1:
            message = "TLS takes one of ca_file, pin and insecure: each replaces the others"
            raise ConfigError(message)
        if self.client_key is not None and self.client_cert is None:
            message = "TLS(client_key=...) needs client_cert too"
            raise ConfigError(message)


def server_url(value: str | URL) -> URL:
    """A server's base URL, with scheme and port.

    Raises: ConfigError where it can be none.
    """
    given: object = value
    if not isinstance(given, str | URL):
        message = f"a server's URL is a str or a yarl.URL, not {type(given).__name__}"
        raise ConfigError(message)
    text = str(value)
    if "@" in text or "%40" in text:
        message = "a server's URL holds no user name or password: give them as Password(...)"
        raise ConfigError(message)
    try:
        # The text of a URL leaves out the port that its scheme has anyway, such as 443.
        return _parsed(text, value.explicit_port if isinstance(value, URL) else None)
    except ValueError as error:
        message = f"{text!r} is no server URL: {error}"
    raise ConfigError(message)


def _parsed(text: str, port: int | None) -> URL:
    if text != text.strip() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("it has spaces, backslashes or control characters")
    if "://" not in text:
        text = text.removeprefix("//")
        bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
        text = f"https://[{text}]" if bare_ipv6 else f"https://{text}"
    url = URL(text)
    host = _host(url)
    port = port or url.explicit_port
    is_bare_scheme = host in ("http", "https") and not port and url.path != "/"
    if url.scheme not in ("https", "http") or not host or is_bare_scheme or url.explicit_port == 0:
        raise ValueError("expected https://host or https://host:port")
    if "[" in text and not host.startswith("["):
        raise ValueError("brackets are for IPv6 addresses")
    if url.query_string or url.fragment:
        raise ValueError("leave out what follows '?' or '#'")
    if re.search(r"(?i)/v\d+/?$", url.path):
        raise ValueError("leave out the API version, and give it as api_version if need be")
    if _ODD_PATH.search(url.raw_path):
        raise ValueError("its path has '..', a control character or an escaped slash")
    base = URL.build(scheme=url.scheme, authority=host, path=url.raw_path.rstrip("/"), encoded=True)
    return base.with_port(port or DEFAULT_PORT)


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII | re.IGNORECASE)
_LONGEST_NAME = 253
_SCOPE = re.compile(r"(?:%25(?=.)|%)(?P<scope>[\w.~-]{1,64})", re.ASCII)
_ODD_PATH = re.compile(r"(?i)(^|/)(\.|%2e){1,2}(/|$)|%2f|%5c|%[01][0-9a-f]|%7f")


def _host(url: URL) -> str:
    """The host of a URL, as it is connected to: an IPv6 address in brackets, with its scope after a `%`.

    Raises: ValueError where no host can have this name or address.
    """
    host = url.raw_host or ""
    if ":" in host:
        address, percent, _ = host.partition("%")
        scope = _SCOPE.fullmatch(host[len(address) :])
        if percent and scope is None:
            raise ValueError("what follows '%' is not the name of a network interface")
        try:
            IPv6Address(address)
        except ValueError:
            message = f"{address!r} is not an IPv6 address"
            raise ValueError(message) from None
        return f"[{address}%{scope['scope']}]" if scope else f"[{address}]"
    if not host:
        return ""
    labels = host.removesuffix(".").split(".")
    if re.fullmatch(r"(?i)\d+|0x[0-9a-f]*", labels[-1]):
        # Operating systems differ in what they make of 127.1, 0177.0.0.1 or 2130706433.
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise ValueError("an IPv4 address has four decimal numbers, such as 10.0.0.7") from None
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)) or not _is_decodable(url):
        raise ValueError("no host can have this name")
    return host


def _is_decodable(url: URL) -> bool:
    try:
        _ = url.host
    except ValueError:
        # A label of the form "xn--..." that encodes no text.
        return False
    return True


def _api_version(value: Literal["auto"] | ApiVersion) -> Literal["auto"] | ApiVersion:
    if value in ("auto", *API_VERSIONS):
        return value
    message = f"api_version is 'auto' or one of {', '.join(API_VERSIONS)}, not {value!r}"
    raise ConfigError(message)


def _name(value: str | None) -> str:
    given: object = value
    if given is not None and not (isinstance(given, str) and given and given.isprintable()):
        message = f"a server's name is a line of text, not {value!r}"
        raise ConfigError(message)
    return value or ""


class _Labels(Mapping[str, str]):
    """Labels that cannot be changed, so that what has them can be hashed."""

    __slots__ = ("_pairs",)

    def __init__(self, labels: Mapping[str, str]) -> None:
        given: object = labels
        pairs = tuple(labels.items()) if isinstance(given, Mapping) else ((None, None),)
        if not all(isinstance(text, str) for pair in pairs for text in pair):
            message = "labels are texts by name, such as {'site': 'athens'}"
            raise ConfigError(message)
        self._pairs = tuple(labels.items())

    def __getitem__(self, name: str) -> str:
        return dict(self._pairs)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(frozenset(self._pairs))

    def __repr__(self) -> str:
        return repr(dict(self._pairs))


def check_name(name: str | None) -> None:
    """Nothing where it can be the name of a server.

    Raises: ConfigError where it cannot.
    """
    _name(name)


def check_credentials(given: object, *, of: str = "") -> None:
    """Nothing where they are.

    Raises: ConfigError, which begins with `of`, where they are something else.
    """
    if not isinstance(given, Credentials):
        kind = type(given).__name__
        message = f"{of}credentials are a Password, a Bearer, an Assertion or an Integration, not {kind}"
        raise ConfigError(message)


def check_tls(given: object, *, of: str = "") -> None:
    """Nothing where it is one.

    Raises: ConfigError, which begins with `of`, where it is something else.
    """
    if not isinstance(given, TLS):
        message = f"{of}tls is a TLS, such as TLS(ca_file=...), not {type(given).__name__}"
        raise ConfigError(message)


@frozen
class Server:
    """One backup server: where it is, how to log in, whom to trust."""

    url: URL = field(converter=server_url)
    """Scheme defaults to https, port to 4443; a path prefix (reverse proxy) is kept."""
    credentials: Credentials
    """How to log in."""
    name: str = field(default=None, converter=_name, kw_only=True)
    """What it is called in results and errors; the host, or host:port where the port is not 4443."""
    api_version: Literal["auto"] | ApiVersion = field(default="auto", converter=_api_version, kw_only=True)
    """"auto" finds the newest version that the server offers."""
    tls: TLS = field(default=TLS(), kw_only=True)
    """Whom to trust."""
    allow_http: bool = field(default=False, validator=is_switch, kw_only=True)
    """True permits `http://`, where everybody on the way reads the password."""
    proxy: Proxy | Literal["environment"] | None = field(default=None, converter=parse_proxy, kw_only=True)
    """Forward proxy through which it is reached (CONNECT), such as `http://proxy.tech.local:3128`; its URL
    may contain a user name and a password. "environment" takes it from HTTPS_PROXY and NO_PROXY, when the
    client or fleet is made. None: no proxy."""
    labels: Mapping[str, str] = field(factory=dict[str, str], converter=_Labels, kw_only=True)
    """What you call it by besides its name, such as a site or a tenant; never sent."""

    @property
    def usable_versions(self) -> tuple[ApiVersion, ...]:
        """The API versions in which the credentials can log in, the oldest first."""
        is_integration = isinstance(self.credentials, Integration)
        return versions_with("integration tokens") if is_integration else API_VERSIONS

    def __attrs_post_init__(self) -> None:
        check_credentials(self.credentials, of=f"{self.url}: ")
        check_tls(self.tls, of=f"{self.url}: ")
        if self.api_version not in ("auto", *self.usable_versions):
            message = (
                f"{self.url}: an integration token logs in to API v6 and v7 only, not {self.api_version}: "
                "use other credentials"
            )
            raise ConfigError(message)
        if self.url.scheme == "http" and not self.allow_http:
            message = (
                f"{self.url} would send the password unencrypted: "
                "use https, or say Server(..., allow_http=True)"
            )
            raise ConfigError(message)
        if not self.name:
            host, port = self.url.host_subcomponent, self.url.port
            name = f"{host}" if port == DEFAULT_PORT else f"{host}:{port}"
            object.__setattr__(self, "name", name)

    def find_proxy(self) -> Proxy | None:
        """The forward proxy through which it is reached, read from the environment where `proxy` says so.

        Raises: ConfigError where the environment names none that can be used.
        """
        return environment_proxy(self.url) if self.proxy == "environment" else self.proxy


def same_server(name: str, url: URL, other: str) -> str:
    """The message for a server that has the URL and the credentials of the server called `other`."""
    return (
        f"{name!r} is the same server as {other!r}: {url} with equal credentials. "
        "Remove one of them, or give it other credentials"
    )
