"""What was to be reached, and whether it is: ratios within one run.

Knows the figures by name; measures nothing.
"""

from collections.abc import Mapping

from decoding import TOLERANT
from others import FLOOR
from polling import TYPED
from rounds import Table
from stalls import ASKED, BYTES

Figures = Mapping[str, float]


def _ratio(figures: Figures, one: str, other: str) -> float | None:
    if one not in figures or not figures.get(other):
        return None
    return figures[one] / figures[other]


def _spread(figures: Figures, phase: str, kind: str) -> float | None:
    found = [
        figures[key] for size in (10, 100, 1_000) if (key := f"{phase} {kind} {size} aiovbo cpu") in figures
    ]
    return max(found) / min(found) - 1 if len(found) > 1 else None


def _decoding(figures: Figures) -> list[tuple[str, float | None, float]]:
    ours, page = "decode v4 1000 aiovbo", f"decode v4 1000 {TOLERANT}"
    orjson, pydantic, veeam = (
        f"decode v4 1000 {name}"
        for name in ("orjson.loads (dicts)", "pydantic validate_json", "veeam-365 from_dict")
    )
    return [
        ("structuring, 1,000 v4 items, x orjson.loads", _ratio(figures, ours, orjson), 1.0),
        ("... x pydantic v2", _ratio(figures, ours, pydantic), 0.35),
        ("... x veeam-365", _ratio(figures, ours, veeam), 0.1),
        ("one odd item in the page, x orjson.loads", _ratio(figures, page, orjson), 3.0),
    ]


_POLLING = (
    ("nothing changed", FLOOR, 0.75),
    ("nothing changed", TYPED, 0.75),
    ("one of 30 changed", FLOOR, 0.95),
    ("one rejected row", FLOOR, 0.95),
    ("all changed", FLOOR, 1.1),
    ("cold", FLOOR, 1.1),
)
"""Kind of round, contestant, and most of its CPU time."""


def _asking(figures: Figures) -> list[tuple[str, float | None, float]]:
    size = 200 if "warm TLS 200 aiovbo cpu" in figures else 100
    ours, floor, veeam, threads = (
        f"warm TLS {size} {name} cpu" for name in ("aiovbo", FLOOR, "veeam-365", "requests, 64 threads")
    )
    return [
        (f"warm fan-out CPU, {size} TLS, x aiohttp + orjson", _ratio(figures, ours, floor), 1.0),
        *(
            (
                f"polling, {kind}, x {name}",
                _ratio(figures, f"polling {kind} aiovbo cpu", f"polling {kind} {name} cpu"),
                limit,
            )
            for kind, name, limit in _POLLING
        ),
        ("... x veeam-365", _ratio(figures, ours, veeam), 0.15),
        ("... x requests with threads", _ratio(figures, ours, threads), 0.3),
        ("longest stall, 10,000 v4 items, asked, ms", figures.get(f"stall v4 collector on {ASKED}"), 5.0),
        ("... bytes in memory, ms", figures.get(f"stall v4 collector on {BYTES}"), 5.0),
        ("longest stall, errors and invalid data of 4 MB, ms", figures.get("stall broken"), 5.0),
    ]


def _sizes(figures: Figures) -> list[tuple[str, float | None, float]]:
    size = 1_000 if "memory traced 1000 aiovbo" in figures else 100
    ours, floor = (figures.get(f"memory traced {size} {name}") for name in ("aiovbo", FLOOR))
    beyond = None if ours is None or floor is None else ours - floor
    ours, floor = (figures.get(f"memory resident {size} {name}") for name in ("aiovbo", FLOOR))
    resident = None if ours is None or floor is None else ours - floor
    # With 30 % of the servers gone there is less to do: what counts is how long that takes without them.
    dead = [
        (
            f"{share} dead, last healthy answer, x {base}, {phase} round",
            _ratio(figures, f"dead {phase} {share} dead", f"dead {phase} {base}"),
            1.1,
        )
        for share, base in (("5 %", "none dead"), ("30 %", "30 % left out"))
        for phase in ("first", "second")
    ]
    return [
        (f"KiB per TLS server beyond aiohttp, {size:,}, traced", beyond, 8.0),
        ("... resident", resident, 8.0),
        *dead,
        ("bytes per session kept, v4", figures.get("session v4 aiovbo"), 600.0),
        ("... v8", figures.get("session v8 aiovbo"), 600.0),
        ("growth of CPU per server, warm plain", _spread(figures, "warm", "plain"), 0.2),
        ("... warm TLS", _spread(figures, "warm", "TLS"), 0.2),
        ("... cold plain", _spread(figures, "cold", "plain"), 0.2),
        ("... cold TLS", _spread(figures, "cold", "TLS"), 0.2),
    ]


def verdicts(figures: Figures) -> Table:
    """Each target, what was measured, and the verdict."""
    rows: list[tuple[str, ...]] = []
    for name, value, limit in (*_decoding(figures), *_asking(figures), *_sizes(figures)):
        if value is None:
            rows.append((name, "-", f"<= {limit:g}", "not measured"))
        else:
            rows.append((name, f"{value:.3g}", f"<= {limit:g}", "met" if value <= limit else "MISSED"))
    return Table("Targets", ("figure", "measured", "target", ""), rows)
