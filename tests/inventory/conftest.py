"""A folder of its own for each test of inventories."""

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes an inventory that its owner alone may read; two secrets are in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBO_PASSWORD", "correct horse")
    monkeypatch.setenv("VBO_TOKEN", "0123456789")

    def write(text: str) -> Path:
        file = Path("fleet.toml")
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return file

    return write
