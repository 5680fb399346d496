"""Which servers a command queries, and with which limits: an inventory, or addresses on the command line.

Knows the options that select servers; what variables and files add is in `_inventory`. Sends nothing.
"""

import logging
import os
import sys
from getpass import getpass
from typing import Any

from aiovbo import ConfigError, Fleet
from aiovbo._cli._options import Selection
from aiovbo._cli._token_folder import shared_store
from aiovbo._inventory.environment import USER, Arguments, inventory_from, uses_addresses
from aiovbo._settings.log_output import show_log

_MOST_NAMES = 10
"""Maximum number of names in a message."""


def fleet_of(which: Selection, **more: Any) -> Fleet:  # as Fleet takes them
    """The fleet of the selected servers, not opened yet.

    Raises: ConfigError for options that exclude each other, and where no server is selected.
    """
    if which.verbose:
        show_log(logging.INFO if which.verbose == 1 else logging.DEBUG)
    given = Arguments(
        fleet=which.fleet,
        url=tuple(which.url),
        user=which.user,
        pin=tuple(which.pin),
        ca_file=which.ca_file,
        insecure=which.insecure,
        allow_http=which.allow_http,
        proxy=which.proxy,
        ask_password=_ask_password,
    )
    _check_options(which, given)
    found = inventory_from(given)
    options = found.options
    if which.deadline is not None:
        options["deadline"] = which.deadline
    if which.retries is not None:
        options["retries"] = which.retries
    store = None if which.no_token_store else shared_store()
    fleet = Fleet(found.servers, **options, token_store=store, **more)
    labels = [_label(text) for text in which.label]
    unknown = [name for name in dict.fromkeys(which.server) if name not in fleet]
    if unknown:
        there = ", ".join(list(fleet)[:_MOST_NAMES]) + (", …" if len(fleet) > _MOST_NAMES else "")
        message = f"no server is called {', '.join(unknown)}; there are: {there}"
        raise ConfigError(message)
    for name in list(fleet):
        has = fleet[name].server.labels
        if (which.server and name not in which.server) or any(has.get(k) != v for k, v in labels):
            fleet.remove(name)
    if not len(fleet):
        raise ConfigError("no server has these labels")
    return fleet


def _check_options(which: Selection, given: Arguments) -> None:
    """Reject options that exclude each other.

    Raises: ConfigError for them.
    """
    if which.url and which.fleet is not None:
        raise ConfigError("servers come from --fleet or from --url: give one of them")
    if which.url and which.user is None and USER not in os.environ:
        raise ConfigError("--url needs --user, and the password in the variable VBO_PASSWORD")
    trust = which.ca_file is not None, bool(which.pin), which.insecure
    if sum(trust) > 1:
        raise ConfigError("--ca-file, --pin and --insecure: give one of them, each replaces the others")
    if not uses_addresses(given) and (which.user is not None or any(trust) or which.allow_http):
        raise ConfigError("--user, --pin, --ca-file, --insecure and --allow-http go with --url")


def _ask_password(user: str) -> str:
    if not sys.stdin.isatty():
        return ""
    try:
        return getpass(f"Password of {user}: ")
    except EOFError:
        return ""


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        message = f"--label is KEY=VALUE, not {text!r}"
        raise ConfigError(message)
    return key, value
