"""Finds words that the project does not use: prints file:line:word, and exits with 1 where there are any."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PATHS = (
    *(
        "aiovbo",
        "examples",
        "tests",
        "docs",
        "README.md",
        "CONTRIBUTING.md",
        "RELEASING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ),
    *("noxfile.py", "pyproject.toml"),
)
"""What is checked: files, and directories with all their Python files and pages."""

UNCHECKED = {"tests/project/words.py", "tests/project/test_plain_words.py"}
"""Files that contain the words because they test for them."""

ALLOWED = {("aiovbo/testing/_neighbours.py", "nobody"): "a domain name in test data, not prose"}
"""File and word that may stay, with the reason."""

_WORDS = (
    *("whoever", "whomever", "nobody", "somebody", "(is|are|was|were) told", "tells?", "told", "troubles?"),
    *("set aside", "mend(s|ed|ing)?", "makes? no sense", "begins? anew", "in vain", "for ever"),
    *(
        "slip of the pen",
        "at last",
        "at hand",
        "hears? of",
        "lets? go of",
        "owes?",
        "logons?",
        "without a word",
    ),
)
_PATTERN = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_NAME = re.compile(r"\b(?:def|class) +(\w+)")


def _prose(line: str) -> list[str]:
    """The line itself, and the words of the function or class that it defines."""
    return [line, *(name.replace("_", " ").strip() for name in _NAME.findall(line) if "_" in name)]


def find(root: Path, paths: tuple[str, ...] = PATHS) -> list[str]:
    """Every match below `root`, as file:line:word."""
    found: list[str] = []
    for path in paths:
        top = root / path
        files = sorted([*top.rglob("*.py"), *top.rglob("*.md")]) if top.is_dir() else [top]
        for file in files:
            name = file.relative_to(root).as_posix()
            if name in UNCHECKED:
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                words = (match[0] for text in _prose(line) for match in _PATTERN.finditer(text))
                found += [f"{name}:{number}:{word}" for word in words if (name, word.lower()) not in ALLOWED]
    return found


if __name__ == "__main__":
    matches = find(ROOT)
    sys.stdout.writelines(f"{match}\n" for match in matches)
    sys.exit(1 if matches else 0)
