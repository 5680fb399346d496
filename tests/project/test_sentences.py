"""Sentences of README and docs are short."""

from pathlib import Path

import pytest
from harness.readme import ROOT
from sentences import LIMIT, average, files, sentences


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_average_sentence_of_a_page_is_short(path: Path) -> None:
    """Fewer than 18 words, in prose."""
    assert average(path.read_text(encoding="utf-8")) < LIMIT


def test_code_tables_and_headings_are_no_sentences() -> None:
    """What remains is paragraphs and items of lists, with code as one word."""
    text = "# A heading\n\nOne `two three` four. Five\nsix [seven](x.md).\n\n| a | b |\n|---|---|\n\n"
    text += "- Eight\n- nine\n\n```text\nno\n```\n"
    assert sentences(text) == ["One Code four.", "Five six seven.", "Eight", "nine"]
    assert average(text) == 2.0
