"""What is public is listed, documented and cheap to import; every test says what it claims."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import attrs
import pytest
from harness.readme import ROOT

import aiovbo
import aiovbo.testing

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
PUBLIC = (aiovbo, aiovbo.testing)
EVERY_MODULE = sorted(
    module.name
    for module in pkgutil.walk_packages(aiovbo.__path__, "aiovbo.")
    # The pytest plugin is imported by pytest.
    if module.name != "aiovbo.testing.plugin"
)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_is_sorted_and_lists_what_is_public(module: ModuleType) -> None:
    """Everything that the door, as type checkers see it, imports and does not hide, and nothing else."""
    door = Path(str(module.__file__))
    stub = door.with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else door).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    public = {alias.name for node in imports for alias in node.names if node.module != "aiovbo"}
    assert set(module.__all__) - {"__version__"} == public
    assert all(getattr(module, name) is not None for name in module.__all__)
    # Constants, classes and the rest in turn, as ruff sorts them.
    assert sorted(module.__all__, key=lambda name: (not name.isupper(), name)) == module.__all__


def documented(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Every public class, function and method that `module` lets out."""
    for name in module.__all__:
        thing = getattr(module, name)
        if not inspect.isclass(thing):
            if inspect.isroutine(thing):
                yield name, thing
            continue
        yield name, thing
        for attribute, value in vars(thing).items():
            if attribute.startswith("_") or not isinstance(
                value, property | classmethod | staticmethod | type(lambda: None)
            ):
                continue
            yield f"{name}.{attribute}", value


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    """Classes, functions, methods and properties; a class has one of its own, not its parent's."""
    silent = [name for name, thing in documented(module) if not getattr(thing, "__doc__", None)]
    assert not silent


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_field_has_a_docstring(module: ModuleType) -> None:
    """One text under each field of an attrs class, for readers and editors."""
    silent: list[str] = []
    for name in module.__all__:
        thing = getattr(module, name)
        if not (inspect.isclass(thing) and attrs.has(thing)):
            continue
        (tree,) = ast.parse(inspect.cleandoc(inspect.getsource(thing))).body
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, [*tree.body[1:], None], strict=True):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and not is_text:
                silent.append(f"{name}.{ast.unparse(field.target)}")
    assert not [name for name in silent if "._" not in name]


@pytest.mark.parametrize("name", EVERY_MODULE)
def test_every_module_has_a_docstring(name: str) -> None:
    """The first line of its docstring says what it contains."""
    doc = ast.get_docstring(ast.parse(source(name)))
    assert doc
    assert doc.partition("\n")[0].rstrip(":").strip()


def source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_every_test_says_in_a_sentence_of_its_own_what_it_claims(path: Path) -> None:
    """No test without a docstring, and none that repeats another's in its file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tests = [node for node in ast.walk(tree) if isinstance(node, functions) and node.name.startswith("test_")]
    docs = [ast.get_docstring(node) or f"{node.name} has none" for node in tests]
    assert not [doc for doc in docs if doc.endswith("has none")]
    assert not [doc for doc in docs if docs.count(doc) > 1]
    assert not [doc for doc in docs if not doc.splitlines()[0].rstrip().endswith((".", "?", "…"))]


def test_the_door_and_its_stub_agree_on_where_every_name_lives() -> None:
    """Type checkers read the stub, and Python the table."""
    stub = Path(aiovbo.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imports = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names if node.module != "aiovbo"}
    assert homes == {name: f"aiovbo.{module}" for name, module in aiovbo._HOMES.items()}
    (listed,) = (node for node in ast.parse(stub).body if isinstance(node, ast.Assign))
    assert ast.literal_eval(listed.value) == aiovbo.__all__
    assert set(dir(aiovbo)) >= set(aiovbo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Flet'"):
        _ = aiovbo.Flet


def test_the_door_opens_no_further_than_needed() -> None:
    """It imports nothing of its own, and a model needs no HTTP library."""
    assert len(loaded("import aiovbo", "aiohttp", "attrs", "aiovbo.errors")) == 0
    assert loaded("from aiovbo import RestoreSession", "aiohttp", "attrs", "aiovbo._client") == {"attrs"}


def loaded(code: str, *modules: str) -> set[str]:
    """Which of these modules are imported once `code` has run."""
    code += "; import sys; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_the_sdk_imports_nothing_that_only_tests_need() -> None:
    """Neither the backup server and what it needs, nor the command line."""
    unwanted = ["aiovbo.testing", "aiohttp.web", "trustme", "cryptography", "pytest", "argparse", "rich"]
    # aiohttp brings its server along, whether one wants it or not.
    assert loaded("import aiovbo; aiovbo.Fleet", *unwanted) <= {"aiohttp.web"}


def test_the_version_and_the_changelog_agree() -> None:
    """A version under development follows the newest release; a released version has its own section."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+)\](?: - (\d{4}-\d\d-\d\d))?$", changelog, flags=re.MULTILINE)
    (newest, date), *older = sections
    version, development = re.fullmatch(r"([0-9.]+)(\.dev[0-9]+)?", aiovbo.__version__).groups()  # type: ignore[union-attr]  # else the test fails
    assert (newest, bool(date)) == (("Unreleased", False) if development else (version, True))
    assert all(released for _, released in older)
    numbers = [version, *(number for number, _ in older)]
    ordered = [tuple(map(int, number.split("."))) for number in numbers]
    assert ordered == sorted(set(ordered), reverse=True)
