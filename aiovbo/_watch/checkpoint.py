"""Where a watch keeps its position: a file that survives a crash, or memory that does not.

Knows records and files; knows no servers. The file is read and written away from the event loop.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from os import PathLike, fspath
from typing import Protocol, TypeVar, runtime_checkable
from uuid import UUID, uuid4
from weakref import WeakSet

from aiovbo._core.threads import NoThreadError, in_thread
from aiovbo._protocol.session_filter import TimeBound, resolve
from aiovbo._watch.changes import CheckpointEntry, ServerCheckpoint, SessionRecord
from aiovbo._watch.file_lock import FileLock
from aiovbo.errors import CheckpointError, ConfigError

T = TypeVar("T")

_OURS = 0x56424F57
"""What marks a SQLite file as ours."""
_FORMAT = 3
"""The version of the stored format. A file of an older one is upgraded when it is opened."""
_RECORDS = """
CREATE TABLE records (
    server TEXT, id BLOB, created TEXT, open INTEGER, marks BLOB, revision INTEGER, kind TEXT,
    PRIMARY KEY (server, id)
) WITHOUT ROWID;
"""
_SCHEMA = f"""
CREATE TABLE servers (name TEXT PRIMARY KEY, horizon TEXT, installation BLOB);
{_RECORDS}
"""
_UPGRADES = {
    # Format 1 had one mark for three members. Of these sessions, the next poll learns the members anew.
    1: (
        _RECORDS,
        """
        INSERT INTO records SELECT server, id, created, open, x'', revision,
        CASE mark WHEN -1 THEN 'removed' ELSE 'session' END FROM sessions
        """,
        "DROP TABLE sessions",
    ),
    # Format 2 noted that a server was polled only where it had been unreachable first.
    2: (
        """
        INSERT OR IGNORE INTO records
        SELECT name, x'00000000000000000000000000000001', '1970-01-01T00:00:00+00:00', 0, x'', 1, 'server'
        FROM servers WHERE name NOT IN (SELECT server FROM records WHERE marks = CAST('never polled' AS BLOB))
        """,
        "UPDATE records SET marks = x'' WHERE kind = 'server'",
    ),
}
"""By the format that a file has: the statements that make the next one of it."""
_MARKS = f"PRAGMA application_id={_OURS}; PRAGMA user_version={_FORMAT};"


@runtime_checkable
class CheckpointStore(Protocol):
    """What a watch needs of the store that keeps its place; your own may be another database."""

    async def open(self) -> None:
        """Get ready; called once, before anything else."""
        ...

    async def load(self, server: str) -> ServerCheckpoint | None:
        """How far a server's changes are delivered; None where it never was."""
        ...

    async def servers(self) -> dict[str, UUID | None]:
        """The servers that a place is kept of, each with its installation; who was saved last is last."""
        ...

    async def save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        """Go on to a further place, all of it or nothing; it is kept when this returns."""
        ...

    async def close(self) -> None:
        """Release everything; called once, at the end."""
        ...


class MemoryCheckpoint:
    """A place that lasts as long as the object; for tests, and where a restart may start over."""

    def __init__(self) -> None:
        self._places: dict[str, ServerCheckpoint] = {}

    async def open(self) -> None:
        """Nothing to get ready."""

    async def load(self, server: str) -> ServerCheckpoint | None:
        """How far a server's changes are delivered."""
        return self._places.get(server)

    async def servers(self) -> dict[str, UUID | None]:
        """The servers that a place is kept of, each with its installation; who was saved last is last."""
        return {server: place.installation for server, place in self._places.items()}

    async def save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        """Go on to a further place."""
        known = dict(self._places.pop(server, ServerCheckpoint()).known)
        for step in steps:
            if step.known is None:
                known.pop(step.session_id, None)
            else:
                known[step.session_id] = step.known
        self._places[server] = ServerCheckpoint(known, horizon, installation)

    async def close(self) -> None:
        """Keep it all: the next watch may go on from here."""


