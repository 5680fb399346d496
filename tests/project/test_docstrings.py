"""Code in docstrings runs."""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from datetime import UTC, datetime, timedelta

import pytest

import aiovbo
import aiovbo.testing


def examples() -> list[object]:
    """The indented blocks of code in the docstrings of all modules, and where they stand."""
    found: list[object] = []
    for module in pkgutil.walk_packages(aiovbo.__path__, "aiovbo."):
        if module.name.endswith(("__main__", "plugin")):
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            if getattr(thing, "__module__", None) == module.name and inspect.isclass(thing):
                found += blocks(f"{module.name}.{name}", inspect.getdoc(thing))
    for module in (aiovbo, aiovbo.testing):
        found += blocks(module.__name__, inspect.getdoc(module))
    return found


def blocks(place: str, doc: str | None) -> list[object]:
    indented = re.findall(r"^\n((?: {4}.*\n)+)$", f"{doc}\n\n", re.MULTILINE)
    code = [textwrap.dedent(block) for block in indented]
    return [pytest.param(text, id=place) for text in code if "await" in text or "async" in text]


def test_there_are_examples() -> None:
    """The search finds at least the tour of `aiovbo.testing`."""
    assert examples()


@pytest.mark.parametrize("code", examples())
async def test_an_example_in_a_docstring_runs_as_printed(code: str) -> None:
    """With the public names of both packages."""
    names = {name: getattr(aiovbo, name) for name in aiovbo.__all__}
    names |= {name: getattr(aiovbo.testing, name) for name in aiovbo.testing.__all__}
    names |= {"timedelta": timedelta, "datetime": datetime, "UTC": UTC}
    compiled = compile(code, "docstring", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(compiled, names)  # noqa: S307  # what the docstring says is what is tested
