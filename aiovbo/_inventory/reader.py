"""An inventory: the servers of a fleet and its limits, as they are written down in a file.

Knows how defaults, groups and servers add up, and how the file is described to editors. Must not know how a
server is asked. Whatever is wrong is reported by file and key, all of it at once, and never with a secret.
"""

import logging
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import attrs
from attrs import field, frozen

from aiovbo._inventory.tables import (
    SECRETS,
    InventoryFile,
    LookUp,
    Member,
    Settings,
    dotted,
    fields_of,
    is_table,
    read,
    unknown,
)
from aiovbo._settings.limits import FleetOptions, Limits
from aiovbo._settings.proxies import Proxy, parse_proxy
from aiovbo._settings.servers import Server, same_server
from aiovbo.errors import ConfigError, printable

log = logging.getLogger("aiovbo.inventory")

T = TypeVar("T")

_REPLACED = ("credentials", "tls", "api_version", "allow_http", "proxy")
"""What a server says of these replaces what its group says, and that the defaults, as a whole."""

_NESTED = 10
"""Tables within tables that are looked into for a name with dots."""


@frozen
class Inventory:
    """What a fleet is made of."""

    servers: tuple[Server, ...]
    """In the order of the file, each with what its group and the defaults say."""
    options: FleetOptions
    """What `[fleet]` says, without what it leaves out."""


@frozen(kw_only=True)
class Document:
    """The whole of an inventory, table by table."""

    allow_literal_secrets: bool = False
    fleet: Limits = field(factory=Limits)
    defaults: Settings = field(factory=Settings)
    groups: Mapping[str, Settings] = field(factory=dict[str, Settings])
    servers: Mapping[str, Member]


def read_inventory(path: str | PathLike[str], *, keyring: LookUp | None = None) -> Inventory:
    """The inventory in a TOML file; files that it names are looked for beside it.

    `keyring` looks passwords up by service and user name, in place of the package of that name.

    Raises: ConfigError with everything that is wrong, a line each.
    """
    found = _read_file(fspath(path), keyring)
    return found if isinstance(found, Inventory) else _refuse(found)


def inventory_of(mapping: Mapping[str, Any], *, keyring: LookUp | None = None) -> Inventory:
    """The inventory that a mapping holds, in the form of the file; files are where the process runs.

    Raises: ConfigError with everything that is wrong, a line each.
    """
    found = _Reading(InventoryFile("inventory", look_up=keyring), mapping).inventory()
    # A debugger would show the secrets in it.
    del mapping
    return found if isinstance(found, Inventory) else _refuse(found)


def _refuse(problems: list[str]) -> NoReturn:
    raise ConfigError("\n".join(problems))


def _read_file(name: str, keyring: LookUp | None) -> Inventory | list[str]:
    try:
        with Path(name).open("rb") as file:
            raw, mode = file.read(), os.fstat(file.fileno()).st_mode
        folder = Path(name).absolute().parent
    except (OSError, ValueError) as error:
        return [f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}"]
    try:
        # Windows' editors begin a file with a mark.
        document = tomllib.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return [f"{name}, line {line}: is not UTF-8"]
    except RecursionError:
        return [f"{name}: has too many lists or tables within each other"]
    except ValueError as error:
        return [_syntax_error(name, str(error), raw.rstrip().count(b"\n") + 1)]
    reading = _Reading(InventoryFile(name, folder, look_up=keyring), document)
    found = reading.inventory()
    open_to_others = bool(mode & (stat.S_IRGRP | stat.S_IROTH))
    if (
        os.name == "posix"
        and open_to_others
        and isinstance(found, Inventory)
        and reading.has_literal_secrets()
    ):
        log.warning("%s: others may read the secrets in it; chmod 600 it", name)
    return found


def _syntax_error(name: str, text: str, last_line: int) -> str:
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", text, re.DOTALL)
    if found is None:
        return f"{name}: {text}"
    what, line = found.groups()
    hint = r"; a backslash is written twice, or the text between single quotes" if "\\" in what else ""
    return f"{name}, line {line or last_line}: {what}{hint}"