class Checkpoint:
    """A checkpoint in a file, kept over crashes; one watch at a time, others are rejected.

    Other programs can read the file while the watch runs: it is a SQLite database.

    Raises: CheckpointError from `open`, `load` and `save` where the file is damaged, foreign, newer, in use,
    gone, or cannot be written. It never starts over by itself: to do so, delete the file, and the one with
    `-wal` after its name that a crash leaves beside it.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if not fspath(path):
            raise ConfigError("a checkpoint needs the path of a file, not an empty text")
        self._path = fspath(path)
        self._file: sqlite3.Connection | None = None
        self._lock = FileLock("")
        self._inode = 0
        self._turn = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Open the file, make it where there is none, and keep others out of it."""
        was_open = self._file is not None
        try:
            await self._away(self._open)
        except asyncio.CancelledError:
            # It was opened all the same, and the cancelled caller will not close it.
            if not was_open:
                await self._away(self._close)
            raise

    async def load(self, server: str) -> ServerCheckpoint | None:
        """How far a server's changes are delivered."""
        return await self._away(lambda: self._load(server))

    async def servers(self) -> dict[str, UUID | None]:
        """The servers that a place is kept of, each with its installation; who was saved last is last."""
        return await self._away(self._servers)

    async def save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        """Go on to a further place, in one transaction."""
        await self._away(lambda: self._save(server, steps, horizon, installation))

    async def close(self) -> None:
        """Let others have the file."""
        await self._away(self._close)

    async def _away(self, work: Callable[[], T]) -> T:
        def careful() -> T:
            try:
                return work()
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                problem = _in_words(error, self._path)
            message = f"the checkpoint {self._path}: {problem}"
            raise CheckpointError(message)

        if asyncio.get_running_loop() is not self._loop:
            # Each event loop has locks of its own; one that was closed may have left this one locked.
            self._loop, self._turn = asyncio.get_running_loop(), asyncio.Lock()
        async with self._turn:
            # Shielded: half a transaction is none, but a connection that is still at work cannot be closed.
            working = asyncio.ensure_future(in_thread(careful))
            try:
                return await asyncio.shield(working)
            except NoThreadError as error:
                message = f"the checkpoint {self._path}: {error.strerror}"
                raise CheckpointError(message) from None
            except asyncio.CancelledError:
                await asyncio.wait([working])
                _ = working.cancelled() or working.exception()
                raise

    async def rewind(self, server: str, since: TimeBound) -> None:
        """Let the next watch report a server's sessions once more that were created after `since`.

        They come as `Added`, and as `Finished` where they have ended, with the IDs that these changes had.
        While a watch uses the file, it cannot be rewound.

        - `since`: an aware `datetime`, or a `timedelta` for "that long ago".

        Raises: CheckpointError where the file has no such server, or is in use; ConfigError for a naive time.
        """
        moment = resolve(since, datetime.now(UTC))
        assert moment is not None  # as a time was given

        def work() -> None:
            if not os.path.exists(os.path.realpath(self._path)):  # in a thread of its own
                message = f"it does not exist, so it has no server {server!r}"
                raise ValueError(message)
            if self._file is not None:
                raise ValueError(_IN_USE)
            self._open()
            try:
                self._rewind(server, moment)
            finally:
                self._close()

        await self._away(work)

    def _open(self) -> None:
        if self._file is not None:
            raise ValueError(_IN_USE)
        path = os.path.realpath(self._path)  # in a thread of its own, as all that follows
        lock = FileLock(path)
        try:
            is_free = lock.acquire()
        except OSError:
            raise ValueError(_not_writable(path)) from None
        if not is_free:
            raise ValueError(_IN_USE)
        try:
            self._file = _connect(path)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        _open_files.add(self)
        self._inode = os.stat(path).st_ino  # as above

    def _load(self, server: str) -> ServerCheckpoint | None:
        file = self._ready()
        select = "SELECT horizon, installation FROM servers WHERE name = ?"
        found = file.execute(select, (server,)).fetchone()
        if found is None:
            return None
        horizon, installation = found
        rows = file.execute(
            "SELECT id, created, open, marks, revision, kind FROM records WHERE server = ?", (server,)
        )
        known = {
            UUID(bytes=key): SessionRecord(
                datetime.fromisoformat(created), bool(is_open), marks, revision, kind
            )
            for key, created, is_open, marks, revision, kind in rows
        }
        return ServerCheckpoint(
            known,
            None if horizon is None else datetime.fromisoformat(horizon),
            None if installation is None else UUID(bytes=installation),
        )

    def _servers(self) -> dict[str, UUID | None]:
        # A row that is replaced goes to the end.
        rows = self._ready().execute("SELECT name, installation FROM servers ORDER BY rowid")
        return {name: None if key is None else UUID(bytes=key) for name, key in rows}

    def _save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        file = self._ready()
        # Of several steps of one session the last counts.
        steps = list({step.session_id: step for step in steps}.values())
        gone = [(server, step.session_id.bytes) for step in steps if step.known is None]
        rows = [
            (
                server,
                step.session_id.bytes,
                _text_of(step.known.created),
                step.known.is_open,
                step.known.marks,
                step.known.revision,
                step.known.kind,
            )
            for step in steps
            if step.known is not None
        ]
        is_new = file.execute("SELECT 1 FROM servers WHERE name = ?", (server,)).fetchone() is None
        file.execute("BEGIN IMMEDIATE")
        try:
            place = (
                server,
                None if horizon is None else _text_of(horizon),
                None if installation is None else installation.bytes,
            )
            file.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?)", place)
            file.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            file.executemany("DELETE FROM records WHERE server = ? AND id = ?", gone)
            file.execute("COMMIT")
        except BaseException:
            # A disk that is full, or fails, has ended the transaction already.
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        if is_new:
            # Into the file itself: without its -wal it is an old place then, and never none.
            file.execute("PRAGMA wal_checkpoint")

    def _rewind(self, server: str, since: datetime) -> None:
        file = self._ready()
        found = file.execute("SELECT horizon FROM servers WHERE name = ?", (server,)).fetchone()
        if found is None:
            names = ", ".join(map(repr, self._servers())) or "none"
            message = f"it has no server {server!r}; it has: {names}"
            raise ValueError(message)
        # As they are stored: times in UTC, in one form, have the order of their texts.
        text = _text_of(since)
        file.execute("BEGIN IMMEDIATE")
        file.execute(
            """
            DELETE FROM records
            WHERE server = ? AND created > ? AND kind IN ('session', 'removed', 'rejected')
            """,
            (server, text),
        )
        if found[0] is not None and found[0] > text:
            file.execute("UPDATE servers SET horizon = ? WHERE name = ?", (text, server))
        file.execute("COMMIT")

    def _ready(self) -> sqlite3.Connection:
        if self._file is None:
            raise ValueError("it is not open")
        if os.stat(self._path).st_ino != self._inode:  # in a thread of its own
            raise ValueError("another file has taken its place while it was in use")
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
            self._lock.release()

    def leave_to_parent(self) -> None:
        """In a forked process: the file stays open in the parent, and is never closed here."""
        if self._file is not None:
            _of_parent.append(self._file)
            self._file = None
            self._lock.leave_to_parent()


