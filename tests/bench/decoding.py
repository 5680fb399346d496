"""Section: bytes to sessions, how long an item takes, and how much memory one keeps.

Knows decoders and bodies; knows no network.
"""

import gc
import tracemalloc
from functools import partial
from time import perf_counter
from typing import Any

from bodies import body, odd_body
from decoders import Decoder, decoders
from rounds import Table, Turn, against, interleaved, median, short

TOLERANT = "aiovbo, one odd item"
_KEPT = 100_000
_BATCH, _QUICK_BATCH = 10_000, 2_000


def _timed(decode: Decoder, content: bytes, count: int, repeat: int) -> float:
    began = perf_counter()
    for _ in range(repeat):
        items = decode(content)
        assert len(items) == count, (decode, len(items), count)
        del items
    return (perf_counter() - began) / repeat / count * 1e6


def decoding(figures: dict[str, float], *, quick: bool) -> list[Table]:
    """Microseconds an item, by version and size."""
    everybody = decoders()
    # What was imported is not searched for garbage: everybody would pay for everybody's modules.
    gc.collect()
    gc.freeze()
    tables: list[Table] = []
    for version in ("v4", "v8"):
        cells: dict[str, list[str]] = {}
        for count in (30, 1_000, 10_000):
            content, odd = body(version, count), odd_body(version, count)
            repeat = max(1, 4_000 // count)
            turns: dict[str, Turn[float]] = {
                name: partial(_timed, decode, content, count, repeat) for name, decode in everybody.items()
            }
            turns[TOLERANT] = partial(_timed, everybody["aiovbo"], odd, count, repeat)
            found = interleaved(turns, most=5 if quick else 15, budget=0.6 if quick else 6)
            ours = median(found["aiovbo"])
            for name, values in found.items():
                figures[f"decode {version} {count} {name}"] = median(values)
                cells.setdefault(name, []).extend((short(median(values)), against(median(values), ours)))
        columns = ("us per item", *(c for n in (30, 1_000, 10_000) for c in (f"{n:,} items", "ratio")))
        size = len(body(version, 1000)) / 1000
        note = f"Medians; ratio to aiovbo; an item has {size:.0f} bytes; the garbage collector is on."
        rows = [(name, *line) for name, line in cells.items()]
        tables.append(Table(f"Decode and structure, {version}", columns, rows, note))
    gc.unfreeze()
    return tables


def _kept(decode: Decoder, content: bytes, count: int, batches: int) -> float:
    decode(content)
    gc.collect()
    tracemalloc.start()
    kept: list[Any] = []
    for _ in range(batches):
        kept += decode(content)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept) == count * batches
    # The list itself is the caller's.
    return (size - kept.__sizeof__()) / len(kept)


def kept_memory(figures: dict[str, float], *, quick: bool) -> Table:
    """Bytes that a session keeps in memory, by version."""
    rows: list[tuple[str, ...]] = []
    count = _QUICK_BATCH if quick else _BATCH
    contents = {version: body(version, count) for version in ("v4", "v8")}
    for name, decode in decoders().items():
        # Others grow just as evenly, and take long under the tracer.
        batches = _KEPT // _BATCH if name == "aiovbo" and not quick else 1
        sizes = {version: _kept(decode, content, count, batches) for version, content in contents.items()}
        for version, size in sizes.items():
            figures[f"session {version} {name}"] = size
        ratios = [against(size, figures[f"session {version} aiovbo"]) for version, size in sizes.items()]
        rows.append((name, f"{sizes['v4']:.0f}", ratios[0], f"{sizes['v8']:.0f}", ratios[1]))
    ours = count if quick else _KEPT
    note = f"tracemalloc; {ours:,} sessions of aiovbo, {count:,} of the others; their body is let go."
    columns = ("bytes per session", "v4", "ratio", "v8", "ratio")
    return Table("Memory per session kept", columns, rows, note)
