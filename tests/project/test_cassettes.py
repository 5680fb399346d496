"""The documentation's recipe for cassettes."""

from pathlib import Path
from typing import Any

import pytest
from harness.readme import ROOT, blocks

from aiovbo.testing import Starter


@pytest.mark.filterwarnings("ignore::DeprecationWarning:vcr")
def test_a_cassette_holds_no_password_and_no_token(vbo_start: Starter, tmp_path: Path) -> None:
    """Recorded and played back as the page shows it."""
    pytest.importorskip("vcr", reason="needs vcrpy, which the extra dev has")
    (block,) = blocks("python", (ROOT / "docs" / "cassettes.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(compile(block, "cassettes.md", "exec"), names)  # noqa: S102  # what the page shows is what is tested
    names["test_a_recorded_server_plays_back_without_secrets"](vbo_start, tmp_path)
