"""The check of words."""

from __future__ import annotations

import runpy
from pathlib import Path

_WORDS = runpy.run_path(str(Path(__file__).with_name("words.py")))


def test_a_planted_word_is_found_with_its_file_and_line(tmp_path: Path) -> None:
    """The check reports where the word is, and nothing of the line before it."""
    (tmp_path / "planted.py").write_text("# plain\n# Whoever reads this\n", encoding="utf-8")
    assert _WORDS["find"](tmp_path, ("planted.py",)) == ["planted.py:2:Whoever"]


def test_words_in_the_name_of_a_function_are_found(tmp_path: Path) -> None:
    """Joined by underscores, as in the name of a test; part of another word is no match."""
    source = "async def test_a_slip_of_the_pen_is_told() -> None: ...\ndef test_foretold_amends(): ...\n"
    (tmp_path / "planted.py").write_text(source, encoding="utf-8")
    found = ["planted.py:1:slip of the pen", "planted.py:1:is told"]
    assert _WORDS["find"](tmp_path, ("planted.py",)) == found


def test_the_checked_paths_have_no_such_word() -> None:
    """The project's own paths pass the check."""
    assert _WORDS["find"](_WORDS["ROOT"]) == []
