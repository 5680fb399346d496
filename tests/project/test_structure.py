"""The package's structure: layers, names of modules, what the lower packages must not import."""

import ast
import re
from pathlib import Path

import pytest
from harness.readme import ROOT

import aiovbo

PACKAGE = Path(aiovbo.__file__).parent
EVERY_FILE = sorted(PACKAGE.rglob("*.py"))
WITHOUT_IO = ["_protocol", "_decoding", "_resources", "_settings", "models.py", "errors.py"]


def named(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", [path for path in EVERY_FILE if "testing" in path.parts], ids=named)
def test_the_backup_server_imports_nothing_of_the_sdk(path: Path) -> None:
    """`aiovbo.testing` imports only itself, so that it can find the SDK's mistakes."""
    ours = {name for name in imported(path) if name.split(".")[0] == "aiovbo"}
    assert all(name.startswith("aiovbo.testing") for name in ours)


def test_the_description_of_the_architecture_states_how_many_packages_import_each_other() -> None:
    """Pairs of packages of the library itself, of which one imports the other."""
    pairs = {
        (path.relative_to(PACKAGE).parts[0], name.split(".")[1])
        for path in PACKAGE.glob("_*/*.py")
        for name in imported(path)
        if name.startswith("aiovbo._")
    }
    packages = {path.parent.name for path in PACKAGE.glob("_*/__init__.py")} - {"_cli"}
    edges = [(one, other) for one, other in pairs if one != other and {one, other} <= packages]
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"there are {len(edges)} imports of one package by another" in text


def test_a_module_is_named_after_what_it_contains() -> None:
    """No module has a name that fits anything."""
    bare = {path.stem.strip("_") for path in EVERY_FILE}
    assert not bare & {"utils", "util", "helpers", "helper", "base", "const", "common", "misc"}


@pytest.mark.parametrize("path", EVERY_FILE, ids=named)
def test_annotations_need_no_imports_of_their_own(path: Path) -> None:
    """Without TYPE_CHECKING, what is imported for types obeys the layers too."""
    assert "TYPE_CHECKING" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", [path for path in EVERY_FILE if path.relative_to(PACKAGE).parts[0] in WITHOUT_IO], ids=named
)
def test_the_lower_layers_do_no_io(path: Path) -> None:
    """No HTTP library; asyncio only in the clock, for its sleep and timers."""
    names = {name.split(".")[0] for name in imported(path)}
    assert not names & {"aiohttp", "socket", "ssl"}
    assert path.stem == "clock" or "asyncio" not in names


@pytest.mark.parametrize(
    "package", sorted(path.parent for path in PACKAGE.glob("_*/__init__.py")), ids=lambda path: path.name
)
def test_a_package_states_its_responsibility_and_its_limits(package: Path) -> None:
    """In the docstring of its `__init__`, which contains nothing else."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1
    assert "must not" in text.lower()


def test_every_name_in_the_description_of_the_architecture_exists() -> None:
    """Functions, classes and modules in code style are defined in the package."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    text = text.replace(".py`", "`")
    named = set(re.findall(r"`(?:\w+[./])*(\w+)(?:\([^`]*\))?`", text)) - {
        "nox",
        "aiovbo",
        "testing",
        "yield",
    }
    words = {word for path in EVERY_FILE for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    defined = words | {path.stem for path in EVERY_FILE} | {path.parent.name for path in EVERY_FILE}
    assert named - defined == set()


def test_a_long_file_has_its_reason_in_the_description_of_the_architecture() -> None:
    """Files over 400 lines are listed, and no others."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE))
    long = {
        path.relative_to(PACKAGE).as_posix()
        for path in EVERY_FILE
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert listed == long


def test_no_file_of_the_tests_has_more_than_600_lines() -> None:
    """A longer one has more than one subject; programs of long runs are beside the folders."""
    paths = sorted((ROOT / "tests").glob("*/**/*.py"))
    assert not [path.name for path in paths if len(path.read_text(encoding="utf-8").splitlines()) > 600]


def test_a_module_refers_to_modules_that_exist() -> None:
    """In its docstring, a module in code style begins with an underscore."""
    known = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in EVERY_FILE}
    known |= {path.parent.relative_to(PACKAGE).as_posix() for path in EVERY_FILE}
    missing = {
        (named(path), name)
        for path in EVERY_FILE
        for name in re.findall(
            r"`(_[a-z_/]+)`", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        )
        if name not in known and (path.parent.relative_to(PACKAGE) / name).as_posix() not in known
    }
    assert not missing


@pytest.mark.parametrize(
    "path",
    [path for path in EVERY_FILE if "testing" not in path.parts and path.stem != "api_versions"],
    ids=named,
)
def test_only_the_table_knows_what_an_api_version_can_do(path: Path) -> None:
    """No other module compares a version of the API with one that it names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare | ast.MatchValue):
            constants = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            versions = [text for text in constants if isinstance(text, str) and re.fullmatch(r"v\d+", text)]
            assert not versions, f"line {node.lineno}"
