"""The documentation: its code runs as printed, its errors are real, its reference has every name once."""

import ast
import asyncio
import codeop
import inspect
import re
import shlex
import types
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from harness.provoked import PROVOKED, text_of
from harness.readme import PAGES, ROOT, TEXT, blocks
from test_readme import backups, run_in_context

import aiovbo
import aiovbo.testing
from aiovbo import errors
from aiovbo._cli._app import app

__all__ = ["backups"]

SHAPE = re.DOTALL | re.MULTILINE
REFERENCE = "\n".join(text for name, text in PAGES.items() if name.startswith("reference"))
ELSEWHERE = {"tutorial", "queries", "notebooks", "threads", "services"}
"""Pages whose blocks are run by tests of their own."""

SNIPPETS = [
    pytest.param(block, id=f"{page}-{number}")
    for page, text in PAGES.items()
    if page not in ELSEWHERE
    for number, block in enumerate(blocks("python", text), 1)
    if "def test_" not in block
]


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_every_piece_of_code_runs_with_the_names_that_the_readme_has(
    snippet: str, backups: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client, a fleet, a session, and everything public."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "authorities.pem").write_bytes(Path(backups.ca_file).read_bytes())
    (store,) = (block for block in blocks("python", PAGES["watching"]) if "(CheckpointStore)" in block)
    (tmp_path / "my_store.py").write_text(store, encoding="utf-8")
    await run_in_context(snippet, backups)


async def test_the_tutorial_can_be_typed_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    """One piece after the other, in one session, with nothing given; it prints what the page shows."""
    names: dict[str, Any] = {}
    pieces = re.findall(
        r"^```python\n(.*?)^```$(?:\n\n[^\n`]+)?(?:\n\n^```text\n(.*?)^```$)?", PAGES["tutorial"], SHAPE
    )
    assert [block for block, _ in pieces] == blocks("python", PAGES["tutorial"])
    assert sum(bool(output) for _, output in pieces) == 5
    for block, output in pieces:
        code = compile(block, "tutorial.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        pending = eval(code, names)  # noqa: S307  # what the tutorial says is what is tested
        if inspect.isawaitable(pending):
            await pending
        await asyncio.sleep(0)
        printed = capsys.readouterr().out
        if output:
            # Numbers and names differ from run to run, and so does how many events a session has.
            shown, found = (
                dict.fromkeys(
                    re.sub(r"\d+|(?<=00:00 ).*|\w+(?=\.onmicrosoft)", "…", line) for line in text.splitlines()
                )
                for text in (output, printed)
            )
            assert list(found) == list(shown)


def typed(block: str) -> list[types.CodeType]:
    """The statements of a block, as `python -m asyncio` reads them: an empty line ends each compound one."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    statements, pending = [], ""
    for line in [*block.splitlines(), ""]:
        pending = f"{pending}\n{line}" if pending else line
        if code := compiler(pending, "console", "single"):
            statements.append(code)
            pending = ""
    assert not pending
    return statements


PASTED = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("tutorial", "queries", "watching", "notebooks", "large-fleets")
    for number, block in enumerate(blocks("python", PAGES[page]), 1)
    if "__main__" not in block and "(CheckpointStore)" not in block
]


@pytest.mark.parametrize("block", PASTED)
def test_a_block_can_be_pasted_into_a_console(block: str) -> None:
    """No blank line ends one of its statements early, and a blank line ends each of several lines."""
    assert typed(block)


async def test_the_page_of_queries_can_be_typed_from_top_to_bottom(
    backups: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after the other; only the servers are others."""
    tls, login = aiovbo.TLS(ca_file=backups.ca_file), aiovbo.Password(backups.username, backups.password)
    servers = [
        aiovbo.Server(backup.url, login, name=f"vbo{number}", tls=tls)
        for number, backup in enumerate(backups, 1)
    ]
    names: dict[str, Any] = {}
    for block in blocks("python", PAGES["queries"]):
        for code in typed(block):
            pending = eval(code, names)  # noqa: S307  # what the page says is what is tested
            if inspect.isawaitable(pending):
                await pending
        names |= {"server": servers[0], "servers": servers}
    assert "4 sessions, 0 servers failed" in capsys.readouterr().out
    with pytest.raises(aiovbo.ClosedError):
        await names["fleet"].restore_sessions()


async def test_the_share_of_a_worker_is_as_large_as_shown(
    backups: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the three servers, whose names decide."""
    page = PAGES["large-fleets"]
    await run_in_context(blocks("python", page)[0], backups)
    assert [capsys.readouterr().out] == blocks("text", page)


@pytest.mark.parametrize("kind", PROVOKED, ids=lambda kind: kind.__name__)
async def test_the_message_of_an_error_is_a_real_one(kind: type[Exception]) -> None:
    """Provoked now, it says what the page says that it says."""
    section = PAGES["errors"].partition(f"## {kind.__name__}\n")[2].partition("\n## ")[0]
    assert f"```text\n{await text_of(kind)}\n```" in re.sub(r"\d+\.\d s\)", "0.0 s)", section)


def test_every_error_has_its_section_in_the_order_of_the_tree() -> None:
    """When it is delivered, what it means, what to do."""
    defined = [name for name, cls in vars(errors).items() if isinstance(cls, type) and name.endswith("Error")]
    assert sorted(re.findall(r"^## (\w+)$", PAGES["errors"], re.MULTILINE)) == sorted(
        set(defined) - {"VboError"}
    )


def test_the_reference_has_every_public_name_once() -> None:
    """Of the package and of its parts."""
    documented = Counter(re.findall(r"^\.\. auto\w+:: (\S+)$", REFERENCE, re.MULTILINE))
    assert set(documented.values()) == {1}
    public = {f"aiovbo.{name}" for name in aiovbo.__all__ if name != "__version__"}
    public |= {f"aiovbo.testing.{name}" for name in aiovbo.testing.__all__}
    public |= {
        "aiovbo.prometheus.FleetMetrics",
        "aiovbo.otel.Telemetry",
        "aiovbo.postgres.PostgresCheckpoint",
        "aiovbo.dask.DaskFleet",
        "aiovbo.dask.DaskQuery",
    }
    assert set(documented) == public


def test_every_page_is_in_the_table_of_contents() -> None:
    """One that is not would never be found."""
    listed = re.findall(r"^([\w/-]+)$", PAGES["index"] + REFERENCE, re.MULTILINE)
    assert sorted(listed) == sorted(set(PAGES) - {"index"})


def test_what_is_included_from_the_readme_is_there() -> None:
    """Each include names two places of it, in this order."""
    found = [
        match
        for text in PAGES.values()
        for match in re.findall(r':start-after: "(.*)"\n:end-before: "(.*)"', text)
    ]
    assert found
    for start, end in found:
        assert 0 <= TEXT.index(start) < TEXT.index(end)


COMMANDS = sorted(
    {
        command.strip()
        for text in (TEXT, *PAGES.values())
        for command in re.findall(
            r"(?:^|`|\$\(|/opt/aiovbo/bin/)(aiovbo [A-Za-z][^`>|)\n]*)", text, re.MULTILINE
        )
        # Those of the unit and of cron are run by tests of their own.
        if "$(" not in command and not command.endswith("\\")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_is_one(command: str) -> None:
    """With its options, as the command line reads them; nothing is carried out."""
    placeholders = {"ID": str(UUID(int=1)), "SHELL": "bash", "URL": "vbo1.tech.local", "COMMAND": "check"}
    words = [placeholders.get(word, word) for word in shlex.split(command)[1:]]
    app.parse_args([word for word in words if word != "--help"], exit_on_error=False, print_error=False)


def test_commands_are_found_in_the_text() -> None:
    """In tables, in blocks, and in the midst of a sentence."""
    expected = {"aiovbo pin URL", "aiovbo schema", "aiovbo pin vbo1.tech.local", "aiovbo completion bash"}
    assert expected <= set(COMMANDS)


@pytest.mark.parametrize("block", [block for text in PAGES.values() for block in blocks("toml", text)])
def test_every_inventory_on_the_pages_is_read(block: str, tmp_path: Path) -> None:
    """As a file of its own."""
    file = tmp_path / "fleet.toml"
    file.write_text(block, encoding="utf-8")
    assert len(aiovbo.Fleet.from_toml(file)) > 0


def test_how_a_test_of_an_application_starts_servers_passes_as_printed(tmp_path: Path) -> None:
    """In a pytest of its own."""
    import subprocess  # here only
    import sys

    found = [one for one in blocks("python", PAGES["testing"]) if "def test_" in one]
    for number, block in enumerate(found, 1):
        (tmp_path / f"test_block_{number}.py").write_text(block, encoding="utf-8")
    # Without plugins that warn where they are not configured, or take long to import.
    without = [
        part for name in ("asyncio", "cacheprovider", "hypothesispytest") for part in ("-p", f"no:{name}")
    ]
    command = [sys.executable, "-m", "pytest", "-q", *without, tmp_path]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=150)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_file_that_contributors_are_sent_to_exists() -> None:
    """The paths and the links of CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:aiovbo|docs|tests)/[\w./]+)`", text)) | set(
        re.findall(r"\]\((.+?)\)", text)
    )
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
