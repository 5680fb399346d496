"""The JSON schema of an inventory, with which editors check and complete the file.

Made of the tables of `_inventory/tables` and of what each key means. Reads no file.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs
from yarl import URL

from aiovbo._inventory.reader import Document
from aiovbo._inventory.secrets import SecretReference
from aiovbo._inventory.tables import bare, fields_of
from aiovbo._settings.credentials import Secret
from aiovbo._settings.proxies import Proxy
from aiovbo._settings.retry import Retry

# ---------------------------------------------------------------------------------------- schema


def inventory_schema() -> dict[str, Any]:
    """The JSON Schema of an inventory (draft 2020-12), for editors that complete and check it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An inventory of Veeam Backup for Microsoft 365 servers",
        **_schema(Document),
    }


def _schema(kind: Any) -> dict[str, Any]:  # an annotation
    kind = _WRITTEN_AS.get(kind, kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        fields = fields_of(kind)
        return {
            "type": "object",
            "properties": {name: _property(found) for name, found in fields.items()},
            "required": [name for name, found in fields.items() if found.default is attrs.NOTHING],
            "additionalProperties": False,
            **({"minProperties": 1, "maxProperties": 1} if kind is SecretReference else {}),
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


_WRITTEN_AS: dict[Any, Any] = {
    int | Retry: int,
    URL: str,
    Proxy | Literal["environment"]: str,
    Secret: SecretReference | str,
    tuple[str, ...]: str | list[str],
}
_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BOUNDS: dict[str, dict[str, int]] = {
    key: {bound: value}
    for bound, value, keys in (
        ("exclusiveMinimum", 0, ("deadline", "connect_timeout", "read_timeout")),
        ("minimum", 0, ("retries", "idle_timeout", "login_cooldown")),
        ("minimum", 1, ("connections", "max_body", "max_resource", "concurrency", "lockout_guard")),
        (
            "minLength",
            1,
            ("url", "username", "ca_file", "client_cert", "client_key", "server_name", "env", "file"),
        ),
        ("minProperties", 1, ("servers",)),
    )
    for key in keys
}
_DESCRIPTIONS = {
    "allow_literal_secrets": "Whether secrets may be written out here; false if not given.",
    "fleet": "The limits within which all servers are queried.",
    "defaults": "What holds for every server whose group and own table say nothing else.",
    "groups": "By name: what servers have in common that name the group.",
    "servers": "By name: the servers. A name with dots is quoted.",
    "credentials": (
        "How to log in: username and password, or token, or client_id and assertion, or integration_token."
    ),
    "tls": "Whom to trust; the operating system's authorities if not given.",
    "api_version": "The API version to speak; the newest that a server offers if not given.",
    "allow_http": "Whether the URL may be http://, where everybody on the way reads the password.",
    "proxy": 'Forward proxy, http://host:port; "environment" takes it from HTTPS_PROXY and NO_PROXY.',
    "labels": "Texts by name, such as a site or a tenant; added to those of the group and the defaults.",
    "url": "Where the server is; https and port 4443 may be left out.",
    "group": "The name of its group.",
    "username": "DOMAIN\\user or user@domain; a backslash is written twice between double quotes.",
    "password": "The user's password.",
    "token": "An existing bearer token.",
    "client_id": "The application's ID; for operators userId.tenantId.",
    "assertion": "The signed assertion (JWT).",
    "integration_token": "An integration token, for API v6 and v7.",
    "operator": "Whether it is a restore operator who logs in.",
    "env": "The environment variable that holds the secret.",
    "file": "The file that holds the secret; a relative path begins beside the inventory.",
    "keyring": "The keyring's entry that holds the secret, as service/username.",
    "ca_file": "PEM file of the authorities to trust, in place of the system's.",
    "pin": "SHA-256 fingerprints of the server's own certificate, one or several.",
    "insecure": "Verify no certificate. An attacker in between can read the password.",
    "client_cert": "PEM file with our own certificate, where a server requires one.",
    "client_key": "PEM file with its key, where it is not in client_cert.",
    "strict_x509": "False accepts old authorities that break RFC 5280.",
    "server_name": "Name in the certificate, where it is not the one in the URL.",
    "minimum_version": "Lowest version of TLS that is accepted, for old servers; TLSv1.2 if not given.",
    "deadline": "Seconds for one whole operation on a server, retries and waiting included.",
    "connect_timeout": "Seconds to resolve the name, connect and shake hands.",
    "read_timeout": "Seconds without a byte after which a response is given up.",
    "idle_timeout": "Seconds an idle connection is kept; 0 keeps none.",
    "retries": "Maximum number of retries for requests that are safe to repeat.",
    "concurrency": "Servers queried at once.",
    "connections": "Requests at once to one server.",
    "max_resource": "Bytes of the response of a single resource above which it is refused.",
    "user_agent": "What is sent as User-Agent with every request.",
    "max_body": "Bytes of a response above which it is rejected.",
    "login_cooldown": "Seconds of the first cool-down after a login that was not accepted.",
    "lockout_guard": "Servers that may reject the same credentials before the others are skipped.",
    "strict": "Whether an invalid item is an error of its server.",
}
