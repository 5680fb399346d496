"""Which servers a command asks, and by which limits: an inventory, or addresses on the command line.

Knows where an inventory is found, and where a password comes from. Asks nothing.
"""

import logging
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import Any

from aiovbo import TLS, ConfigError, Fleet, Password, Server
from aiovbo._cli._options import Selection
from aiovbo._cli._token_folder import shared_store
from aiovbo._settings.limits import FleetOptions
from aiovbo._settings.log_output import show_log


def fleet_of(which: Selection, **more: Any) -> Fleet:  # as Fleet takes them
    """The fleet of the servers that are meant, not opened yet.

    Raises: ConfigError for options that do not fit, and where no server is meant.
    """
    if which.verbose:
        show_log(logging.INFO if which.verbose == 1 else logging.DEBUG)
    limits: FleetOptions = {}
    if which.deadline is not None:
        limits["deadline"] = which.deadline
    if which.retries is not None:
        limits["retries"] = which.retries
    more = {"proxy": which.proxy, **more}
    more["token_store"] = None if which.no_token_store else shared_store()
    fleet = _from_urls(which, limits, more) if which.url else _from_inventory(which, limits, more)
    labels = [_label(text) for text in which.label]
    unknown = sorted(set(which.server) - set(fleet))
    if unknown:
        there = ", ".join(sorted(fleet)[:10])
        message = f"no server is called {', '.join(unknown)}; there are: {there}"
        raise ConfigError(message)
    for name in list(fleet):
        has = fleet[name].server.labels
        if (which.server and name not in which.server) or any(has.get(k) != v for k, v in labels):
            fleet.remove(name)
    if not len(fleet):
        raise ConfigError("no server has these labels")
    return fleet


def _from_urls(which: Selection, limits: FleetOptions, more: dict[str, Any]) -> Fleet:
    if which.fleet is not None:
        raise ConfigError("servers come from --fleet or from --url: give one of them")
    if which.user is None:
        raise ConfigError("--url needs --user, and the password in the variable VBO_PASSWORD")
    if sum((which.ca_file is not None, bool(which.pin), which.insecure)) > 1:
        raise ConfigError("--ca-file, --pin and --insecure: give one of them, each replaces the others")
    tls = TLS(ca_file=which.ca_file, pin=which.pin, insecure=which.insecure)
    login = Password(which.user, _password_of(which.user))
    servers = [Server(url, login, tls=tls, allow_http=which.allow_http) for url in which.url]
    return Fleet(servers, **limits, **more)


def _password_of(user: str) -> str:
    # A line break at its end was not meant: `echo` and secret stores add it.
    password = os.environ.get("VBO_PASSWORD", "").removesuffix("\n").removesuffix("\r")
    if not password and sys.stdin.isatty():
        try:
            password = getpass(f"Password of {user}: ")
        except EOFError:
            password = ""
    if not password:
        # An empty one would be sent, and count as a wrong one.
        raise ConfigError("no password: set the variable VBO_PASSWORD")
    return password


def _from_inventory(which: Selection, limits: FleetOptions, more: dict[str, Any]) -> Fleet:
    if which.user is not None or which.pin or which.ca_file or which.insecure or which.allow_http:
        raise ConfigError("--user, --pin, --ca-file, --insecure and --allow-http go with --url")
    named = os.environ.get("AIOVBO_FLEET")
    path = which.fleet or Path(named or "fleet.toml")
    if which.fleet is None and not named and not path.exists():
        raise ConfigError(
            "which servers? Give an inventory (--fleet FILE, the variable AIOVBO_FLEET, or a file "
            "./fleet.toml), or addresses: --url vbo1.tech.local --user 'TECH\\monitor'. "
            "`aiovbo demo` needs neither."
        )
    return Fleet.from_toml(path, **limits, **more)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        message = f"--label is KEY=VALUE, not {text!r}"
        raise ConfigError(message)
    return key, value
