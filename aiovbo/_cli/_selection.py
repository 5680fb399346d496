"""Which servers a command asks, and by which limits: an inventory, or addresses on the command line.

Knows options and where an inventory is found. Asks nothing.
"""

import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

from attrs import field, frozen
from cyclopts import Group, Parameter

from aiovbo import TLS, ConfigError, Fleet, Password
from aiovbo._config import FleetOptions

_GROUP = Group("Servers", sort_key=1)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _option(text: str, **more: Any) -> Parameter:  # noqa: ANN401  # whatever cyclopts takes
    return Parameter(help=text, group=_GROUP, negative="", **more)


@Parameter(name="*")
@frozen(kw_only=True)
class Selection:
    """The servers that are meant."""

    fleet: Annotated[Path | None, _option("Inventory; AIOVBO_FLEET or ./fleet.toml if not given.")] = None
    """A file."""
    url: Annotated[list[str], _option("A server's address, in place of an inventory; repeatable.")] = field(
        factory=list[str]
    )
    """Addresses."""
    user: Annotated[str | None, _option(r"Who logs on at --url, such as 'TECH\monitor'.")] = None
    """An account; its password is in VBO_PASSWORD, or is asked for."""
    pin: Annotated[list[str], _option("Fingerprint to trust at --url; `aiovbo pin` shows it.")] = field(
        factory=list[str]
    )
    """SHA-256 fingerprints."""
    ca_file: Annotated[Path | None, _option("Authorities to trust at --url, PEM.")] = None
    """A file."""
    insecure: Annotated[bool, _option("Trust whoever answers at --url: he learns the password.")] = False
    """Whether to check nothing."""
    server: Annotated[list[str], _option("Only the server of this name; repeatable.")] = field(
        factory=list[str]
    )
    """Names."""
    label: Annotated[list[str], _option("Only servers with this label, KEY=VALUE; repeatable.")] = field(
        factory=list[str]
    )
    """Labels, all of which must fit."""
    deadline: Annotated[float | None, _option("Seconds for all that one server is asked.")] = None
    """A limit."""
    retries: Annotated[int | None, _option("How often a request is repeated that may be.")] = None
    """A limit."""

    def open(self, **more: Any) -> Fleet:  # noqa: ANN401  # as Fleet takes them
        """The fleet of these servers, not opened yet.

        Raises: ConfigError for options that do not fit, and where no server is meant.
        """
        limits: FleetOptions = {}
        if self.deadline is not None:
            limits["deadline"] = self.deadline
        if self.retries is not None:
            limits["retries"] = self.retries
        fleet = self._from_urls(limits, more) if self.url else self._from_inventory(limits, more)
        labels = [_label(text) for text in self.label]
        unknown = sorted(set(self.server) - set(fleet))
        if unknown:
            there = ", ".join(sorted(fleet)[:10])
            message = f"no server is called {', '.join(unknown)}; there are: {there}"
            raise ConfigError(message)
        for name in list(fleet):
            has = fleet[name].server.labels
            if (self.server and name not in self.server) or any(has.get(k) != v for k, v in labels):
                fleet.remove(name)
        if not len(fleet):
            raise ConfigError("no server has these labels")
        return fleet

    def _from_urls(self, limits: FleetOptions, more: dict[str, Any]) -> Fleet:
        if self.user is None:
            raise ConfigError("--url needs --user, and the password in the variable VBO_PASSWORD")
        password = os.environ.get("VBO_PASSWORD")
        if password is None:
            if not sys.stdin.isatty():
                raise ConfigError("no password: set the variable VBO_PASSWORD")
            password = getpass(f"Password of {self.user}: ")
        tls = TLS(ca_file=self.ca_file, pin=self.pin, insecure=self.insecure)
        return Fleet(self.url, Password(self.user, password), tls=tls, **limits, **more)

    def _from_inventory(self, limits: FleetOptions, more: dict[str, Any]) -> Fleet:
        if self.user or self.pin or self.ca_file or self.insecure:
            raise ConfigError("--user, --pin, --ca-file and --insecure go with --url")
        path = self.fleet or Path(os.environ.get("AIOVBO_FLEET", "fleet.toml"))
        if self.fleet is None and "AIOVBO_FLEET" not in os.environ and not path.exists():
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


def ago(_: type, tokens: Iterable[Any]) -> timedelta | datetime:
    """A point in time as it is written on a command line: `24h`, `7d`, or a date.

    Raises: ValueError where it is none.
    """
    (token,) = tokens
    text: str = token.value
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time: give 30m, 24h, 7d, or a date such as 2026-11-23 or 2026-11-23T08:00"
        raise ValueError(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def span(kind: type, tokens: Iterable[Any]) -> timedelta:
    """A duration as it is written on a command line: `30s`, `24h`.

    Raises: ValueError where it is none.
    """
    found = ago(kind, tokens)
    if not isinstance(found, timedelta):
        raise ValueError("a duration is 30s, 5m or 24h")  # noqa: TRY004  # what cyclopts tells well
    return found
