"""The canary of the tests finds a secret wherever it is kept."""

import base64
import logging
import threading
from pathlib import Path
from urllib.parse import quote

import aiohttp
import attrs
import pytest

from harness import (
    json_answer,
)

# ---------------------------------------------------------------------------------------- canary


@attrs.frozen
class Shown:
    """A value that shows what it holds."""

    text: str


@attrs.frozen
class Hidden:
    """A value that hides it from repr, and from nothing else."""

    text: str = attrs.field(repr=False)


class Plain:
    """An object that keeps it in an attribute."""

    def __init__(self, text):
        self.text = text


def raised(error, cause=None):
    """An exception that was raised, and of what."""
    try:
        raise error from cause  # noqa: TRY301  # it is to be raised, and no more
    except Exception as caught:  # whatever it is
        return caught


def noted(text):
    """An exception with a note."""
    error = ValueError("x")
    error.add_note(text)
    return error


def unsaid(text):
    """An exception whose context is not printed, and still there."""
    try:
        try:
            raise ValueError(text)  # noqa: TRY301  # the same
        except ValueError:
            raise KeyError("x") from None
    except KeyError as caught:
        return caught


def in_sdk_frame(text, file="_made_up.py"):
    """An exception that went through a frame of the SDK with the text in a local."""
    import aiovbo  # only its folder is needed

    path = Path(aiovbo.__file__).parent / file
    scope = {}
    exec(compile("def f(password):\n    raise ValueError\n", path, "exec"), scope)  # noqa: S102  # our own text
    try:
        scope["f"](text)
    except ValueError as caught:
        return caught


HIDING_PLACES = {
    "text": lambda text: f"<{text}>",
    "items.text": lambda text: {"a": [1, (text,)]},
    "repr": Shown,
    "asdict": Hidden,
    "vars": Plain,
    "pickle 0": noted,
    "args": lambda text: ValueError({"a": text}),
    "cause.repr": lambda text: raised(ValueError("x"), KeyError(text)),
    "context.repr": unsaid,
    "notes.text": noted,
    "group.repr": lambda text: ExceptionGroup("x", [ValueError(text)]),
    "group.cause.repr": lambda text: ExceptionGroup("x", [raised(ValueError(), OSError(text))]),
    "_made_up.py:2 local password": in_sdk_frame,
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_a_canary_is_found_wherever_it_hides(canary, place):
    """Each place is searched, and named without giving the secret away."""
    secret = canary.secret()
    thing = HIDING_PLACES[place](secret)
    assert any(place in found for found in canary.found_in(thing)), canary.found_in(thing)
    with pytest.raises(AssertionError) as caught:
        canary.assert_absent(1, thing)
    assert canary.found_in(str(caught.value)) == []


WRITTEN = {
    "percent": lambda text: quote(text, safe=""),
    "form": lambda text: aiohttp.FormData({"password": text})()._value.decode(),  # what is sent
    "json": lambda text: str(json_answer({"a": text}).decode()),
    "basic": lambda text: base64.b64encode(f"DOM\\u:{text}".encode()).decode(),
    "base64": lambda text: base64.b64encode(f"ab{text}c".encode()).decode(),
    "urlsafe": lambda text: base64.urlsafe_b64encode(f"{text}".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "repr": lambda text: repr([text]),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_canary_is_found_however_it_is_written(canary, way):
    """Encodings do not hide it."""
    secret = canary.watch('Pä&ss+ w%rd\\"/x')
    assert canary.found_in(WRITTEN[way](secret)) == ["text"]


def test_what_holds_no_canary_is_clean(canary):
    """Other secrets, frames of others, and what will not be pickled are no finds."""
    secret = canary.secret()
    frame_of_test = raised(ValueError())
    frame_of_server = in_sdk_frame(secret, "testing/_made_up.py")
    canary.assert_absent("other", frame_of_test, frame_of_server, threading.Lock(), {1: None}, secret[:9])


def test_logs_are_heard_from_debug_on_with_what_they_hold(canary):
    """Arguments and exceptions of log records are searched, of every logger."""
    secret = canary.secret()
    log = logging.getLogger("another.package")
    for said in (
        lambda: log.debug("password %s", secret),
        lambda: log.debug("object %s", Hidden(secret)),
        lambda: log.debug("failed", exc_info=raised(KeyError(), ValueError(secret))),
    ):
        said()
        with pytest.raises(AssertionError, match="LogRecord"):
            canary.assert_absent()
        canary.records.clear()


def test_a_short_secret_is_refused(canary):
    """It might be found by chance."""
    with pytest.raises(ValueError, match="by chance"):
        canary.watch("secret")
