"""The tables of an inventory: their keys, what values mean, and where secrets are kept.

Knows one table at a time, as cattrs makes it a value or reports by key what is wrong. Must not know where the
document comes from, nor show a secret, nor anything that might be one by mistake.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial, reduce
from types import NoneType
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args

import attrs
import cattrs
from attrs import field, frozen
from cattrs.errors import IterableValidationNote
from cattrs.gen import make_dict_structure_fn, override
from yarl import URL

from aiovbo._inventory.secrets import (
    InventoryFile,
    SecretProvider,
    SecretReference,
    Written,
    foreseen,
    refuse,
)
from aiovbo._settings.api_versions import API_VERSIONS, ApiVersion
from aiovbo._settings.credentials import (
    Assertion,
    Bearer,
    Credentials,
    Integration,
    Password,
    Secret,
    SecretSource,
)
from aiovbo._settings.limits import Limits
from aiovbo._settings.proxies import Proxy, parse_proxy
from aiovbo._settings.retry import Retry
from aiovbo._settings.servers import TLS, server_url
from aiovbo.errors import ConfigError, printable

T = TypeVar("T")

# ---------------------------------------------------------------------------------------- tables


@frozen(kw_only=True)
class Settings:
    """`[defaults]` and `[groups.NAME]`."""

    credentials: Credentials | None = None
    tls: TLS | None = None
    api_version: Literal["auto"] | ApiVersion | None = None
    allow_http: bool | None = None
    proxy: Proxy | Literal["environment"] | None = None
    labels: Mapping[str, str] = field(factory=dict[str, str])


@frozen(kw_only=True)
class Member(Settings):
    """`[servers.NAME]`."""

    url: URL
    group: str | None = None


LOGINS: tuple[type[Credentials], ...] = (Password, Bearer, Assertion, Integration)
"""The ways to log in, distinguished by their keys."""

SECRETS = frozenset({"password", "token", "assertion", "integration_token"})
"""The keys whose values are secret."""

_NOT_WRITTEN = {"clock", "observer"}
_BY_ORIGIN = {"credentials": SECRETS, "tls": {"ca_file", "client_cert", "client_key"}}


def fields_of(*tables: type[Any]) -> dict[str, "attrs.Attribute[Any]"]:
    """The fields of tables that can be written down, by key."""
    fields = {name: found for table in tables for name, found in attrs.fields_dict(table).items()}
    return {name: found for name, found in fields.items() if name not in _NOT_WRITTEN}


def bare(kind: Any) -> Any:  # an annotation
    """A field's type without None: in a file, what is None is left out."""
    kinds: list[Any] = [one for one in get_args(kind) if one is not NoneType]
    return reduce(lambda one, other: one | other, kinds) if NoneType in get_args(kind) else kind


# ---------------------------------------------------------------------------------------- values


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}
    name = "a table" if is_table(value) else f"a {type(value).__name__}"
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), name)


