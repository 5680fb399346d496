"""Writes llms.txt at each build: the pages by section, each with its first sentence.

Made of the same sources as the pages: the tables of contents of index.md and the texts that they name.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

_TOCTREE = re.compile(r"```\{toctree\}\n(?::caption: ([^\n]*)\n)?:hidden:\n\n(.*?)```", re.DOTALL)


def first_sentence(text: str) -> str:
    """The first sentence of a page, as plain text on one line."""
    paragraph = re.search(r"^#[^\n]*\n\n((?:[^\n`|]|`(?!``))[^\n]*(?:\n[^\n]+)*)", text)
    words = " ".join((paragraph[1] if paragraph else "").split())
    plain = re.sub(r"\{\w+\}|\[([^\]]*)\]\([^)]*\)", r"\1", words).replace("`", "")
    return re.split(r"(?<=\.)\s", plain)[0].rstrip(":")


def contents(folder: Path) -> str:
    """The text of llms.txt."""
    index = (folder / "index.md").read_text(encoding="utf-8")
    readme = (folder.parent / "README.md").read_text(encoding="utf-8")
    summary = " ".join(readme.split("\n\n")[1].split())
    lines = ["# aiovbo", "", f"> {summary}", ""]
    for caption, body in _TOCTREE.findall(index):
        lines += [f"## {caption}", ""]
        for page in body.split():
            text = (folder / f"{page}.md").read_text(encoding="utf-8")
            lines.append(entry(page, text))
            for _, below in _TOCTREE.findall(text):
                lines += [
                    entry(one, (folder / f"{one}.md").read_text(encoding="utf-8")) for one in below.split()
                ]
        lines.append("")
    return "\n".join(lines)


def entry(page: str, text: str) -> str:
    """One page: its title, its address relative to llms.txt, its first sentence."""
    title = re.sub(r"\A\s*# ", "", text).partition("\n")[0]
    return f"- [{title}]({page}.html): {first_sentence(text) or title}"


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the file beside the start page."""
    if error is None and app.builder.name == "html":
        Path(app.outdir, "llms.txt").write_text(contents(Path(app.srcdir)), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
