"""Watching with many processes: checkpoints in PostgreSQL, and leases that share the servers out.

Needs the extra `postgres`: psycopg 3 and its pool, imported here only. Knows tables and SQL; knows no
servers.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, LiteralString, TypeVar, cast
from uuid import UUID, uuid4

from psycopg import (
    AsyncConnection,
    AsyncCursor,
    DataError,
    Error,
    IntegrityError,
    ProgrammingError,
    errors,
    sql,
)
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from aiovbo._protocol.session_filter import TimeBound, resolve
from aiovbo._settings.numbers import check_interval
from aiovbo._watch import postgres_statements as statements
from aiovbo._watch.changes import CheckpointEntry, ServerCheckpoint, SessionRecord
from aiovbo._watch.leases import Leases
from aiovbo._watch.transactions import lease_lost
from aiovbo.errors import CheckpointError, ConfigError

__all__ = ["PostgresCheckpoint"]

log: logging.Logger = logging.getLogger("aiovbo.watch")

T = TypeVar("T")

_FORMAT = 1
"""The version of the tables."""
_RENEWALS = 3
"""Renewals within one lease: one that fails does not end it."""
_MARGIN = 6
"""The part of a lease in which the process does not deliver any more, and others do not claim yet."""
_CONNECTIONS = 4
"""Connections of one process, at most; one of them is kept free for renewals."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two attempts."""
_CONNECT_TIMEOUT = 5
"""Seconds."""
_LEAVE_TIMEOUT = 5.0
"""Seconds that the end of a watch waits to tidy up; without it, the leases run out."""
_LOCK = 0x56424F57
"""The advisory lock under which the tables are created."""

Connection = AsyncConnection[Any]


