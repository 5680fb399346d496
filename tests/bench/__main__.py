"""The benchmark: `python tests/bench` measures aiovbo beside everybody else, and prints tables.

Nothing here fails because something is slow: the figures are for people, and only ratios within one run mean
anything. Contestants that are not installed are left out. Knows which sections there are, not how they
measure.
"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from time import monotonic

from decoding import decoding, kept_memory
from fanout import fanout
from instructions import instructions
from limits import machine, raise_file_limit
from others import dead_servers, imports, server_memory
from polling import polling
from rounds import Table
from stalls import broken_stalls, stalls
from streaming import streaming
from targets import verdicts

_DISTRIBUTIONS = (
    "aiovbo", "aiohttp", "yarl", "attrs", "cattrs", "msgspec", "uvloop", "orjson", "pydantic", "httpx2",
    "requests", "niquests", "pyreqwest", "veeam-365",
)  # fmt: skip

_SECTIONS: dict[str, Callable[..., Table | list[Table]]] = {
    "decode": decoding,
    "sessions": kept_memory,
    "stalls": stalls,
    "broken": broken_stalls,
    "streaming": streaming,
    "polling": polling,
    "fanout": fanout,
    "memory": server_memory,
    "dead": dead_servers,
    "imports": imports,
}


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in _DISTRIBUTIONS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="less of everything, within a minute")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables there, as Markdown")
    parser.add_argument("--only", choices=_SECTIONS, action="append", help="this section; may be repeated")
    parser.add_argument("--instructions", action="store_true", help="nothing but that, by callgrind")
    options = parser.parse_args()
    if options.instructions:
        counted = instructions()
        if counted is not None:
            print(f"Revision: {_revision()}", "", counted.text(), sep="\n")
        return
    raise_file_limit()
    began = monotonic()
    facts = (
        f"Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"Machine: {machine()}",
        f"Versions: {_versions()}",
        f"Revision: {_revision()}",
    )
    print(*facts, "", sep="\n")
    figures: dict[str, float] = {}
    tables: list[Table] = []
    for name in options.only or _SECTIONS:
        found = _SECTIONS[name](figures, quick=options.quick)
        new = found if isinstance(found, list) else [found]
        tables += new
        for table in new if name != "fanout" else new[-1:]:
            # Fan-out takes minutes, and prints its tables as they come.
            print(table.text(), flush=True)
    tables.append(verdicts(figures))
    print(tables[-1].text())
    print(f"{monotonic() - began:.0f} s", file=sys.stderr)
    if options.out is not None:
        head = ["# Benchmark", "", *(f"- {fact}" for fact in facts), ""]
        options.out.write_text("\n".join([*head, *(table.markdown() for table in tables)]), encoding="utf-8")


if __name__ == "__main__":
    main()
