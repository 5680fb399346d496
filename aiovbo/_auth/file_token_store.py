"""A token store in a file, for the processes of one user.

Knows files and entries of text. Knows no servers and sends nothing.
"""

import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

from aiovbo._core.threads import in_thread
from aiovbo._settings.token_store import StoredEntry
from aiovbo.errors import ConfigError

log = logging.getLogger("aiovbo.login")

# Windows has no such module.
_fcntl: Any = import_module("fcntl") if os.name == "posix" else None

_LARGEST = 16 * 2**20
"""Bytes of a file that is read."""

_PATIENCE, _PAUSE = 2.0, 0.005
"""Seconds to wait for another process's lock, and between two attempts to take it.

Each holder writes one small file, but 20 processes that log in at once on busy cores need more than 0.2 s.
A process that holds the lock for longer is stopped or hangs: the login then continues without the store.
"""


class FileTokenStore:
    """A token store in one file, for the processes of one user on one machine.

    The file is created with mode 0600 and replaced atomically; a file beside it, with `.lock` added to its
    name, is the lock. A file that is a symbolic link, belongs to another user, or can be read by others is
    neither read nor written: each login is then as without a store, and a warning is logged. A file that is
    broken is replaced.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """A store in the file at `path`; its folder must exist. Nothing is read or written yet.

        Raises: ConfigError on Windows, where a mode does not protect the file.
        """
        if _fcntl is None:
            raise ConfigError("FileTokenStore needs file modes and locks, which Windows does not have")
        given: object = path
        if not isinstance(given, str | PathLike):
            message = f"a FileTokenStore takes the path of a file, not {path!r}"
            raise ConfigError(message)
        self._path = Path(path).absolute()

    async def read(self, key: str, /) -> StoredEntry | None:
        """The entry of that key; None where there is none.

        Raises: OSError where the file cannot be read, or is not private.
        """
        return (await in_thread(self._entries)).get(key)

    async def update(self, key: str, change: Callable[[StoredEntry | None], StoredEntry | None], /) -> None:
        """Replace the entry by what `change` returns for it, while no other process replaces it.

        Raises: OSError where the file cannot be written, or is not private.
        """
        await in_thread(lambda: self._update(key, change))

    def __repr__(self) -> str:
        return f"FileTokenStore({str(self._path)!r})"

    def _update(self, key: str, change: Callable[[StoredEntry | None], StoredEntry | None]) -> None:
        with self._lock():
            now = time.time()
            found = self._entries()
            entries = {name: entry for name, entry in found.items() if entry.expires > now}
            changed = change(entries.pop(key, None))
            if changed is not None:
                entries[key] = changed
            self._write(entries)

    def _entries(self) -> dict[str, StoredEntry]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        try:
            _check_private(os.fstat(descriptor), self._path)
            with open(descriptor, "rb", closefd=False) as file:  # what was checked is read
                raw = file.read(_LARGEST + 1)
        finally:
            os.close(descriptor)
        try:
            return _parsed(raw)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            log.warning("the token store %s is broken, and will be replaced", self._path)
            return {}

    def _write(self, entries: Mapping[str, StoredEntry]) -> None:
        document = {name: [entry.value, entry.expires] for name, entry in entries.items()}
        content = json.dumps({"version": 1, "entries": document}).encode()
        temporary = self._path.with_name(f"{self._path.name}.{token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:  # as above
                file.write(content)
            temporary.replace(self._path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    @contextmanager
    def _lock(self) -> Generator[None, None, None]:
        path = self._path.with_name(f"{self._path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        try:
            _check_private(os.fstat(descriptor), path)
            ends = time.monotonic() + _PATIENCE
            while True:
                try:
                    _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= ends:
                        raise
                time.sleep(_PAUSE)
            yield
        finally:
            # Closing releases the lock.
            os.close(descriptor)


def _check_private(found: os.stat_result, path: Path) -> None:
    """Return if the file belongs to this user alone.

    Raises: PermissionError where it does not.
    """
    problem = ""
    if not stat.S_ISREG(found.st_mode):
        problem = "is not a regular file"
    elif found.st_uid != os.geteuid():
        problem = "belongs to another user"
    elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        problem = "is accessible to other users; its mode must be 0600"
    if problem:
        raise PermissionError(errno.EPERM, problem, str(path))


def _parsed(raw: bytes) -> dict[str, StoredEntry]:
    if len(raw) > _LARGEST:
        raise ValueError
    entries = cast("dict[str, Any]", json.loads(raw)["entries"])
    found: dict[str, StoredEntry] = {}
    for name, (value, expires) in entries.items():
        if not isinstance(value, str):
            raise TypeError
        found[name] = StoredEntry(value, float(expires))
    return found