class _Reading:
    """One inventory while it is read. What is wrong is noted, so that all of it is reported at once."""

    def __init__(self, origin: InventoryFile, document: object) -> None:
        self._document: Mapping[Any, Any] = document if is_table(document) else dict[Any, Any]()
        self._origin = attrs.evolve(origin, literals=self._document.get("allow_literal_secrets") is True)
        self._problems: list[str] = []

    def inventory(self) -> Inventory | list[str]:
        """The inventory, or everything that is wrong with it."""
        for key in self._document:
            if key not in fields_of(Document):
                self._note(unknown(key, Document)[0])
        self._table("allow_literal_secrets", self._document.get("allow_literal_secrets", False), bool)
        limits = self._table("fleet", self._document.get("fleet", {}), Limits)
        defaults = self._table("defaults", self._document.get("defaults", {}), Settings)
        groups = {name: self._table(path, one, Settings) for name, path, one in self._named("groups")}
        servers = [
            self._server(name, path, one, defaults, groups) for name, path, one in self._named("servers")
        ]
        self._note_repeated([server for server in servers if server])
        if not servers and not self._problems:
            self._note("no server; expected at least one table [servers.NAME]")
        if self._problems:
            return self._problems
        options = {name: getattr(limits, name) for name in self._document.get("fleet", {})}
        return Inventory(tuple(server for server in servers if server), cast("FleetOptions", options))

    def _note_repeated(self, servers: list[Server]) -> None:
        """Note each server that has the URL and the credentials of one before it."""
        by_url: dict[object, list[Server]] = {}
        for server in servers:
            here = by_url.setdefault(server.url, [])
            first = next((one for one in here if one.credentials == server.credentials), None)
            if first is not None:
                self._note(f"{dotted('servers', server.name)}: {same_server(server, first.name)}")
            here.append(server)

    def has_literal_secrets(self) -> bool:
        """Whether a secret stands in it, once it is known to make sense."""
        tables = [self._document.get("defaults", {})]
        tables += [one for kind in ("groups", "servers") for _, _, one in self._named(kind)]
        logins = [one.get("credentials", {}) for one in tables]
        if any(isinstance(login.get(key), str) for login in logins for key in SECRETS):
            return True
        proxies = [parse_proxy(one.get("proxy")) for one in tables]
        return any(isinstance(proxy, Proxy) and proxy.password for proxy in proxies)

    def _named(self, kind: str) -> list[tuple[str, str, Any]]:
        """Name, path and contents of every table of a kind."""
        tables: object = self._document.get(kind, {})
        if not is_table(tables) or not all(isinstance(name, str) for name in tables):
            self._note(f"{kind}: expected tables by name, [{kind}.NAME]")
            return []
        return [(name, dotted(kind, name), one) for name, one in tables.items()]

    def _table(self, path: str, value: object, cls: type[T]) -> T | None:
        found, problems = read(value, cls, path, self._origin)
        self._note(*problems)
        return found

    def _server(
        self,
        name: str,
        path: str,
        written: object,
        defaults: Settings | None,
        groups: Mapping[str, Settings | None],
    ) -> Server | None:
        full = _name_with_dots(name, written)
        if full:
            self._note(f'{path}: a name with dots is quoted: [servers."{full}"]')
        member = None if full else self._table(path, written, Member)
        if member is None:
            return None
        group: Settings | None = Settings()
        if member.group is not None:
            if member.group not in groups:
                near = get_close_matches(member.group, groups, 1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                self._note(f"{path}.group: no group is called {printable(repr(member.group))}{meant}")
            group = groups.get(member.group)
        if defaults is None or group is None:
            return None  # the error is already reported
        return self._merged(name, path, member, (defaults, group, member))

    def _merged(
        self, name: str, path: str, member: Member, layers: tuple[Settings, Settings, Settings]
    ) -> Server | None:
        written = [(key, getattr(layer, key)) for layer in layers for key in _REPLACED]
        given: dict[str, Any] = {key: value for key, value in written if value is not None}
        labels = {label: text for layer in layers for label, text in layer.labels.items()}
        problem = ""
        if "credentials" not in given:
            problem = ".credentials: missing; expected here, in its group or in [defaults]"
        elif member.url.scheme == "http" and not given.get("allow_http"):
            problem = ".url: http:// sends the password unencrypted; expected https://, or allow_http = true"
        else:
            try:
                return Server(member.url, **given, name=name, labels=labels)
            except ConfigError as error:
                problem = f": {error}"
        self._note(f"{path}{problem}")
        return None

    def _note(self, *problems: str) -> None:
        self._problems += [f"{self._origin.name}: {problem}" for problem in problems]


def _name_with_dots(name: str, written: object) -> str:
    """The name that was meant, where TOML took its parts for tables within tables; empty where none was."""
    parts = [name]
    while is_table(written) and "url" not in written and len(parts) < _NESTED:
        inner = [key for key, one in written.items() if key not in fields_of(Member) and is_table(one)]
        parts += map(str, inner[:1])
        written = written[inner[0]] if inner else None
    return ".".join(parts) if parts[1:] and is_table(written) and "url" in written else ""
