"""The layer table of the README is the code's own structure."""

import ast
from pathlib import Path

import pytest
from readme import table

import aiovbo

PACKAGE = Path(aiovbo.__file__).parent
MODULES = {path.stem: path for path in PACKAGE.glob("*.py")}
COMMANDS = {path.stem: path for path in (PACKAGE / "_cli").glob("*.py") if path.stem != "__init__"}
TESTING = {path.stem: path for path in (PACKAGE / "testing").glob("*.py")}
LAYERS = [module for module, _ in table("module")]
COMMAND_LAYERS = [module for module, _ in table("command module")]
EVERY_FILE = [*MODULES.values(), *COMMANDS.values(), *TESTING.values()]


def imported(path: Path) -> set[str]:
    """What a file imports from this package, wherever in it: `aiovbo._wire` as `_wire`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or ""]
            # "from aiovbo import x" may mean a module.
            names += [f"aiovbo.{a.name}" for a in node.names if node.module == "aiovbo"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "aiovbo":
                found.add(module or "__init__")
    return {name for name in found if name.split(".")[0] in {*MODULES, "_cli", "testing"}}


def test_the_table_has_every_module_once() -> None:
    """A module that nobody thought of has no place yet."""
    assert sorted(LAYERS) == sorted([*MODULES, "_cli"])
    assert sorted(COMMAND_LAYERS) == sorted(COMMANDS)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_from_below(module: str) -> None:
    """Nothing beside or above it in the table; of the command line only its table of contents."""
    below = set(LAYERS[LAYERS.index(module) + 1 :])
    assert {"_cli" if name == "_cli._app" else name for name in imported(MODULES[module])} <= below


@pytest.mark.parametrize("module", sorted(COMMANDS))
def test_a_command_imports_only_from_below(module: str) -> None:
    """What stands below it in its own table or below the command line; servers only for the demonstration."""
    below = {f"_cli.{name}" for name in COMMAND_LAYERS[COMMAND_LAYERS.index(module) + 1 :]}
    below |= set(LAYERS[LAYERS.index("_cli") + 1 :])
    allowed = below | ({"testing"} if module == "_demo" else set[str]())
    assert imported(COMMANDS[module]) - {"_cli"} <= allowed


@pytest.mark.parametrize("module", sorted(TESTING))
def test_the_backup_server_knows_nothing_of_the_sdk(module: str) -> None:
    """`aiovbo.testing` imports only itself, so that it can find the SDK's mistakes."""
    assert all(name.split(".")[0] == "testing" for name in imported(TESTING[module]))


def test_no_module_is_called_after_nothing() -> None:
    """A module is named after what it knows."""
    bare = {path.stem.strip("_") for path in EVERY_FILE}
    assert not bare & {"utils", "util", "helpers", "helper", "base", "const", "common", "misc"}


@pytest.mark.parametrize("path", EVERY_FILE, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_annotations_need_no_imports_of_their_own(path: Path) -> None:
    """Without TYPE_CHECKING, what is imported for types obeys the layers too."""
    assert "TYPE_CHECKING" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "module", ["_wire", "_decode", "_sessions", "_structure", "models", "errors", "_config"]
)
def test_the_lower_layers_do_no_io(module: str) -> None:
    """No HTTP library; asyncio only where a setting names its sleep."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name.split(".")[0] for name in names} & {"aiohttp", "socket", "ssl"}
    assert module == "_config" or "asyncio" not in names
