"""Which servers are meant where nothing but the environment says so: variables, and files in known places.

One table of precedence for `Fleet.from_env` and the command line: arguments, variables, files. Reads files;
must not know options of a command.
"""

import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from attrs import evolve, field, frozen
from yarl import URL

from aiovbo._inventory.reader import Inventory, read_inventory
from aiovbo._settings.credentials import Password
from aiovbo._settings.limits import FleetOptions
from aiovbo._settings.proxies import Proxy, parse_proxy
from aiovbo._settings.servers import TLS, Server
from aiovbo.errors import ConfigError

FLEET, ADDRESSES, USER, PASSWORD = "AIOVBO_FLEET", "AIOVBO_URL", "AIOVBO_USER", "VBO_PASSWORD"
PIN, CA_FILE, PROXY = "AIOVBO_PIN", "AIOVBO_CA_FILE", "AIOVBO_PROXY"
DEADLINE, RETRIES = "AIOVBO_DEADLINE", "AIOVBO_RETRIES"
_FILE = "fleet.toml"


@frozen(kw_only=True)
class Arguments:
    """What the caller gives, and the environment does not decide; empty where nothing is given."""

    fleet: Path | None = None
    """An inventory."""
    url: tuple[str, ...] = ()
    """Addresses, in place of an inventory."""
    user: str | None = None
    """The account at the addresses."""
    pin: tuple[str, ...] = ()
    """Fingerprints to trust at the addresses."""
    ca_file: Path | None = None
    """Authorities to trust at the addresses."""
    insecure: bool = False
    """Whether to verify no certificate at the addresses."""
    allow_http: bool = False
    """Whether the addresses may be http://."""
    proxy: URL | str | None = field(default=None, repr=False)
    """Forward proxy of the servers that have none of their own."""
    ask_password: Callable[[str], str] | None = None
    """Gets the password of an account where the variable is not set."""


def user_inventory() -> Path | None:
    """Where the user's own inventory is looked for; None where platformdirs is not installed."""
    if find_spec("platformdirs") is None:
        return None
    from platformdirs import user_config_path  # an extra

    return user_config_path("aiovbo", appauthor=False) / _FILE


def uses_addresses(given: Arguments) -> bool:
    """Whether the servers are given by their addresses, and not by an inventory."""
    return bool(given.url) or (given.fleet is None and ADDRESSES in _values())


def inventory_from(given: Arguments) -> Inventory:
    """The servers that are meant, and the limits that variables and the file set.

    Raises: ConfigError where no server is meant, or something is invalid.
    """
    values = _values()
    if not given.url and given.fleet is None and ADDRESSES in values and FLEET in values:
        message = f"servers come from {FLEET} or from {ADDRESSES}: set one of them"
        raise ConfigError(message)
    found = _from_urls(given, values) if uses_addresses(given) else _from_file(given, values)
    proxy = _proxy(given.proxy)
    servers = tuple(one if one.proxy or not proxy else evolve(one, proxy=proxy) for one in found.servers)
    return Inventory(servers, {**found.options, **_limits(values)})


def _values() -> dict[str, str]:
    # Only those without a secret: a debugger shows them.
    names = (FLEET, ADDRESSES, USER, PIN, CA_FILE, DEADLINE, RETRIES)
    return {name: text for name in names if (text := os.environ.get(name, "").strip())}


def _from_urls(given: Arguments, values: Mapping[str, str]) -> Inventory:
    user = values.get(USER) if given.user is None else given.user
    if user is None:
        message = f"addresses need a user name: set the variable {USER}"
        raise ConfigError(message)
    login, tls = Password(user, _password_of(user, given.ask_password)), _trust(given, values)
    urls = given.url or _several(values[ADDRESSES])
    return Inventory(tuple(Server(url, login, tls=tls, allow_http=given.allow_http) for url in urls), {})


def _password_of(user: str, ask: Callable[[str], str] | None) -> str:
    # Line breaks at its end were not meant: `echo` and secret stores add them.
    password = os.environ.get(PASSWORD, "").rstrip("\r\n")
    if not password and ask is not None:
        password = ask(user)
    if not password:
        # An empty one would be sent, and count as a wrong one.
        message = f"no password: set the variable {PASSWORD}"
        raise ConfigError(message)
    return password


def _trust(given: Arguments, values: Mapping[str, str]) -> TLS:
    if given.ca_file is not None or given.pin or given.insecure:
        return TLS(ca_file=given.ca_file, pin=given.pin, insecure=given.insecure)
    if CA_FILE in values and PIN in values:
        message = f"set {CA_FILE} or {PIN}, each replaces the other"
        raise ConfigError(message)
    return TLS(ca_file=values.get(CA_FILE), pin=_several(values.get(PIN, "")))


def _from_file(given: Arguments, values: Mapping[str, str]) -> Inventory:
    if given.fleet is not None:
        return read_inventory(given.fleet)
    if FLEET in values:
        return read_inventory(values[FLEET])
    of_the_user = user_inventory()
    for path in (Path(_FILE), of_the_user):
        if path is not None and path.exists():
            return read_inventory(path)
    own = f" or {of_the_user}" if of_the_user else ""
    message = (
        f"no servers are configured: write an inventory ./{_FILE}{own}, or set {FLEET} to the path of one, "
        f"or set {ADDRESSES} to addresses, {USER} to a user name and {PASSWORD} to the password"
    )
    raise ConfigError(message)


def _proxy(given: URL | str | None) -> "Proxy | Literal['environment'] | None":
    if given is not None:
        return parse_proxy(given)
    try:
        return parse_proxy(os.environ.get(PROXY, "").strip() or None)
    except ConfigError as error:
        # Without the value, which may hold a password.
        message = f"{PROXY}: {error}"
    raise ConfigError(message)


def _limits(values: Mapping[str, str]) -> FleetOptions:
    limits: FleetOptions = {}
    if DEADLINE in values:
        limits["deadline"] = _number(DEADLINE, values[DEADLINE])
    if RETRIES in values:
        retries = _number(RETRIES, values[RETRIES])
        if not retries.is_integer():
            message = f"{RETRIES}: expected a whole number, not {values[RETRIES]!r}"
            raise ConfigError(message)
        limits["retries"] = int(retries)
    return limits


def _number(name: str, text: str) -> float:
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None:
        message = f"{name}: expected a number, not {text!r}"
        raise ConfigError(message)
    return float(text)


def _several(text: str) -> tuple[str, ...]:
    """Values that blanks or commas separate."""
    return tuple(text.replace(",", " ").split())
