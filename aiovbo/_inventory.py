"""An inventory: the servers of a fleet and its limits, as they are written down in a file.

Knows how defaults, groups and servers add up, and how the file is described to editors. Must not know how a
server is asked. Whatever is wrong is told by file and key, all of it at once, and never with a secret.
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
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args, get_origin

import attrs
from attrs import field, frozen
from yarl import URL

from aiovbo._config import FleetOptions, Limits, Secret, Server
from aiovbo._tables import (
    SECRETS,
    InventoryFile,
    Kept,
    LookUp,
    Member,
    Settings,
    bare,
    dotted,
    fields_of,
    is_table,
    read,
    unknown,
)
from aiovbo.errors import ConfigError, printable

log = logging.getLogger("aiovbo.inventory")

T = TypeVar("T")

_REPLACED = ("credentials", "tls", "api_version", "allow_http")
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
    """One inventory while it is read. What is wrong is noted, so that all of it is told at once."""

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
        if not servers and not self._problems:
            self._note("no server; expected at least one table [servers.NAME]")
        if self._problems:
            return self._problems
        options = {name: getattr(limits, name) for name in self._document.get("fleet", {})}
        return Inventory(tuple(server for server in servers if server), cast("FleetOptions", options))

    def has_literal_secrets(self) -> bool:
        """Whether a secret stands in it, once it is known to make sense."""
        tables = [self._document.get("defaults", {})]
        tables += [one for kind in ("groups", "servers") for _, _, one in self._named(kind)]
        logins = [one.get("credentials", {}) for one in tables]
        return any(isinstance(login.get(key), str) for login in logins for key in SECRETS)

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
            return None  # what is wrong there was told
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


# ---------------------------------------------------------------------------------------- schema


def inventory_schema() -> dict[str, Any]:
    """The JSON Schema of an inventory (draft 2020-12), for editors that complete and check it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An inventory of Veeam Backup for Microsoft 365 servers",
        **_schema(Document),
    }


def _schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401  # an annotation
    kind = _WRITTEN_AS.get(kind, kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        fields = fields_of(kind)
        return {
            "type": "object",
            "properties": {name: _property(found) for name, found in fields.items()},
            "required": [name for name, found in fields.items() if found.default is attrs.NOTHING],
            "additionalProperties": False,
            **({"minProperties": 1, "maxProperties": 1} if kind is Kept else {}),
        }
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    return {"anyOf": [_schema(one) for one in arguments]} if arguments else {"type": _SIMPLE[kind]}


def _property(found: "attrs.Attribute[Any]") -> dict[str, Any]:
    default = {"default": found.default} if isinstance(found.default, bool | int | float) else {}
    return {
        "description": _DESCRIPTIONS[found.name],
        **_schema(bare(found.type)),
        **_BOUNDS.get(found.name, {}),
        **default,
    }


_WRITTEN_AS: dict[Any, Any] = {URL: str, Secret: Kept | str, tuple[str, ...]: str | list[str]}
_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BOUNDS: dict[str, dict[str, int]] = {
    key: {bound: value}
    for bound, value, keys in (
        ("exclusiveMinimum", 0, ("deadline", "connect_timeout", "read_timeout")),
        ("minimum", 0, ("retries", "login_cooldown")),
        ("minimum", 1, ("connections", "max_body", "concurrency", "lockout_guard")),
        ("minLength", 1, ("url", "username", "ca_file", "client_cert", "client_key", "env", "file")),
        ("minProperties", 1, ("servers",)),
    )
    for key in keys
}
_DESCRIPTIONS = {
    "allow_literal_secrets": "Whether secrets may be written out here; false if not given.",
    "fleet": "The limits within which all servers are asked.",
    "defaults": "What holds for every server whose group and own table say nothing else.",
    "groups": "By name: what servers have in common that name the group.",
    "servers": "By name: the servers. A name with dots is quoted.",
    "credentials": "How to log on: username and password, or token, or client_id and assertion.",
    "tls": "Whom to trust; the operating system's authorities if not given.",
    "api_version": "The API version to speak; the newest that a server offers if not given.",
    "allow_http": "Whether the URL may be http://, where everybody on the way reads the password.",
    "labels": "Texts by name, such as a site or a tenant; added to those of the group and the defaults.",
    "url": "Where the server is; https and port 4443 may be left out.",
    "group": "The name of its group.",
    "username": "DOMAIN\\user or user@domain; a backslash is written twice between double quotes.",
    "password": "The user's password.",
    "token": "A bearer token that somebody else obtained.",
    "client_id": "The application's ID; for operators userId.tenantId.",
    "assertion": "The signed assertion (JWT).",
    "operator": "Whether it is a restore operator who logs on.",
    "env": "The environment variable that holds the secret.",
    "file": "The file that holds the secret; a relative path begins beside the inventory.",
    "keyring": "The keyring's entry that holds the secret, as service/username.",
    "ca_file": "PEM file of the authorities to trust, in place of the system's.",
    "pin": "SHA-256 fingerprints of the server's own certificate, one or several.",
    "insecure": "Check nothing at all. Whoever sits in between reads the password.",
    "client_cert": "PEM file with our own certificate, where a server asks for one.",
    "client_key": "PEM file with its key, where it is not in client_cert.",
    "strict_x509": "False accepts old authorities that break RFC 5280.",
    "deadline": "Seconds for one whole operation on a server, retries and waiting included.",
    "connect_timeout": "Seconds to resolve the name, connect and shake hands.",
    "read_timeout": "Seconds without a byte after which an answer is given up.",
    "retries": "How often a request is repeated that may be.",
    "concurrency": "Servers asked at once.",
    "connections": "Requests at once to one server.",
    "max_body": "Bytes of an answer above which it is refused.",
    "login_cooldown": "Seconds of the first cool-down after a login that was not accepted.",
    "lockout_guard": "Servers that may reject the same credentials before the others are skipped.",
    "strict": "Whether an item that makes no sense is an error of its server.",
}
