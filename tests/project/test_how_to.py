"""The how-to pages: what they show is what a program prints, what a server sends, and what is logged."""

import ast
import asyncio
import inspect
import logging
import os
import re
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from harness import closed_port
from harness.backups import asked, server_of
from harness.readme import PAGES, ROOT, blocks, table

from aiovbo import Assertion, Client, ClosedError, Fleet, Integration, Password, RestoreSession, Server
from aiovbo._settings.api_versions import API_VERSIONS, supports
from aiovbo.testing import BackupFleet, BackupServer, World


@pytest.fixture
def backups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackupFleet]:
    """Two servers, and an inventory of them in the current folder."""
    monkeypatch.chdir(tmp_path)
    with BackupFleet(2, versions=("v8", "v6"), sessions=5).run_in_thread() as running:
        monkeypatch.setenv("VBO_TEST_PASSWORD", running.password)
        login = f"{{ username = '{running.username}', password.env = 'VBO_TEST_PASSWORD' }}"
        lines = [f"defaults.credentials = {login}", f"defaults.tls.ca_file = '{running.ca_file}'"]
        lines += [f"servers.vbo{number}.url = '{url}'" for number, url in enumerate(running.urls, 1)]
        (tmp_path / "fleet.toml").write_text("\n".join(lines), encoding="utf-8")
        yield running


async def run_cells(cells: list[str], names: dict[str, Any]) -> None:
    """Run code with top-level `await`, as a notebook does: one cell after the other, in one event loop."""
    for cell in cells:
        code = compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, names)  # noqa: S307  # the page's code is what is tested
        else:
            # It may read a file, which tests do not allow in the event loop.
            await asyncio.to_thread(exec, code, names)


def test_the_script_prints_what_the_page_shows(tmp_path: Path) -> None:
    """One failed restore, one server that is off, exit status 1."""
    world = World(sessions=0)
    world.add(type="Vesp", result="Failed", initiated_by="TECH\\anna", end_time=world.now)
    world.add(type="Vex", result="Success", end_time=world.now)
    program = tmp_path / "failed.py"
    program.write_text(blocks("python", PAGES["scripts"])[0], encoding="utf-8")
    with BackupServer(world).run_in_thread() as backup:
        run = subprocess.run(
            [sys.executable, "-W", "error", program, "127.0.0.1:9", backup.url],
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
            env={**os.environ, "VBO_PASSWORD": backup.password, "SSL_CERT_FILE": backup.ca_file},
        )
        names = {"127.0.0.1:9": "vbo1.tech.local", f"127.0.0.1:{backup.port}": "vbo2.tech.local"}
    printed = run.stdout + re.sub(r"\d\.\d s", "0.6 s", run.stderr)
    for address, name in names.items():
        printed = printed.replace(address, name)
    assert run.returncode == 1
    assert printed.splitlines() == blocks("console", PAGES["scripts"])[0].splitlines()[1:]


def test_the_program_that_watches_prints_what_the_page_shows(tmp_path: Path) -> None:
    """A restore that is running, and one that ended before it began."""
    running, ended = World(sessions=0), World(sessions=0)
    running.add(type="Vex", end_time=None)
    ended.add(type="Vesp", result="Failed", end_time=ended.now)
    (tmp_path / "watch.py").write_text(blocks("python", PAGES["watching"])[0], encoding="utf-8")
    shown = blocks("console", PAGES["watching"])[0].splitlines()[1:]
    with BackupFleet([BackupServer(running), BackupServer(ended)]).run_in_thread() as backups:
        environment = {**os.environ, "VBO_PASSWORD": backups.password, "SSL_CERT_FILE": backups.ca_file}
        command = [sys.executable, "-W", "error", "-u", "watch.py", *backups.urls]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            printed = [process.stdout.readline() for _ in shown]
            process.terminate()
        for number, backup in enumerate(backups, 1):
            printed = [one.replace(f"127.0.0.1:{backup.port}", f"vbo{number}.tech.local") for one in printed]
    # In the order in which servers answer.
    assert sorted(line.rstrip() for line in printed) == sorted(shown)
    assert (tmp_path / "restores.db").exists()