class PostgresCheckpoint:
    """Checkpoints in PostgreSQL, for a watch that many processes share: each watches a part of the servers.

    Every process creates the same fleet and the same watch, with a `PostgresCheckpoint` of the same group.
    Each server is watched by one process at a time. If a process ends, or does not renew its leases in time,
    the others take over its servers, and continue where it stopped. Creates its tables where there are none.

    Processes that deliver into the same database can do so exactly once: write what you make of a batch and
    `await batch.ack(connection)` in one transaction. Set `idle_in_transaction_session_timeout` on the server,
    to a few minutes: a process that is stopped within a transaction holds its servers until that has passed.

    Raises: CheckpointError where the database cannot be used, or not be reached for `retry_for`; nothing is
    lost, and a watch that is started again continues.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        group: str,
        lease: timedelta = timedelta(seconds=30),
        retry_for: timedelta = timedelta(minutes=1),
    ) -> None:
        """The checkpoint of one group.

        - `conninfo`: how to connect, as libpq takes it: `postgresql://user@host/database`, or
          `host=db1 dbname=vbo`. A password is better kept in `~/.pgpass`.
        - `group`: name of the processes that share the servers.
        - `lease`: after how long a process that does not respond is replaced; it is renewed three times as
          often.
        - `retry_for`: for how long a database that cannot be reached is tried again.

        Raises: ConfigError for an invalid conninfo, an empty group, or intervals that are not above 0.
        """
        is_valid = _is_conninfo(conninfo)
        self._conninfo = _Conninfo(conninfo)
        # A debugger would show the password in it.
        del conninfo
        if not is_valid:
            raise ConfigError("conninfo is a URL, or keywords and values, as libpq takes them")
        if not isinstance(cast("object", group), str) or not group or "\0" in group:
            raise ConfigError("group is the name of the processes that share the servers, not empty")
        check_interval("lease", lease)
        check_interval("retry_for", retry_for)
        self._group = group
        self._lease = lease
        self._retry_for = retry_for.total_seconds()
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._slots = asyncio.Semaphore(_CONNECTIONS - 1)
        self._schema = ""
        self._statements: dict[str, bytes] = {}
        self._id: UUID | None = None
        self._epochs: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"PostgresCheckpoint(group={self._group!r})"

    # ------------------------------------------------------------------------------ checkpoint store

    async def open(self) -> None:
        """Connect, and create the tables where there are none."""
        if self._pool is not None:
            message = f"{self!r} is in use by another watch: create one for each watch"
            raise CheckpointError(message)
        self._slots = asyncio.Semaphore(_CONNECTIONS - 1)
        pool = AsyncConnectionPool[Connection](
            self._conninfo.text,
            connection_class=AsyncConnection[Any],
            kwargs={"autocommit": True, "prepare_threshold": None, "connect_timeout": _CONNECT_TIMEOUT},
            min_size=1,
            max_size=_CONNECTIONS,
            open=False,
            timeout=_CONNECT_TIMEOUT,
            # Its own pauses between attempts grow with the time for which the database was away.
            reconnect_timeout=_LONGEST_PAUSE,
            name="aiovbo",
        )
        self._pool = pool
        try:
            await self._retry(self._prepare, is_first=True)
            await pool.open()
        except BaseException:
            await self.close()
            raise

    async def _prepare(self) -> None:
        """The tables; on a connection of its own, which states why the database cannot be reached."""
        connection = await self._connect()
        async with connection, connection.transaction():
            found = await (await connection.execute("SELECT current_schema()")).fetchone()
            if found is None or found[0] is None:
                raise ConfigError("the database has no schema for tables: set search_path in conninfo")
            self._schema = found[0]
            self._statements.clear()
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if not await _first(connection, self._sql(statements.EXISTS), {"schema": self._schema}):
                await connection.execute(self._sql(statements.TABLES))
            row = await _first(connection, self._sql(statements.VERSION), {})
            if row is None or row[0] != _FORMAT:
                written = "unknown" if row is None else row[0]
                message = (
                    f"the tables were written by another version (format {written}, this one knows "
                    f"{_FORMAT}): upgrade aiovbo"
                )
                raise CheckpointError(message)

    async def load(self, server: str) -> ServerCheckpoint | None:
        """How far a server's changes are delivered."""

        async def work(connection: Connection) -> ServerCheckpoint | None:
            async with connection.transaction():
                key = {"group": self._group, "server": server}
                place = await (await connection.execute(self._sql(statements.LOAD_SERVER), key)).fetchone()
                if place is None:
                    return None
                rows = await connection.execute(self._sql(statements.LOAD_RECORDS), key)
                known = {
                    key: SessionRecord(_aware(created), is_open, marks, revision, kind)
                    async for key, created, is_open, marks, revision, kind in rows
                }
            horizon, installation = place
            return ServerCheckpoint(known, None if horizon is None else _aware(horizon), installation)

        return await self._run(work)

    async def servers(self) -> dict[str, UUID | None]:
        """The servers that a place is kept of, each with its installation; who was saved last is last."""

        async def work(connection: Connection) -> dict[str, UUID | None]:
            rows = await connection.execute(self._sql(statements.SERVERS), {"group": self._group})
            return dict(await rows.fetchall())

        return await self._run(work)

    async def save(
        self,
        server: str,
        steps: Sequence[CheckpointEntry],
        horizon: datetime | None,
        installation: UUID | None,
    ) -> None:
        """Go on to a further place, in one transaction.

        Raises: LeaseLostError where another process watches the server now.
        """
        # Those of now: a later lease must not save what was found under an earlier one.
        process, epochs = self._id, self._epochs_of([server])
        place = {"group": self._group, "server": server, "horizon": horizon, "installation": installation}

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await self._hold(connection, process, epochs)
                await connection.execute(self._sql(statements.SAVE_SERVER), place)
                await self._save_steps(connection, server, steps)

        await self._run(work)

    async def rewind(self, server: str, since: TimeBound) -> None:
        """Let the next watch report a server's sessions once more that were created after `since`.

        They come as `Added`, and as `Finished` where they have ended, with the IDs that these changes had.
        While a process watches the server, it cannot be rewound: stop the processes of the group first. After
        one was killed, its lease has to run out.

        - `since`: an aware `datetime`, or a `timedelta` for "that long ago".

        Raises: CheckpointError where a process watches the server, the group has no such server, or the
        database cannot be used; ConfigError for a naive time.
        """
        moment = resolve(since, datetime.now(UTC))
        if self._pool is not None:
            message = f"{self!r} is in use by a watch: rewind before it starts"
            raise CheckpointError(message)

        async def work() -> None:
            connection = await self._connect()
            async with connection:
                await self._rewind(connection, server, moment)

        await self._retry(self._prepare, is_first=True)
        await self._retry(work)

    async def _rewind(self, connection: Connection, server: str, since: datetime | None) -> None:
        key = {"group": self._group, "server": server, "since": since}
        async with connection.transaction():
            lease = await _first(connection, self._sql(statements.WATCHED), key)
            if lease is not None and lease[0]:
                message = f"a process of the group {self._group} watches {server}: stop all of them first"
                raise CheckpointError(message)
            await connection.execute(self._sql(statements.REVOKE), key)
            if await _first(connection, self._sql(statements.REWIND_SERVER), key) is None:
                rows = await connection.execute(self._sql(statements.SERVERS), key)
                names = ", ".join([repr(name) async for name, _ in rows]) or "none"
                message = f"the group {self._group} has no server {server!r}; it has: {names}"
                raise CheckpointError(message)
            await connection.execute(self._sql(statements.REWIND_RECORDS), key)

    async def close(self) -> None:
        """End the leases of this process, and close all connections."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        process, self._id = self._id, None
        self._epochs = {}
        try:
            if process is not None and not pool.closed:
                async with asyncio.timeout(_LEAVE_TIMEOUT), pool.connection() as connection:
                    key = {"group": self._group, "id": process}
                    await connection.execute(self._sql(statements.LEAVE), key)
        except (Error, TimeoutError, OSError) as error:
            log.info("the leases of %r could not be ended, and run out: %s", self, type(error).__name__)
        finally:
            await pool.close()

    # ----------------------------------------------------------------------------------- lease store

    @property
    def renew_every(self) -> float:
        """Seconds between two renewals."""
        return self._lease.total_seconds() / _RENEWALS

    async def renew(self, servers: Collection[str]) -> Leases:
        """Renew this process's leases, and claim free servers up to its share; joins the group if needed."""
        members = set(servers)

        async def work(connection: Connection) -> Leases:
            began = time.monotonic()
            process, survey = await self._survey(connection, members)
            epochs = {name: epoch for name, epoch, is_own, *_ in survey if is_own}
            # This process is one of them, also where its lease has ended just now.
            processes = max((row[4] for row in survey), default=0) or 1
            next_end = min((row[5] for row in survey if row[5] is not None), default=float("inf"))
            share = ceil(len(members) / processes)
            missing = share - len(epochs.keys() & members)
            free = [name for name, _, _, is_free, *_ in survey if is_free]
            if free and missing > 0:
                epochs |= await self._claim(connection, process, free, missing)
            seconds = self._lease.total_seconds()
            valid_until = began + seconds - seconds / _MARGIN
            return Leases(
                epochs=epochs,
                surplus=max(0, -missing),
                valid_until=valid_until,
                next_end=time.monotonic() + next_end,
            )

        leases = await self._run(work, may_wait=False)
        # Last, so that nothing of an earlier lease is saved under a new one before the watch knows of it.
        self._epochs = dict(leases.epochs)
        return leases

    async def _survey(
        self, connection: Connection, members: set[str]
    ) -> tuple[UUID, list[tuple[str, int, bool | None, bool, int, float | None]]]:
        """Renew, and see who watches what.

        Shape: (server, epoch, whether it is own, is free, live processes, seconds until the lease of another
        one ends).
        """
        process = self._id
        key = {"group": self._group, "id": process, "lease": self._lease, "servers": list(members)}
        if process is None or await _first(connection, self._sql(statements.RENEW), key) is None:
            if process is not None:
                log.warning("%r did not renew its leases in time, and joins its group again", self)
            await connection.execute(self._sql(statements.CLEAN_UP), key)
            process = key["id"] = uuid4()
            await connection.execute(self._sql(statements.JOIN), key)
            # At once: a second attempt must not join as one process more.
            self._id, self._epochs = process, {}
            await connection.execute(self._sql(statements.ADD_SERVERS), key)
        rows = await (await connection.execute(self._sql(statements.SURVEY), key)).fetchall()
        if members - {row[0] for row in rows}:
            await connection.execute(self._sql(statements.ADD_SERVERS), key)
            rows = await (await connection.execute(self._sql(statements.SURVEY), key)).fetchall()
        return process, rows

    async def _claim(
        self, connection: Connection, process: UUID, free: list[str], count: int
    ) -> dict[str, int]:
        key = {"group": self._group, "id": process, "servers": free, "count": count}
        async with connection.transaction():
            locked = await (await connection.execute(self._sql(statements.LOCK_FREE), key)).fetchall()
            key["servers"] = [name for (name,) in locked]
            return dict(await (await connection.execute(self._sql(statements.CLAIM), key)).fetchall())

    async def release(self, servers: Collection[str]) -> Collection[str]:
        """Make servers free for other processes; those that are, because no transaction uses their leases."""
        key = {"group": self._group, "id": self._id, "servers": list(servers)}
        for name in servers:
            self._epochs.pop(name, None)

        async def work(connection: Connection) -> list[str]:
            rows = await connection.execute(self._sql(statements.RELEASE), key)
            return [name for (name,) in await rows.fetchall()]

        return await self._run(work, may_wait=False)

    async def leave(self) -> None:
        """End all leases of this process. The next renewal joins the group as a new process."""
        key = {"group": self._group, "id": self._id}
        self._id, self._epochs = None, {}

        async def work(connection: Connection) -> None:
            await connection.execute(self._sql(statements.LEAVE), key)

        await self._run(work, may_wait=False)

    async def save_within(self, connection: object, steps: Mapping[str, Sequence[CheckpointEntry]]) -> str:
        """Write steps of several servers in the caller's transaction, and return the transaction's ID."""
        if not isinstance(connection, AsyncConnection):
            message = (
                f"batch.ack(connection) takes a psycopg.AsyncConnection, not {type(connection).__name__}"
            )
            raise ConfigError(message)
        own: Connection = cast("Connection", cast("object", connection))
        if own.autocommit and own.info.transaction_status == TransactionStatus.IDLE:
            raise ConfigError(
                "batch.ack(connection) needs a transaction: async with connection.transaction()"
            )
        process, epochs = self._id, self._epochs_of(steps)
        await self._hold(own, process, epochs)
        for server, its in steps.items():
            await _execute(own, self._sql(statements.NOTE_SERVER), {"group": self._group, "server": server})
            await self._save_steps(own, server, its)
        number: str = (await _first(own, self._sql(statements.TRANSACTION), {}))[0]
        return number

    async def abort(self, connection: object) -> None:
        """Make sure that the caller's transaction cannot be committed."""
        if isinstance(connection, AsyncConnection):
            own: Connection = cast("Connection", cast("object", connection))
            with suppress(Error):
                await _execute(own, statements.ABORT.encode(), {})

    async def outcomes(self, transactions: Collection[str]) -> dict[str, bool]:
        """Whether each transaction was committed; one that is still open is absent."""

        async def work(connection: Connection) -> dict[str, bool]:
            key = {"transactions": list(transactions)}
            rows = await connection.execute(self._sql(statements.OUTCOMES), key)
            return {number: status != "aborted" async for number, status in rows if status != "in progress"}

        return await self._run(work)

    # ---------------------------------------------------------------------------------------- details

    def _sql(self, text: LiteralString) -> bytes:
        """A statement with the name of the schema, so that it does not depend on a search_path."""
        found = self._statements.get(text)
        if found is None:
            names = {"schema": sql.Identifier(self._schema), "version": sql.Literal(_FORMAT)}
            found = self._statements[text] = sql.SQL(text).format(**names).as_bytes()
        return found

    def _epochs_of(self, servers: Collection[str]) -> dict[str, int]:
        if lost := [name for name in servers if name not in self._epochs]:
            raise lease_lost(lost)
        return {name: self._epochs[name] for name in servers}

    async def _hold(self, connection: Connection, process: UUID | None, epochs: Mapping[str, int]) -> None:
        """Keep other processes from claiming servers until the transaction has ended."""
        key = {"group": self._group, "id": process, "servers": list(epochs), "epochs": list(epochs.values())}
        rows = await (await _execute(connection, self._sql(statements.HOLD), key)).fetchall()
        if lost := epochs.keys() - {name for (name,) in rows}:
            raise lease_lost(lost)

    async def _save_steps(
        self, connection: Connection, server: str, steps: Sequence[CheckpointEntry]
    ) -> None:
        # Of several steps of one session the last counts.
        last = {step.session_id: step.known for step in steps}
        key = {"group": self._group, "server": server}
        rows = [(session, record) for session, record in last.items() if record is not None]
        if rows:
            columns = {
                "ids": [session for session, _ in rows],
                "created": [record.created for _, record in rows],
                "open": [record.is_open for _, record in rows],
                "marks": [record.marks for _, record in rows],
                "revisions": [record.revision for _, record in rows],
                "kinds": [record.kind for _, record in rows],
            }
            await _execute(connection, self._sql(statements.SAVE_RECORDS), {**key, **columns})
        if gone := [session for session, record in last.items() if record is None]:
            await _execute(connection, self._sql(statements.DELETE_RECORDS), {**key, "ids": gone})

    async def _connect(self) -> Connection:
        return await AsyncConnection[Any].connect(
            self._conninfo.text, autocommit=True, prepare_threshold=None, connect_timeout=_CONNECT_TIMEOUT
        )

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, may_wait: bool = True) -> T:
        """What `work` returns, on a connection of the pool; repeated while the database is away."""

        async def attempt() -> T:
            if self._pool is None:
                raise CheckpointError("the checkpoint is not open")
            async with self._pool.connection() as connection:
                return await work(connection)

        if not may_wait:
            return await self._retry(attempt)
        # Renewals never wait for a connection, however many servers are loaded or saved.
        async with self._slots:
            return await self._retry(attempt)

    async def _retry(self, attempt: Callable[[], Awaitable[T]], *, is_first: bool = False) -> T:
        ends = time.monotonic() + (0.0 if is_first else self._retry_for)
        attempts, pause = 0, 0.0
        before = _cancellations()
        while True:
            attempts += 1
            try:
                found = await attempt()
            except (Error, OSError) as error:
                is_lasting = isinstance(error, _LASTING)
                has_no_connection = isinstance(error, PoolTimeout)
                problem = _in_words(error)
            else:
                _raise_if_cancelled(before)
                return found
            _raise_if_cancelled(before)
            if has_no_connection:
                problem = await self._why_unreachable()
            # A connection may have been cut: one more attempt never harms.
            if is_lasting or (attempts > 1 and time.monotonic() >= ends):
                message = (
                    f"the checkpoint in PostgreSQL, group {self._group}: {problem} (tried {attempts} times)"
                )
                raise CheckpointError(message)
            log.info("PostgreSQL: %s; trying again", problem)
            await asyncio.sleep(pause * (0.5 + random.random() / 2))  # noqa: S311  # no secret
            pause = min(_LONGEST_PAUSE, 2 * pause or _FIRST_PAUSE)

    async def _why_unreachable(self) -> str:
        """The pool does not state it."""
        try:
            connection = await self._connect()
        except (Error, OSError) as error:
            return _in_words(error)
        await connection.close()
        return "all connections to the database are in use"


