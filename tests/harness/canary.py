"""Secrets that are recognised wherever they turn up.

Knows where Python lets things slip: repr, logs, pickles, tracebacks. Must not know the SDK but for the
folder that its frames come from.
"""

import base64
import contextlib
import json
import logging
import os
import pickle
import secrets
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import attrs

import aiovbo

_FOLDER = f"{Path(aiovbo.__file__).parent}{os.sep}"
# The tests, and the server that they use, may know its password.
_MAY_KNOW = (f"{_FOLDER}testing{os.sep}", f"{Path(__file__).parents[1]}{os.sep}")
_SHORTEST = 8
_BASE64_BITS = 6


class Canary(logging.Handler):
    """Makes secrets, listens to every log while it is entered, and looks for the secrets in anything."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self._forms: dict[str, list[bytes]] = {}

    def secret(self, label: str = "secret") -> str:
        """A new secret, with characters that every encoding writes in its own way."""
        return self.watch(f'{label}-{secrets.token_hex(8)}&+% \\"ü')

    def watch(self, secret: str) -> str:
        """Look for this secret too.

        Raises: ValueError where it is so short that it might turn up by chance.
        """
        if len(secret) < _SHORTEST:
            message = f"a secret of less than {_SHORTEST} characters turns up by chance"
            raise ValueError(message)
        self._forms[secret] = sorted(_forms(secret))
        return secret

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, from every logger."""
        self.records.append(record)

    @contextmanager
    def listening(self) -> Generator["Canary", None, None]:
        """Hear every logger, from DEBUG on."""
        root = logging.getLogger()
        level = root.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        try:
            yield self
        finally:
            root.setLevel(level)
            root.removeHandler(self)

    def found_in(self, obj: object) -> list[str]:
        """Where in `obj` a secret shows: "repr", "pickle 5", and so on.

        Containers are searched item by item; exceptions with their causes, notes, groups and the locals of
        their frames; log records with their arguments and exceptions.
        """
        return [place for place, text in _places(obj, {}) if self._shows(text)]

    def assert_absent(self, *objects: object) -> None:
        """Fail if a secret shows in one of `objects`, or in what was logged so far."""
        found = [
            f"{type(obj).__name__}: {', '.join(places)}"
            for obj in (*objects, *self.records)
            if (places := self.found_in(obj))
        ]
        # The objects themselves are not printed: that would give the secret away once more.
        if found:
            message = "a secret shows in\n" + "\n".join(f"- {place}" for place in found)
            raise AssertionError(message)

    def _shows(self, text: str | bytes) -> bool:
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        return any(form in data for forms in self._forms.values() for form in forms)


# ---------------------------------------------------------------------------------------- forms


def _forms(secret: str) -> set[bytes]:
    """The ways a secret may be written, as bytes."""
    plain = secret.encode()
    written = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote(secret).lower(),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        ascii(secret)[1:-1],
    }
    forms = {text.encode() for text in written}
    # The oldest pickles write a backslash, and nothing else, as an escape.
    forms.add(secret.replace("\\", r"\u005c").encode("raw_unicode_escape"))
    forms |= {secret.encode("raw_unicode_escape"), secret.encode("utf-16-le"), plain.hex().encode()}
    for offset in range(3):
        forms |= _base64_within(plain, offset)
    return forms


def _base64_within(plain: bytes, offset: int) -> set[bytes]:
    """What of a secret is the same in the base64 of any longer text, where it begins at `offset`."""
    start = -(-offset * 8 // _BASE64_BITS)
    end = (offset + len(plain)) * 8 // _BASE64_BITS
    padded = bytes(offset) + plain
    return {encode(padded)[start:end] for encode in (base64.b64encode, base64.urlsafe_b64encode)}


# --------------------------------------------------------------------------------------- places


def _places(obj: object, seen: dict[int, object]) -> Iterator[tuple[str, str | bytes]]:
    """Everything that `obj` may say of itself, and where it says it."""
    if isinstance(obj, str | bytes):
        yield "text", obj
        return
    if id(obj) in seen:
        return
    # Kept, not only its id: the next object might get that.
    seen[id(obj)] = obj
    yield from _said(obj)
    if isinstance(obj, BaseException):
        yield from _in_exception(obj, seen)
    elif isinstance(obj, logging.LogRecord):
        yield from _within("message", [obj.getMessage(), obj.args, obj.stack_info], seen)
        yield from _within("exc_info", obj.exc_info or (), seen)
    elif isinstance(obj, TracebackType):
        yield from _in_locals(obj)
    elif isinstance(obj, Mapping):
        yield from _within("items", [*obj.keys(), *obj.values()], seen)
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from _within("items", obj, seen)


def _said(obj: object) -> Iterator[tuple[str, str | bytes]]:
    ways: dict[str, Callable[[], str | bytes]] = {
        "repr": lambda: repr(obj),
        "str": lambda: str(obj),
        "vars": lambda: repr(vars(obj)),
    }
    if attrs.has(type(obj)):
        instance: Any = obj
        ways["asdict"] = lambda: repr(attrs.asdict(instance))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        ways[f"pickle {protocol}"] = lambda protocol=protocol: pickle.dumps(obj, protocol)  # type: ignore[misc]
    for place, say in ways.items():
        # What says nothing, or refuses to, gives nothing away.
        with contextlib.suppress(Exception):
            yield place, say()


def _in_exception(error: BaseException, seen: dict[int, object]) -> Iterator[tuple[str, str | bytes]]:
    yield "traceback", "".join(traceback.format_exception(error, chain=False))
    if isinstance(error, BaseExceptionGroup):
        yield from _within("group", error.exceptions, seen)
    yield from _within("args", error.args, seen)
    yield from _within("notes", getattr(error, "__notes__", ()), seen)
    yield from _within("cause", [error.__cause__], seen)
    yield from _within("context", [error.__context__], seen)
    yield from _in_locals(error.__traceback__)


def _within(
    where: str, parts: Iterable[object], seen: dict[int, object]
) -> Iterator[tuple[str, str | bytes]]:
    for part in parts:
        if part is not None:
            yield from ((f"{where}.{place}", text) for place, text in _places(part, seen))


def _in_locals(trace: TracebackType | None) -> Iterator[tuple[str, str]]:
    """What a debugger or an error tracker would show: the SDK's frames and those of other libraries."""
    for frame, line in traceback.walk_tb(trace):
        file = frame.f_code.co_filename
        if file.startswith(_MAY_KNOW):
            continue
        for name, value in frame.f_locals.items():
            with contextlib.suppress(Exception):
                place = f"{file.removeprefix(_FOLDER)}:{line} local {name}"
                yield place, repr(value)