def is_table(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether `value` is a table, whatever is in it."""
    return isinstance(value, Mapping)


def _table(value: object) -> Mapping[Any, Any]:
    return value if is_table(value) else refuse(f"expected a table, not {_kind(value)}")


def _truth(value: object, _: object) -> bool:
    return value if isinstance(value, bool) else refuse(f"expected true or false, not {_kind(value)}")


def _text(value: object, _: object = None) -> str:
    return value if isinstance(value, str) else refuse(f"expected a text, not {_kind(value)}")


def _number(value: object, kind: type[int | float]) -> int | float:
    allowed = int if kind is int else int | float
    # TOML's whole numbers have 64 bits; it has nan and inf too, which limit nothing.
    if isinstance(value, allowed) and not isinstance(value, bool) and abs(value) < 2**63:
        return kind(value)
    shown = printable(repr(value), 40) if isinstance(value, str | float) else _kind(value)
    return refuse(f"expected {'a whole number' if kind is int else 'a number of seconds'}, not {shown}")


def _count(value: object, _: object) -> int:
    return int(_number(value, int))


def _url(value: object, _: object) -> URL:
    return server_url(_text(value))


def _version(value: object, _: object) -> str:
    versions = ("auto", *API_VERSIONS)
    return _text(value) if value in versions else refuse(f"expected one of {', '.join(versions)}")


def _username(value: object, _: object) -> str:
    if not _text(value).isprintable():
        refuse(r"has a control character; between double quotes a backslash is written twice: DOMAIN\\user")
    return _text(value) or refuse("is empty; expected a user name such as 'DOMAIN\\user'")


def _path(written: Written, _: object = None) -> str:
    text = _text(written.value)
    if not text or "\0" in text:
        refuse("expected the path of a file")
    return str(written.origin.folder / text)


def _pins(value: object, _: object) -> list[str]:
    if not isinstance(value, list | tuple):
        return [_pin(_text(value))]
    found: list[str] = []
    problems: list[tuple[object, Exception]] = []
    for number, text in enumerate(cast("list[object]", value)):
        try:
            found.append(_pin(_text(text)))
        except ConfigError as error:
            problems.append((number, error))
    if problems:
        raise _SeveralError(problems)
    return found


def _pin(text: str) -> str:
    return _made(lambda: TLS(pin=text).pin[0], f"the pin {text!r} ")


def _secret(written: Written, _: object) -> SecretSource:
    origin = written.origin
    if isinstance(written.value, str):
        if not origin.literals:
            refuse(
                "a secret in plain text; expected { env = ... }, { file = ... } or { keyring = ... }, "
                "or allow_literal_secrets = true at the top"
            )
        return written.value or refuse("is empty")
    kept = converter.structure(written.value, SecretReference)
    places = attrs.asdict(kept, filter=lambda _, place: place is not None)
    if len(places) != 1:
        refuse("expected one of env, file and keyring")
    ((kind, place),) = places.items()
    if kind == "file":
        place = _path(attrs.evolve(written, value=place))
    provider = SecretProvider(kind, place, written.where, origin.look_up)
    problem = foreseen(provider)
    return refuse(problem) if problem else provider


def _limit(name: str, value: object, kind: Any) -> object:  # an annotation
    limit: Any = converter.structure(value, kind)
    return getattr(_made(lambda: Limits(**{name: limit}), f"{name} "), name)


def _made(make: Callable[[], T], subject: str) -> T:
    """What `make` gives; its error is reported without the subject, which the path names."""
    try:
        return make()
    except ConfigError as error:
        problem = str(error).removeprefix(subject)
    return refuse(problem)


def _proxy(written: Written, _: object) -> Proxy | Literal["environment"] | None:
    found: Proxy | Literal["environment"] | None = _made(lambda: parse_proxy(_text(written.value)), "")
    if isinstance(found, Proxy) and found.password and not written.origin.literals:
        refuse(
            'a password in plain text; expected "environment", with the proxy in the variable HTTPS_PROXY, '
            "or allow_literal_secrets = true at the top"
        )
    return found


def _credentials(value: object, _: object) -> Credentials:
    table, known = _table(value), fields_of(*LOGINS)
    fitting = [login for login in LOGINS if table.keys() <= fields_of(login).keys()]
    if len(fitting) == 1:
        return converter.structure(value, fitting[0])
    message = "expected username and password, or token, or client_id and assertion, or integration_token"
    others = table.keys() - known.keys()
    problem = cattrs.ForbiddenExtraKeysError(None, Password, others) if others else ConfigError(message)
    problems: list[tuple[object, Exception]] = [("", problem)]
    # The values may be invalid as well.
    for name in (key for key in table if key in known):
        try:
            _hook_of(name, known[name])(table[name], known[name].type)
        except (cattrs.BaseValidationError, ConfigError) as error:
            problems.append((name, error))
    raise _SeveralError(problems)


_TLS_EXAMPLE: dict[str, Any] = {
    "ca_file": "ca.pem",
    "pin": f"sha256:{64 * '0'}",
    "insecure": True,
    "client_cert": "client.pem",
    "client_key": "client.key",
}


def _tls(value: object, _: object) -> TLS:
    try:
        return _structure_tls(value, TLS)
    except cattrs.ClassValidationError as error:
        if any(isinstance(one, ConfigError) for one in error.group_exceptions()[1]):
            raise  # the keys are valid, and do not go together
        problems: list[tuple[object, Exception]] = [("", error)]
    # Where keys are invalid, it is not known yet whether they go together.
    valid = {key: _TLS_EXAMPLE[key] for key, one in _table(value).items() if one and key in _TLS_EXAMPLE}
    try:
        TLS(**valid)
    except ConfigError as conflict:
        problems.append(("", conflict))
    raise _SeveralError(problems)


class _SeveralError(ConfigError):
    """Several problems of one value, each with its key; the key of the value as a whole is empty."""

    def __init__(self, problems: list[tuple[object, Exception]]) -> None:
        super().__init__("; ".join(str(problem) for _, problem in problems))
        self.problems = problems


def _hook_of(name: str, found: "attrs.Attribute[Any]") -> Callable[[Any, Any], object]:
    """What structures the value of a field."""
    return _BY_NAME.get(name) or converter.get_structure_hook(bare(found.type))


_BY_NAME: dict[str, Callable[[Any, Any], object]] = {
    "credentials": _credentials,
    "api_version": _version,
    "labels": lambda value, _: converter.structure(_table(value), dict[str, str]),
    "username": _username,
    "proxy": _proxy,
    "minimum_version": lambda value, _: _made(
        lambda: TLS(minimum_version=cast("Any", _text(value))).minimum_version, "minimum_version "
    ),
    "server_name": lambda value, _: _made(lambda: TLS(server_name=_text(value)).server_name, "server_name "),
    "pin": _pins,
    **dict.fromkeys(_BY_ORIGIN["tls"], _path),
}


def _register(cls: type[Any]) -> None:
    overrides: dict[str, Any] = dict.fromkeys(_NOT_WRITTEN, override(omit=True))
    for name, found in fields_of(cls).items():
        hook = partial(_limit, name) if cls is Limits else _hook_of(name, found)
        overrides[name] = override(struct_hook=hook)
    structure = make_dict_structure_fn(cls, converter, **overrides)
    converter.register_structure_hook(cls, lambda value, _: structure(_table(value), cls))


converter: cattrs.Converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
_LEAVES: dict[Any, Any] = {
    str: _text,
    bool: _truth,
    int: _number,
    float: _number,
    int | Retry: _count,
    URL: _url,
    Secret: _secret,
}
for _leaf, _hook in _LEAVES.items():
    converter.register_structure_hook(_leaf, _hook)
for _cls in (SecretReference, *LOGINS, TLS):
    _register(_cls)
_structure_tls: Callable[[object, type[TLS]], TLS] = converter.get_structure_hook(TLS)
converter.register_structure_hook(TLS, _tls)
for _table_cls in (Settings, Member, Limits):
    _register(_table_cls)

# --------------------------------------------------------------------------------------- reading


def read(value: object, cls: type[T], path: str, origin: InventoryFile) -> tuple[T | None, list[str]]:
    """What a table means, and everything that is wrong with it, a line each, with the path of its key."""
    try:
        return converter.structure(_marked(value, path, origin), cls), []
    except (cattrs.BaseValidationError, ConfigError) as error:
        return None, [f"{place}: {text}" for place, text in _problems(error, path)]


def _marked(value: object, path: str, origin: InventoryFile) -> object:
    if not is_table(value):
        return value
    marked = dict(value)
    for part, names in _BY_ORIGIN.items():
        inner = marked.get(part)
        if is_table(inner):
            places = {name: f"{origin.name}: {dotted(path, part, name)}" for name in names & inner.keys()}
            written = {name: Written(inner[name], where, origin) for name, where in places.items()}
            marked[part] = {**inner, **written}
    if "proxy" in marked:
        marked["proxy"] = Written(marked["proxy"], f"{origin.name}: {dotted(path, 'proxy')}", origin)
    return marked


def _problems(error: BaseException, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(error, _SeveralError):
        for key, one in error.problems:
            yield from _problems(one, place if key == "" else dotted(place, key))
    elif isinstance(error, cattrs.ClassValidationError | cattrs.IterableValidationError):
        inner, own = error.group_exceptions()
        meant = {better for one in own for _, better in _unknown_keys(one)}
        for one in own:
            yield from _problems(one, place)
        for one, note in inner:
            key = str(note.index if isinstance(note, IterableValidationNote) else note.name)
            if not isinstance(one, KeyError):
                yield from _problems(one, dotted(place, key))
            elif key not in meant:
                yield dotted(place, key), "missing"
    elif unknown_keys := _unknown_keys(error):
        yield from ((place, text) for text, _ in unknown_keys)
    else:
        # An exception that is not ours may hold what is written.
        yield place, str(error) if isinstance(error, ConfigError) else "is invalid"


def _unknown_keys(error: BaseException) -> list[tuple[str, str]]:
    if not isinstance(error, cattrs.ForbiddenExtraKeysError):
        return []
    known = LOGINS if error.cl in LOGINS else (error.cl,)
    return [unknown(key, *known) for key in sorted(error.extra_fields, key=str)]


def unknown(key: object, *tables: type[Any]) -> tuple[str, str]:
    """What is said of a key that none of the tables has, and which key was probably meant."""
    text = f"unknown key {printable(repr(key), 60)}"
    elsewhere = {name: f"credentials.{name}" for name in fields_of(*LOGINS)}
    elsewhere |= {name: f"tls.{name}" for name in fields_of(TLS)}
    elsewhere |= {name: f"fleet.{name}" for name in fields_of(Limits)}
    near = get_close_matches(str(key), fields_of(*tables), 1)
    near += [elsewhere[name] for name in get_close_matches(str(key), elsewhere, 1, 0.75)]
    if near:
        return f"{text}; did you mean {near[0]!r}?", near[0]
    return f"{text}; expected {_one_of(fields_of(*tables))}", ""


def _one_of(keys: Iterable[str]) -> str:
    *others, last = keys
    return f"{', '.join(others)} or {last}"


def dotted(*keys: object) -> str:
    """The path of a key; names are quoted as in TOML where they need it."""
    first, *rest = map(str, keys)
    return ".".join(
        [first, *(key if re.fullmatch("[A-Za-z0-9_-]+", key) else f'"{printable(key)}"' for key in rest)]
    )