_open_files: "WeakSet[Checkpoint]" = WeakSet()
_of_parent: list[sqlite3.Connection] = []
"""Connections of the parent process. Closing one would delete the `-wal` that the parent still writes."""


def _leave_to_parent() -> None:
    for checkpoint in list(_open_files):
        checkpoint.leave_to_parent()
    if _of_parent:
        # Never deallocated, not even when the interpreter ends.
        import ctypes  # only forked processes need it

        for file in _of_parent:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(file))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_to_parent)


_IN_USE = "another process, or another watch, is using it"
_DAMAGED = "it is damaged, or was never a checkpoint; restore it, or start over with another file"
_PATIENCE = 10.0
"""Seconds that a write waits for another program that has locked the file for a moment."""
_SMALLEST = 512
"""Bytes of the smallest SQLite file; ours are there whole or not at all, so an empty one is damaged."""


def _connect(path: str) -> sqlite3.Connection:
    if not os.path.exists(path):  # in a thread of its own, as all that follows
        _create(path)
    if os.path.getsize(path) < _SMALLEST:  # as above
        raise ValueError(_DAMAGED)
    if not os.access(path, os.W_OK):
        # SQLite would speak of an I/O error.
        raise ValueError(_not_writable(path))
    file = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        # Others may read while this process writes.
        file.execute("PRAGMA journal_mode=WAL")
        # What a save has returned from is kept, also over a power cut.
        file.execute("PRAGMA synchronous=FULL")
        file.execute("BEGIN IMMEDIATE")
        _check(file)
        file.execute("COMMIT")
    except BaseException:
        file.close()
        raise
    return file


def _create(path: str) -> None:
    """An empty checkpoint, there at once and whole: a crash in between leaves no half of one."""
    if os.path.exists(f"{path}-wal"):  # as above
        raise FileNotFoundError
    part = f"{path}.{uuid4().hex}"
    try:
        with closing(sqlite3.connect(part, isolation_level=None)) as file:
            # Not with the first start: a program that reads the file could prevent it then.
            file.execute("PRAGMA journal_mode=WAL")
            file.executescript(f"BEGIN; {_SCHEMA} {_MARKS} COMMIT;")
        try:
            # Unlike a renamed file, it replaces no other file.
            os.link(part, path)
        except FileExistsError:
            pass
        except OSError:
            # Some file systems know no links.
            os.replace(part, path)  # as above
    finally:
        for end in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(part + end)  # as above


def _check(file: sqlite3.Connection) -> None:
    if file.execute("PRAGMA application_id").fetchone()[0] != _OURS:
        raise ValueError("this is another program's file; give the watch one of its own")
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if version > _FORMAT:
        message = (
            f"it was written by a newer version (format {version}, this one knows {_FORMAT}): upgrade aiovbo"
        )
        raise ValueError(message)
    if file.execute("PRAGMA quick_check").fetchone()[0] != "ok":
        raise ValueError(_DAMAGED)
    for older in range(version, _FORMAT):
        for statement in _UPGRADES[older]:
            file.execute(statement)
        file.execute(f"PRAGMA user_version={older + 1}")


def _text_of(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _not_writable(path: str) -> str:
    directory = os.path.dirname(os.path.realpath(path))
    return (
        "it cannot be opened; the directory must exist, and this user must be able to write both "
        f"(directory: {directory})"
    )


def _in_words(error: Exception, path: str) -> str:
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "it was removed while it was in use; put it back, or delete what is left of it to start over"
    if "locked" in text:
        return "another program writes to it, or keeps it locked"
    if "unable to open" in text or "readonly" in text or isinstance(error, PermissionError):
        return _not_writable(path)
    if isinstance(error, OSError):
        # Its text may name a temporary file.
        return f"{error.strerror} (directory: {os.path.dirname(os.path.realpath(path))})"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return f"{_DAMAGED} ({text})"
    return text