def test_the_small_exporter_serves_the_lines_of_the_page(tmp_path: Path) -> None:
    """One server with three sessions, and one that is off."""
    pytest.importorskip("prometheus_client")
    world = World(sessions=0)
    for result in ("Success", "Success", "Failed"):
        world.add(result=result, end_time=world.now)
    (program,) = (block for block in blocks("python", PAGES["observing"]) if "start_http_server" in block)
    with closed_port() as port:
        pass  # free again: the program takes it on all addresses
    with BackupServer(world).run_in_thread() as backup:
        (tmp_path / "metrics.py").write_text(program.replace("9000", str(port)), encoding="utf-8")
        environment = {**os.environ, "VBO_PASSWORD": backup.password, "SSL_CERT_FILE": backup.ca_file}
        command = [sys.executable, "-W", "error", "metrics.py", backup.url, "127.0.0.1:9"]
        names = {f"127.0.0.1:{backup.port}": "vbo1.tech.local", "127.0.0.1:9": "vbo2.tech.local"}
        shown = set(blocks("text", PAGES["observing"])[0].splitlines())
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
            served: set[str] = set()
            ends = time.monotonic() + 60
            while not shown <= served and time.monotonic() < ends and process.poll() is None:
                time.sleep(0.1)
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                    text = page.read().decode()
                    for address, name in names.items():
                        text = text.replace(address, name)
                    served = set(text.splitlines())
            process.terminate()
    assert shown <= served


def test_every_extra_is_in_the_table() -> None:
    """Those that users install; the others are for contributors."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {name for name, _ in table("extra")} == set(project["optional-dependencies"]) - {"docs", "dev"}
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in PAGES["install"]


async def test_the_cells_of_the_notebook_run_one_after_the_other(backups: BackupFleet) -> None:
    """In one event loop, with the names of earlier cells."""
    names: dict[str, Any] = {}
    await run_cells(blocks("python", PAGES["notebooks"]), names)
    assert len(names["rows"]) == 2 * len(backups[0].world.sessions)


async def test_the_message_of_a_second_event_loop_is_python_s() -> None:
    """As `asyncio.run` reports it in a cell."""
    coroutine = asyncio.sleep(0)
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(coroutine)
    coroutine.close()
    assert blocks("text", PAGES["notebooks"]) == [f"{caught.value}\n"]


def test_threads_share_the_fleet_of_the_background_loop(backups: BackupFleet) -> None:
    """Twenty calls from eight threads get the answers of both servers, with one login for each."""
    definitions, views, closing = blocks("python", PAGES["threads"])
    names: dict[str, Any] = {}
    exec(definitions, names)  # noqa: S102  # the page's code is what is tested
    exec(views, names)  # noqa: S102  # the same
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: names["view"](), range(20)))
    with pytest.raises(ClosedError) as caught:
        asyncio.run(names["restores"]())
    # Before it is closed: afterwards the thread may be gone already.
    (thread,) = (one for one in names["threading"].enumerate() if one.name == "aiovbo")
    exec(closing, names)  # noqa: S102  # the same
    thread.join()
    names["loop"].close()
    day = datetime.now(UTC) - timedelta(days=1)
    recent = sum(one.creation_time > day for backup in backups for one in backup.world.sessions)
    assert set(texts) == {f"{recent} sessions, 0 servers failed"}
    assert [backup.logins for backup in backups] == [1, 1]
    assert f"```text\n{caught.value}\n```" in PAGES["scripts"]


def test_the_background_loop_takes_ten_lines() -> None:
    """Without the docstring, imports and empty lines."""
    lines = blocks("python", PAGES["threads"])[0].splitlines()
    assert len([line for line in lines if line and '"""' not in line]) <= 10


@pytest.mark.parametrize("version", ["v4", "v7", "v8"])
async def test_the_requests_of_a_query_by_end_are_those_of_the_page(version: Any) -> None:
    """In a history of 5,000 sessions over a week."""
    rows = {row[0]: row[1:] for row in table("history of 5,000 sessions in a week, the last day")}
    column = int(version == "v8")
    world = World(sessions=5000, speed=0)
    (both,) = (
        re.findall(r"timedelta\(days=(\d)\)", block) for block in blocks("python", PAGES["sessions-by-end"])
    )
    ended, started = (timedelta(days=int(days)) for days in both)
    async with BackupServer(world, version=version) as backup:
        server = server_of(backup, api_version=version)
        async with Client(server) as client:
            alone = await client.restore_sessions(ended_after=ended)
            first = asked(backup)
            together = await client.restore_sessions(ended_after=ended, started_after=started)
            second = asked(backup) - first
    assert set(together) <= set(alone)
    began = datetime.now(UTC) - started + timedelta(minutes=1)
    assert all(one.creation_time < began for one in set(alone) - set(together))
    assert all(one.end_time is not None for one in alone)
    counts = [[int(number) for number in re.findall(r"\d+", row[column])] for row in rows.values()]
    assert [[first], [second]] == counts


