"""The README taken apart: its code blocks, its tables, its tree of errors.

Knows Markdown as far as the README uses it. Must not know what its parts mean.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Code blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def table(first_title: str) -> list[list[str]]:
    """The rows of the table whose first column has this title, without backticks."""
    start = TEXT.index(f"| {first_title} |")
    lines = TEXT[start:].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
