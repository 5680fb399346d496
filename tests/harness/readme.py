"""README and docs taken apart: their code blocks, their tables, the tree of errors.

Knows Markdown as far as they use it. Must not know what their parts mean.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
_DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(_DOCS).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted([*_DOCS.glob("*.md"), *_DOCS.glob("reference/*.md")])
}
"""The pages of the docs, by name."""


def blocks(language: str, text: str = TEXT) -> list[str]:
    """Code blocks of this language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def table(first_title: str) -> list[list[str]]:
    """The rows of the one table in README or docs whose first column has this title, without backticks."""
    (text,) = [text for text in (TEXT, *PAGES.values()) if f"\n| {first_title} |" in text]
    lines = text[text.index(f"| {first_title} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
