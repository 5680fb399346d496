"""The few figures of `result.md` that the docs quote, as the table that stands there.

Run as a program, it prints that table. Knows which figures matter most; measures nothing.
"""

import re
from pathlib import Path

RESULT = Path(__file__).with_name("result.md")

_TITLE = "| {machine}, {date} | aiovbo | by hand, to dicts | httpx, pydantic | veeam-365 |"
_DECODERS = ("aiovbo", "orjson.loads (dicts)", "pydantic validate_json", "veeam-365 from_dict")
_CLIENTS = ("aiovbo", "aiohttp + orjson", "httpx2, a client each", "veeam-365")
_STALLED = ("aiovbo, asked over TLS", *_DECODERS[1:])
_QUOTED = (
    ("CPU per server, 200 servers, warm, µs", "Fan-out, warm, TLS, 200 servers", 1, _CLIENTS),
    ("CPU per server, 200 servers, first time, µs", "Fan-out, cold, TLS, 200 servers", 1, _CLIENTS),
    ("a session from bytes, of 1,000, µs", "Decode and structure, v4", 3, _DECODERS),
    ("10,000 sessions hold the event loop for, ms", "Longest stall of the event loop", 1, _STALLED),
    ("a session in memory, bytes", "Memory per session kept", 1, _DECODERS),
)


def quote(result: str) -> str:
    """The table that the docs have to quote."""
    date = re.search(r"^- Date: (\S+)", result, re.MULTILINE)
    machine = re.search(r"^- Machine: (.*), Linux$", result, re.MULTILINE)
    assert date is not None
    assert machine is not None
    lines = [_TITLE.format(machine=machine[1], date=date[1]), "|---|---:|---:|---:|---:|"]
    for label, section, column, names in _QUOTED:
        _, _, rest = result.partition(f"## {section}")
        rows = {
            cells[0]: cells[column].partition(" / ")[0]
            for line in rest.partition("\n## ")[0].splitlines()
            if len(cells := [cell.strip() for cell in line.strip("| ").split("|")]) > column
        }
        # Earlier runs measured the predecessor of httpx2.
        found = [rows[name] if name in rows else rows[name.replace("httpx2", "httpx")] for name in names]
        lines.append(f"| {label} | {' | '.join(found)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(quote(RESULT.read_text(encoding="utf-8")), end="")