_LASTING = (DataError, IntegrityError, ProgrammingError, errors.NotSupportedError)
"""Errors that another attempt does not change."""


class _Conninfo:
    """How to connect, with a password perhaps: not shown by `repr`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "<conninfo>"


def _is_conninfo(text: object) -> bool:
    if not isinstance(text, str) or not text:
        return False
    try:
        conninfo_to_dict(text)
    except ProgrammingError:
        return False
    return True


def _aware(time_in_utc: datetime) -> datetime:
    return time_in_utc.replace(tzinfo=UTC)


async def _execute(connection: Connection, query: bytes, values: Mapping[str, Any]) -> AsyncCursor[Any]:
    """Whatever the consumer's connection makes of rows, and prepares; proxies may not support the latter."""
    return await AsyncCursor[Any](connection, row_factory=tuple_row).execute(query, values, prepare=False)


async def _first(connection: Connection, query: bytes, values: Mapping[str, Any]) -> Any:
    return await (await _execute(connection, query, values)).fetchone()


def _in_words(error: Exception) -> str:
    """The database's own message, on one line; it contains no password."""
    return " ".join(str(error).split()) or type(error).__name__


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _raise_if_cancelled(before: int) -> None:
    """The pool waits by `asyncio.wait_for`, which up to Python 3.11 loses a cancellation now and then."""
    if _cancellations() > before:
        raise asyncio.CancelledError
