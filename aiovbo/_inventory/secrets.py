"""Where the secrets of an inventory are kept, and how they are read when they are needed.

Must not show a secret, nor anything that might be one by mistake.
"""

import importlib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from attrs import field, frozen

from aiovbo._core.threads import NoThreadError, in_thread
from aiovbo._extras import install_command
from aiovbo.errors import ConfigError, printable

LookUp = Callable[[str, str], str | None]
"""The password of a service's user, as `keyring.get_password` gives it."""


def refuse(problem: str) -> NoReturn:
    """Reject what is written.

    Raises: ConfigError, always.
    """
    raise ConfigError(problem)


@frozen(kw_only=True)
class SecretReference:
    """A secret, where it is not written out: one of these."""

    env: str | None = None
    file: str | None = None
    keyring: str | None = None


@frozen
class InventoryFile:
    """What an inventory's file makes of what is written in it."""

    name: str
    folder: Path = Path()
    literals: bool = False
    look_up: LookUp | None = None


@frozen
class Written:
    """A value that means something else in another file or folder."""

    value: object = field(repr=False)  # perhaps a secret
    where: str
    origin: InventoryFile


@frozen
class SecretProvider:
    """A secret from where it is kept, read anew whenever it is needed."""

    kind: str
    place: str
    # Not compared: wherever credentials are written, refusals of the same ones are counted together.
    where: str = field(eq=False)
    look_up: LookUp | None

    def read(self) -> tuple[str, str]:
        """The secret, and what is wrong where there is none."""
        secret = ""
        try:
            secret = self._secret()
            problem = "" if secret else "is missing or empty"
        except UnicodeDecodeError:
            problem = "is not UTF-8"
        except Exception as error:  # every keyring has its own, which may say too much
            problem = f"cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}"
        return secret, f"{_PLACES[self.kind]} {printable(self.place)} {problem}" if problem else ""

    def _secret(self) -> str:
        if self.kind == "env":
            return _without_line_break(os.environ.get(self.place, ""))
        if self.kind == "file":
            return _without_line_break(Path(self.place).read_bytes().decode("utf-8-sig"))
        look_up: LookUp = self.look_up or importlib.import_module("keyring").get_password
        service, _, username = self.place.rpartition("/")
        return look_up(service, username) or ""

    async def __call__(self) -> str:
        # A disk or a keyring may take its time, which is not the event loop's.
        try:
            secret, problem = await in_thread(self.read)
        except NoThreadError as error:
            secret, problem = (
                "",
                f"{_PLACES[self.kind]} {printable(self.place)} cannot be read: {error.strerror}",
            )
        return refuse(f"{self.where}: {problem}") if problem else secret


def _without_line_break(text: str) -> str:
    """The text without line breaks at its end: editors, `echo` and secret stores add them."""
    return text.rstrip("\r\n")


_PLACES = {"env": "the environment variable", "file": "the file", "keyring": "the keyring's entry"}


def foreseen(provider: SecretProvider) -> str:
    """What will not be better when the secret is needed; empty where nothing is known."""
    if provider.kind == "env":
        # A name that is none is not shown: perhaps it is the secret itself.
        is_name = re.fullmatch(r"[^\W\d]\w*", provider.place, re.ASCII)
        return "" if is_name else "expected the name of an environment variable in env"
    if provider.kind == "keyring" and not re.fullmatch(r"(?s).+/[^/]+", provider.place):
        return "expected keyring = 'service/username'"
    if provider.kind == "keyring" and provider.look_up is None and not importlib.util.find_spec("keyring"):
        return f"the package keyring is missing: {install_command('keyring')}"
    return ""
