"""What the README says is so: its code runs as printed, its tables and its tree are true."""

import ast
import asyncio
import datetime as dt
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from harness.readme import PAGES, ROOT, TEXT, blocks, table

import aiovbo
from aiovbo import TLS, Client, Fleet, Password, Server, errors
from aiovbo._cli._app import COMMANDS
from aiovbo._settings.limits import Options
from aiovbo.testing import BackupFleet, BackupServer, World

FIRST, *OTHERS = blocks("python")
SNIPPETS = [block for block in OTHERS if "def test_" not in block]
TESTS = [block for block in OTHERS if "def test_" in block]


@pytest.fixture
def backups() -> Iterator[BackupFleet]:
    """Three servers of different versions, and what the README's output says of them."""
    versions = ("v8", "v6", "v4")
    servers = [BackupServer(World(sessions=0), version=version) for version in versions]
    for line in blocks("console")[0].splitlines()[2:]:
        name, organization, kind, outcome = line.split()
        world = servers[int(name.removeprefix("vbo")[0]) - 1].world
        if outcome == "None":
            world.add(organization=organization, type=kind, end_time=None)
        else:
            world.add(organization=organization, type=kind, state="Stopped", result=outcome)
    with BackupFleet(servers).run_in_thread() as running:
        yield running


def test_the_first_screen_runs_as_printed_and_prints_what_it_shows(
    backups: BackupFleet, tmp_path: Path
) -> None:
    """Only the servers' addresses differ; whom to trust, OpenSSL reads from SSL_CERT_FILE."""
    program = tmp_path / "restores.py"
    program.write_text(FIRST, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", program, *backups.urls],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env={**os.environ, "VBO_PASSWORD": backups.password, "SSL_CERT_FILE": backups.ca_file},
    )
    printed = run.stdout
    for number, backup in enumerate(backups, 1):
        printed = printed.replace(f"127.0.0.1:{backup.port}", f"vbo{number}.tech.local")
    _, command, *output = blocks("console")[0].splitlines()
    assert (run.returncode, run.stderr) == (0, "")
    # In the order in which servers answer.
    assert sorted(printed.splitlines()) == sorted(output)
    assert command == "$ python restores.py vbo1.tech.local vbo2.tech.local vbo3.tech.local"


def test_the_first_screen_has_ten_lines_of_code_and_what_one_needs_to_decide() -> None:
    """Two sentences, a picture, code, its output and three bullets, in this order; 200 lines in all."""
    assert len(TEXT.splitlines()) <= 200
    screen = TEXT.split("\n## ")[0]
    order = ["# aiovbo", "An async Python client", "[![", "```python", "```console", "- **A failing"]
    places = [f"\n{screen}".index(f"\n{part}") for part in order]
    assert places == sorted(places)
    assert len([line for line in FIRST.splitlines() if line]) <= 10
    assert screen.count("\n- **") == 3
    assert len(screen.splitlines()) < 55


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0][:40])
async def test_every_piece_of_code_runs_as_printed(
    snippet: str, backups: BackupFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names that the README has introduced by then."""
    monkeypatch.chdir(tmp_path)
    await run_in_context(snippet, backups)


async def run_in_context(snippet: str, backups: BackupFleet) -> None:
    """Run a piece of code with what the README has introduced by then."""
    names: dict[str, Any] = {name: getattr(aiovbo, name) for name in aiovbo.__all__}
    names |= {name: getattr(dt, name) for name in ("datetime", "timedelta", "UTC")}
    names["Sequence"] = Sequence
    tls, login = TLS(ca_file=backups.ca_file), Password(backups.username, backups.password)
    servers = [
        Server(backup.url, login, name=f"vbo{number}", tls=tls) for number, backup in enumerate(backups, 1)
    ]
    code = compile(snippet, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(servers[0]))
        fleet = await stack.enter_async_context(Fleet(servers))
        session = (await client.restore_sessions())[0]
        names |= {"login": login, "server": servers[0], "servers": servers}
        names |= {"client": client, "fleet": fleet, "session": session}
        pending = eval(code, names)  # noqa: S307  # what the README says is what is tested
        if inspect.isawaitable(pending):
            await pending
        # A consumer that left a stream has its clean-up run in the next turns.
        await asyncio.sleep(0)


def test_the_test_of_an_application_passes_as_printed(tmp_path: Path) -> None:
    """In a pytest of its own, which finds the fixtures by itself."""
    assert len(TESTS) == 1
    (tmp_path / "test_restores.py").write_text(TESTS[0], encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    # Without plugins that warn where they are not configured, or take long to import.
    without = [
        part for name in ("asyncio", "cacheprovider", "hypothesispytest") for part in ("-p", f"no:{name}")
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *without, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout


def test_the_tree_of_errors_is_the_tree_of_classes() -> None:
    """The page, the docstring of `aiovbo.errors` and the classes themselves agree."""
    tree = blocks("text", PAGES["errors"])[0]
    assert tree in inspect.cleandoc(errors.__doc__ or "").replace("\n    ", "\n") + "\n"
    above: list[type] = []
    for branch, name in re.findall(r"^([│├└─ ]*)(\w+)", tree, re.MULTILINE):
        cls = getattr(aiovbo, name)
        del above[len(branch) // 4 :]
        assert set(above[-1:]) <= set(cls.__bases__)
        above.append(cls)
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    drawn = re.findall(r"^[│├└─ ]*(\w+)", tree, re.MULTILINE)
    assert set(drawn) == {name for name in defined if name.endswith("Error")}


def test_the_table_of_limits_has_every_argument_with_its_default() -> None:
    """As in the signature of `Fleet`, in its order; `Client` and `Options` have the same."""
    documented = {name: ast.literal_eval(default) for name, default, _ in table("argument")}
    assert documented == defaults(Fleet)
    assert list(documented) == list(defaults(Fleet))
    assert defaults(Client) == {
        k: v for k, v in documented.items() if k not in {"tls", "proxy", "concurrency", "lockout_guard"}
    }
    options = {field.name: field.default for field in attrs.fields(Options) if field.name != "clock"}
    assert options == {name: documented[name] for name in options}


def defaults(cls: type) -> dict[str, object]:
    parameters = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def test_the_test_command_is_the_one_that_continuous_integration_runs() -> None:
    """The same line in both places, each from a fresh clone with nothing but Python."""
    demo, tests = blocks("shell")[0].splitlines()
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command in (demo, tests):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e ")


def test_every_file_and_name_that_the_readme_mentions_is_there() -> None:
    """The targets of its links; attributes of an error."""
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(targets) > 15
    for path in targets:
        assert (ROOT / path).exists(), path
    error = aiovbo.ServerError("")
    sentence = re.search(r"A `ServerError` has (.*?);", PAGES["errors"], re.DOTALL)
    assert sentence is not None
    for name in re.findall(r"`\.(\w+)`", sentence[1]):
        assert hasattr(error, name)


def test_the_quoted_figures_are_those_of_the_last_benchmark() -> None:
    """The table in the docs is made from the file that the benchmark wrote."""
    made = subprocess.run(
        [sys.executable, ROOT / "tests" / "bench" / "quote.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout in PAGES["performance"]


def test_every_example_and_every_command_is_listed() -> None:
    """In the two tables; and nothing that does not exist."""
    listed = {name for cell, *_ in table("example") for name in re.findall(r"\w+", cell)}
    assert listed == {path.stem for path in (ROOT / "examples").glob("[!_]*.py")} | {"monitoring"}
    commands = [cell.split()[1] for cell, *_ in table("command")]
    assert sorted(commands) == sorted([*COMMANDS, "completion"])