async def received(version: Any) -> set[str]:
    """The attributes of an ended session for which a server of this version sends a value."""
    world = World(sessions=0, speed=0)
    world.add(end_time=world.now, details="…", scope_name="…", client_host="…", reason="…")
    async with BackupServer(world, version=version) as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
    fields = {field.name for field in attrs.fields(RestoreSession)} - {"server", "links", "extra"}
    return {name for name in fields if getattr(session, name) is not None}


async def test_the_table_of_fields_is_true() -> None:
    """A dash where the version sends no such field; documented since the version that the model states."""
    rows = {name: (api, cells) for name, api, *cells in table("field")}
    fields = {field.name for field in attrs.fields(RestoreSession)} - {"server", "links", "extra"}
    assert set(rows) == fields
    source = inspect.getsource(RestoreSession)
    for column, version in enumerate(API_VERSIONS):
        sent = await received(version)
        assert {name for name, (_, cells) in rows.items() if cells[column] in {"yes", "mostly"}} == sent
        for name, (_, cells) in rows.items():
            (text,) = re.findall(rf'^    {name}: .*\n    """([^"]*)"""', source, re.MULTILINE)
            since = re.search(r"since (v\d)", text)
            is_documented = since is None or API_VERSIONS.index(since[1]) <= column  # type: ignore[arg-type]  # else the test fails
            assert (cells[column] == "yes") is is_documented, (name, version)


async def test_the_names_of_the_api_are_those_of_to_dict() -> None:
    """Each attribute has the name under which servers send it."""
    world = World(sessions=0, speed=0)
    world.add(end_time=world.now, details="…", scope_name="…", client_host="…", reason="…")
    async with BackupServer(world, version="v8") as backup, Client(server_of(backup)) as client:
        (session,) = await client.restore_sessions()
    assert {api for _, api, *_ in table("field")} <= set(session.to_dict())


def test_the_table_of_products_is_the_one_of_the_readme() -> None:
    """Each product version serves its own API version and those before, as far as aiovbo supports them."""
    short = {number: served for number, served, _ in table("product version")}
    for product, served, newest in table("product"):
        number = product.rpartition(" ")[2]
        versions = re.findall(r"v\d", served)
        assert newest == versions[0] == f"v{number}"
        assert re.findall(r"v\d", short[number]) in ([newest], [versions[-1], newest])


def test_the_table_of_logins_is_true() -> None:
    """Which credentials a server of each version can be given."""
    rows = {name: cells for name, *cells, _ in table("login")}
    made = {
        "Integration": Integration("token"),
        "Password": Password("user", "password"),
    }
    for name, credentials in made.items():
        for column, version in enumerate(API_VERSIONS):
            is_usable = version in Server("vbo1", credentials).usable_versions
            assert (rows[name][column] == "yes") is is_usable, (name, version)
    (since,) = re.findall(r"restore operators; since (v\d)", inspect.getsource(Assertion))
    operators = rows["Assertion(operator=True)"]
    assert API_VERSIONS[operators.index("yes")] == since
    assert supports("v8", "administrator role")
    assert not supports("v7", "administrator role")


async def test_the_log_lines_are_real(caplog: pytest.LogCaptureFixture) -> None:
    """Of one server that answers and one that is off."""
    with caplog.at_level(logging.DEBUG, "aiovbo"):
        async with BackupServer(version="v8") as backup:
            off = Server("127.0.0.1:9", Password("user", "password"), name="vbo2")
            async with Fleet([server_of(backup, name="vbo1"), off], retries=0) as fleet:
                await fleet.restore_sessions()
    lines = [f"{record.levelname} {record.name}: {record.getMessage()}" for record in caplog.records]
    logged = [re.sub(r"\d\.\d\d s", "0.00 s", line) for line in lines]
    shown = re.sub(r"\d\.\d\d s", "0.00 s", blocks("text", PAGES["logging"])[0]).splitlines()
    # Two servers at once: each has its own order.
    for server in ("vbo1", "vbo2"):
        found = [line for line in logged if f": {server}" in line]
        assert [line for line in found if line in shown] == [line for line in shown if f": {server}" in line]


def test_every_logger_is_listed() -> None:
    """Those that the package's modules use."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "aiovbo").rglob("*.py"))
    used = set(re.findall(r'getLogger\("(aiovbo\.\w+)"\)', source))
    assert {name for name, _ in table("logger")} == used
