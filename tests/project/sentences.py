"""Prints the average number of words in a sentence, for each page of README and docs.

What counts is prose: paragraphs and items of lists, not code, tables, headings or directives.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 18
"""The average must be below this."""


def files() -> list[Path]:
    """README and project files, then the pages of the docs."""
    docs = ROOT / "docs"
    top = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "RELEASING", "SECURITY")]
    return [*top, *sorted(docs.glob("*.md")), *sorted(docs.glob("reference/*.md"))]


def sentences(text: str) -> list[str]:
    """The sentences of the prose of a page."""
    # What is in backticks is one word, however long it is, and its dots end no sentence.
    text = re.sub(r"^( *)(`{3,}).*?^\1\2$", "\n", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"``[^`]+``|`[^`]+`", "Code", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^(#|\||<).*$", "", text, flags=re.MULTILINE)
    # An item of a list begins a sentence of its own.
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    text = text.replace("**", "").replace(" \N{EN DASH} ", " ")
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        found += [one for one in re.split(r"(?<=[.!?:])\s+(?=[A-Z0-9\"(])", words) if re.search(r"\w", one)]
    return found


def average(text: str) -> float:
    """Words in a sentence, on average; 0 where there is no sentence."""
    found = sentences(text)
    return sum(len(one.split()) for one in found) / len(found) if found else 0.0


def main() -> int:
    """Print a line for each file; the exit status is 1 where one is not below the limit."""
    everything, is_over = "", False
    for file in files():
        text = file.read_text(encoding="utf-8")
        figure = average(text)
        is_over |= figure >= LIMIT
        everything += f"{text}\n\n"
        sys.stdout.write(f"{figure:5.1f}  {len(sentences(text)):4}  {file.relative_to(ROOT)}\n")
    sys.stdout.write(f"{average(everything):5.1f}  {len(sentences(everything)):4}  all\n")
    return 1 if is_over else 0


if __name__ == "__main__":
    sys.exit(main())
