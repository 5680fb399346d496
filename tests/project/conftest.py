"""The example that shows a fleet live, as a module."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from harness.readme import ROOT

EXAMPLES = str(ROOT / "examples")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("fleet_page")
    for name in ("fleet_page", "_servers"):
        sys.modules.pop(name, None)
