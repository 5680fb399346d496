"""An inventory: the servers of a fleet and its limits, as they are written down in a file.

Knows how defaults, groups and servers add up. Must not know how a server is queried. Whatever is wrong is
reported by file and key, all of it at once, and never with a secret.
"""

import logging
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import attrs
from attrs import field, frozen
from yarl import URL

from aiovbo._inventory.secrets import InventoryFile, LookUp
from aiovbo._inventory.tables import (
    SECRETS,
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
from aiovbo._settings.servers import Server, check_name, same_server, server_url
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
        written = self._named("servers")
        servers = [self._server(name, path, one, defaults, groups) for name, path, one in written]
        self._note_repeated(written, {server.name: server for server in servers if server})
        if not servers and not self._problems:
            self._note("no server; expected at least one table [servers.NAME]")
        if self._problems:
            return self._problems
        options = {name: getattr(limits, name) for name in self._document.get("fleet", {})}
        return Inventory(tuple(server for server in servers if server), cast("FleetOptions", options))

    def _note_repeated(self, tables: list[tuple[str, str, Any]], servers: Mapping[str, Server]) -> None:
        """Note each server that has the URL and the credentials of one before it."""
        by_url: dict[URL, list[tuple[str, object]]] = {}
        for name, path, written in tables:
            url = _url_of(written)
            if url is None:
                continue
            # As they are written, where something else keeps them from being read.
            credentials = servers[name].credentials if name in servers else self._last(written, "credentials")
            here = by_url.setdefault(url, [])
            first = next((other for other, same in here if same == credentials), None)
            if first is not None and credentials is not None:
                self._note(f"{path}: {same_server(name, url, first)}")
            here.append((name, credentials))

    def _layers(self, written: object) -> list[Mapping[Any, Any]] | None:
        """The tables that a server is made of, the most general one first; None if its group is unknown."""
        group: object = written.get("group") if is_table(written) else None
        groups: object = self._document.get("groups")
        layers: list[object] = [self._document.get("defaults"), written]
        if group is not None:
            if not (is_table(groups) and isinstance(group, str) and group in groups):
                return None
            layers.insert(1, groups[group])
        return [layer for layer in layers if is_table(layer)]

    def _last(self, written: object, key: str) -> object:
        """What a server's most specific table that has the key says."""
        layers = self._layers(written) or []
        return next((layer[key] for layer in reversed(layers) if key in layer), None)

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
            return None
        if name in fields_of(Settings) and is_table(written) and not fields_of(Member).keys() & written:
            self._note(
                f"{path}: belongs to a server or to [defaults], such as "
                f'vbo1 = {{ url = "vbo1.tech.local", {name} = {{ … }} }}'
            )
            return None
        member = self._table(path, written, Member)
        conflicts = list(self._conflicts(name, written, groups)) if is_table(written) else []
        self._note(*(f"{path}{conflict}" for conflict in conflicts))
        group = Settings() if member is None or member.group is None else groups.get(member.group)
        if conflicts or defaults is None or member is None or group is None:
            return None  # the error is already reported
        layers = (defaults, group, member)
        given: dict[str, Any] = {
            key: value for layer in layers for key in _REPLACED if (value := getattr(layer, key)) is not None
        }
        labels = {label: text for layer in layers for label, text in layer.labels.items()}
        try:
            return Server(member.url, **given, name=name, labels=labels)
        except ConfigError as error:
            self._note(f"{path}: {error}")
            return None

    def _conflicts(
        self, name: str, written: Mapping[Any, Any], groups: Mapping[str, Settings | None]
    ) -> Iterator[str]:
        """What is wrong between the tables of a server, although its own keys may be valid."""
        try:
            check_name(name)
        except ConfigError as error:
            yield f": {error}"
        layers = self._layers(written)
        if layers is None:
            group = written["group"]
            if isinstance(group, str):
                near = get_close_matches(group, groups, 1)
                meant = f"; did you mean {near[0]!r}?" if near else ""
                yield f".group: no group is called {printable(repr(group))}{meant}"
            # What the group would have said is not known.
            return
        keys: set[object] = {key for layer in layers for key in layer}
        # A key that was meant to be this one is already reported.
        keys |= {unknown(key, Member)[1].partition(".")[0] for key in keys - fields_of(Member).keys()}
        if "credentials" not in keys:
            yield ".credentials: missing; expected here, in its group or in [defaults]"
        url = _url_of(written)
        if url is not None and url.scheme == "http" and not self._last(written, "allow_http"):
            yield ".url: http:// sends the password unencrypted; expected https://, or allow_http = true"

    def _note(self, *problems: str) -> None:
        self._problems += [f"{self._origin.name}: {problem}" for problem in problems]


def _url_of(written: object) -> URL | None:
    """The URL of a server's table; None where there is none that is valid."""
    text: object = written.get("url") if is_table(written) else None
    try:
        return server_url(text) if isinstance(text, str) else None
    except ConfigError:
        return None


def _name_with_dots(name: str, written: object) -> str:
    """The name that was meant, where TOML took its parts for tables within tables; empty where none was."""
    parts = [name]
    while is_table(written) and "url" not in written and len(parts) < _NESTED:
        inner = [key for key, one in written.items() if key not in fields_of(Member) and is_table(one)]
        parts += map(str, inner[:1])
        written = written[inner[0]] if inner else None
    return ".".join(parts) if parts[1:] and is_table(written) and "url" in written else ""
