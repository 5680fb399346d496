"""Restore sessions over time, in a terminal and as a picture: every one once, in its place, and harmless."""

import io
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from aiovbo import RestoreSession, RestoreSessionResult, RestoreSessionState, RestoreSessionType
from aiovbo._cli._picture import svg
from aiovbo._cli._timeline import bars

BEGINS = datetime(2026, 11, 23, 9, tzinfo=UTC)
ENDS = BEGINS + timedelta(days=1)
HOUR = timedelta(hours=1)
SVG = "{http://www.w3.org/2000/svg}"
SERVERS = ["vbo1", "vbo2", "vbo3"]
FILLS = "▇▒╳░▚"  # noqa: RUF001  # a bar's character, no letter

HOSTILE = [
    "<script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    '" onmouseover="alert(1)',
    "&lt;&amp;&#0;",
    "[bold red]x[/bold red][link=https://evil]y",
    "[/]",
    ":boom: \x1b[31m\x1b]0;title\x07\r\n\t\x00\x08",
    "\u202egnp.exe\u2066 \ud800 \ufffe \x85 \u2028",
    "▇▇▇▶",
    "日本語" * 40,
    "e\u0301\u0301\u0301" * 20,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 10,
]


def session(
    begin: datetime = BEGINS + HOUR,
    end: datetime | None = BEGINS + 2 * HOUR,
    result: str | None = "Success",
    server: str = "vbo1",
    **fields: Any,
) -> RestoreSession:
    """One session; it works while it has no end."""
    fields.setdefault("state", RestoreSessionState("Working" if end is None else "Stopped"))
    return RestoreSession(
        server=server,
        id=uuid4(),
        creation_time=begin,
        end_time=end,
        result=None if result is None else RestoreSessionResult(result),
        **fields,
    )


moments = st.datetimes(
    (BEGINS - 10 * HOUR).replace(tzinfo=None), (ENDS + 10 * HOUR).replace(tzinfo=None), timezones=st.just(UTC)
)
texts = st.one_of(st.none(), st.text(max_size=80), st.sampled_from(HOSTILE))
values = st.one_of(st.text(min_size=1, max_size=80), st.sampled_from(HOSTILE))
results = st.sampled_from(["Success", "Warning", "Failed", "Peculiar"])
states = st.sampled_from([None, *map(RestoreSessionState, ("Starting", "Working", "Stopped", "Weird"))])
silent = st.builds(
    RestoreSession,
    server=st.sampled_from(SERVERS),
    id=st.uuids(),
    creation_time=moments,
    end_time=st.one_of(st.none(), moments),
    state=states,
    result=st.one_of(st.none(), results.map(RestoreSessionResult)),
)
wordy = st.builds(
    RestoreSession,
    server=st.one_of(st.sampled_from(SERVERS), st.text(max_size=20), st.sampled_from(HOSTILE)),
    id=st.uuids(),
    creation_time=moments,
    end_time=st.one_of(st.none(), moments),
    state=states,
    result=st.one_of(st.none(), values.map(RestoreSessionResult)),
    type=st.one_of(st.none(), values.map(RestoreSessionType)),
    **dict.fromkeys(("name", "initiated_by", "organization", "reason", "details"), texts),
)
widths = st.integers(1, 200)


def in_window(one: RestoreSession) -> bool:
    """Whether any of it lies between BEGINS and ENDS."""
    end = ENDS if one.end_time is None else max(one.creation_time, one.end_time)
    return one.creation_time <= ENDS and end >= BEGINS


def shown(
    sessions: list[RestoreSession],
    width: int,
    encoding: str = "utf-8",
    servers: list[str] = SERVERS,
    **options: Any,
) -> list[str]:
    """The lines that a terminal would get, and nothing more of it than its width."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding) as file:
        console = Console(file=file, width=max(width, 1), legacy_windows=False, **options)
        console.print(bars(sessions, servers, BEGINS, ENDS, width))
        file.flush()
        return raw.getvalue().decode(encoding).splitlines()


def drawn(lines: list[str]) -> Counter[str]:
    """How many bars there are of each kind, where nothing is labelled."""
    axis = next(number for number, line in enumerate(lines) if {"─", "┴"} & set(line))
    runs = re.findall(rf"░*▶|([{FILLS}])\1*", "\n".join(lines[1:axis]))
    return Counter(run or "▶" for run in runs)


def picture(sessions: list[RestoreSession], servers: list[str] = SERVERS) -> ET.Element:
    """The SVG as any XML parser sees it."""
    return ET.fromstring(svg(sessions, servers, BEGINS, ENDS))  # noqa: S314  # our own


def rects(root: ET.Element) -> list[tuple[float, float, float]]:
    """Left end, right end and top of all that is drawn of sessions."""
    found = [one for one in root.iter(f"{SVG}rect") if one.get("class") == "session"]
    sizes = [[float(one.get(name, "nan")) for name in ("x", "width", "y")] for one in found]
    return [(x, x + width, y) for x, width, y in sizes]


@given(st.lists(silent, max_size=40), widths)
def test_every_session_in_the_window_is_one_bar_in_the_terminal(
    sessions: list[RestoreSession], width: int
) -> None:
    """As many bars as sessions that touch the window, whatever the width."""
    visible = [one for one in sessions if in_window(one)]
    assert drawn(shown(sessions, width)).total() == len(visible)


@given(st.lists(silent, max_size=40))
def test_every_session_in_the_window_is_one_rect_in_the_picture(sessions: list[RestoreSession]) -> None:
    """Each with a tooltip, and none above another."""
    root = picture(sessions)
    visible = [one for one in sessions if in_window(one)]
    found = rects(root)
    assert len(found) == len(visible) == len(root.findall(f"{SVG}g/{SVG}title"))
    by_lane = sorted((top, left, right) for left, right, top in found)
    assert all(one[0] != after[0] or one[2] <= after[1] + 0.1 for one, after in pairwise(by_lane))


@given(st.lists(wordy, max_size=15), widths, st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_no_line_is_wider_than_the_terminal(
    sessions: list[RestoreSession], width: int, encoding: str
) -> None:
    """Neither by long names nor by wide letters, nor where the encoding has no blocks."""
    for line in shown(sessions, width, encoding):
        assert cell_len(line) <= width
        assert line.isprintable()


@given(st.lists(wordy, max_size=15))
@example([session(initiated_by=text, name=text, server=text) for text in HOSTILE])
def test_the_picture_is_xml_and_stays_within_its_frame(sessions: list[RestoreSession]) -> None:
    """Whatever servers say; and it holds nothing that runs or is fetched."""
    root = picture(sessions, [*SERVERS, *HOSTILE])
    width = float(root.get("width", "nan"))
    assert all(0 <= left < right <= width for left, right, _ in rects(root))
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "pattern", "path", "rect", "text", "g")
    }
    names = {name for one in root.iter() for name in one.attrib}
    assert not [name for name in names if name.startswith("on") or "href" in name]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_and_not_obeyed(text: str) -> None:
    """No markup of rich, no control character, no colour that was not ours."""
    one = session(initiated_by=text, type=RestoreSessionType(text), server=text)
    plain = "\n".join(shown([one], 140))
    coloured = "\n".join(shown([one], 140, color_system="standard", force_terminal=True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain
    assert "\x1b" not in plain
    assert not text.startswith("[bold") or "[bold red]x[/bold red]" in plain
    assert "\x1b]8" not in coloured


def test_names_that_look_like_bars_do_not() -> None:
    """Without colour the characters are all that one has."""
    lines = shown([session(initiated_by="▇▇▇")], 80)
    assert drawn(lines) == {"▇": 1}
    assert "???" in "".join(lines)


@pytest.mark.parametrize("width", [30, 80, 140])
def test_outcomes_differ_without_any_colour(width: int) -> None:
    """Each has a character of its own, and the legend says which."""
    kinds = ["Success", "Warning", "Failed", None]
    sessions = [session(result=kind, server=f"vbo{number}") for number, kind in enumerate(kinds)]
    sessions.append(session(end=None))
    lines = shown(sessions, width)
    assert drawn(lines) == dict.fromkeys("▇▒╳▚▶", 1)  # noqa: RUF001  # as above
    text = " ".join(lines)
    for outcome in ("success", "warning", "failed", "running", "other"):
        assert f"1 {outcome}" in text


def test_what_runs_is_drawn_to_the_end_of_the_window() -> None:
    """In both pictures, and whatever result it shows meanwhile."""
    running = session(ENDS - 3 * HOUR, None, "Success")
    (line,) = [line for line in shown([running], 80) if line.startswith("vbo1")]
    assert len(line) == 80
    assert line.endswith("░▶")
    ((left, right, _),) = rects(picture([running]))
    ((first, last, _),) = rects(picture([session(BEGINS, ENDS)]))
    assert right == pytest.approx(last, abs=0.2)
    assert left == pytest.approx(first + (last - first) * 21 / 24, abs=0.2)


def test_what_began_before_the_window_is_cut_at_its_begin() -> None:
    """And what ends after it at its end."""
    long = session(BEGINS - 90 * HOUR, ENDS + 90 * HOUR)
    exact = session(BEGINS, ENDS)
    assert rects(picture([long])) == rects(picture([exact]))
    assert shown([long], 80) == shown([exact], 80)


def test_what_lies_outside_is_not_drawn() -> None:
    """Neither what ended before nor what began after."""
    outside = [session(BEGINS - 2 * HOUR, BEGINS - HOUR), session(ENDS + HOUR, None)]
    assert not rects(picture(outside))
    assert not drawn(shown(outside, 80))
    assert "no restore sessions" in shown(outside, 80)


def test_a_session_of_no_length_can_be_seen() -> None:
    """Also one whose server's clock was set back, and one at the very end."""
    short = [session(BEGINS + HOUR, BEGINS + HOUR), session(BEGINS + 9 * HOUR, BEGINS), session(ENDS, ENDS)]
    assert drawn(shown(short, 80)) == {"▇": 3}
    assert all(right - left >= 3 for left, right, _ in rects(picture(short)))


def test_sessions_that_overlap_stand_in_lanes() -> None:
    """As many lanes as there are at once, and one more at most for labels."""
    together = [session(BEGINS + n * HOUR, BEGINS + (n + 3) * HOUR) for n in range(12)]
    lines = shown(together, 100, servers=["vbo1"])
    assert len(lines) == 1 + 3 + 2 + 1 or len(lines) == 1 + 4 + 2 + 1
    tops = {top for _, _, top in rects(picture(together))}
    assert 3 <= len(tops) <= 4


@pytest.mark.parametrize("width", [24, 40, 50, 60, 100, 160])
def test_servers_are_distinguished_by_their_names(width: int) -> None:
    """Names that are alike where they would be cut stand above their bars, on as many lines as it takes."""
    names = [f"backup-athens-0{number}.internal.example.com" for number in (1, 2, 3)]
    lines = shown([session(server=names[0])], width, servers=names)
    assert max(map(cell_len, lines)) <= width
    beside = [line for line in lines if re.match(r"backup-athens-0\d[^ ]*… ", line)]
    assert len({line.split()[0] for line in beside}) == 3 or not beside
    assert beside or all(name in "".join(line.strip() for line in lines) for name in names)


def test_servers_stand_in_the_order_given_and_none_is_left_out() -> None:
    """Those without sessions too, and those that only a session names."""
    lines = shown([session(server="stray"), session(server="b")], 80, servers=["b", "a", "b"])
    assert [line.split()[0] for line in lines[1:4]] == ["b", "a", "stray"]
    texts = [one.text for one in picture([session(server="stray")], ["b", "a"]).iter(f"{SVG}text")]
    assert [text for text in texts if text in ("a", "b", "stray")] == ["b", "a", "stray"]


@pytest.mark.parametrize(
    ("account", "label"),
    [("TECH\\anna.berg", "anna.berg"), ("j.smith@contoso.com", "j.smith"), ("@", "@"), (None, "")],
)
def test_a_label_says_who_and_what(account: str | None, label: str) -> None:
    """The domain is left to the tooltip."""
    one = session(initiated_by=account, type=RestoreSessionType("Vex"))
    assert f"{label} Exchange".strip() in "".join(shown([one], 100))
    (title,) = picture([one]).findall(f"{SVG}g/{SVG}title")
    assert (account or "Exchange") in (title.text or "")


def test_where_it_is_crowded_what_failed_is_labelled_first() -> None:
    """Rather than successes, which need no action."""
    crowd = [
        session(BEGINS + n * HOUR, BEGINS + (n + 1) * HOUR, initiated_by=f"fine{n:02}") for n in range(23)
    ]
    crowd[11] = session(BEGINS + 11 * HOUR, BEGINS + 12 * HOUR, "Failed", initiated_by="unlucky")
    text = "".join(shown(crowd, 80, servers=["vbo1"]))
    assert "unlucky" in text
    assert text.count("fine") < 22


@pytest.mark.parametrize(
    ("length", "labels"),
    [
        (timedelta(seconds=20), ["09:00:05", "09:00:10"]),
        (timedelta(minutes=7), ["09:01", "09:02"]),
        (timedelta(hours=5), ["10:00", "11:00"]),
        (timedelta(days=1), ["12:00", "15:00", "24 Nov"]),
        (timedelta(days=9), ["25 Nov"]),
        (timedelta(days=400), ["2027"]),
        (timedelta(days=40_000), ["2038"]),
    ],
)
def test_ticks_are_at_round_times(length: timedelta, labels: list[str]) -> None:
    """From seconds to a century."""
    raw = io.StringIO()
    Console(file=raw, width=80).print(bars([], ["vbo1"], BEGINS, BEGINS + length, 80))
    assert all(label in raw.getvalue() for label in labels), raw.getvalue()
    text = svg([], ["vbo1"], BEGINS, BEGINS + length)
    assert text.count('class="grid"') >= 3


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.timedeltas(timedelta(microseconds=1), timedelta(days=300_000)),
    widths,
)
def test_any_window_has_an_axis(begins: datetime, length: timedelta, width: int) -> None:
    """From a microsecond to the end of the calendar."""
    ends = (
        min(begins, datetime(9998, 1, 1, tzinfo=UTC) - length) + length
        if begins.year > 900
        else begins + HOUR
    )
    begins = min(begins, ends - timedelta(microseconds=1))
    raw = io.StringIO()
    Console(file=raw, width=width).print(bars([], ["vbo1"], begins, ends, width))
    assert all(cell_len(line) <= width for line in raw.getvalue().splitlines())
    assert svg([], [], begins, ends).count('class="grid"') <= 20


@pytest.mark.parametrize("draw", [svg, lambda *window: bars(*window, 80)], ids=["svg", "bars"])
def test_an_empty_window_is_refused(draw: Any) -> None:
    """There is nothing to be drawn in it."""
    with pytest.raises(ValueError, match="begins before it ends"):
        draw([], SERVERS, BEGINS, BEGINS)


def test_the_picture_needs_nothing_else() -> None:
    """A role, a title and a description; light and dark; patterns that are in it."""
    one = session(result="Failed")
    text = svg([one], SERVERS, BEGINS, ENDS)
    root = ET.fromstring(text)  # noqa: S314  # our own
    ids = {found.get("id") for found in root.iter()}
    assert root.get("role") == "img"
    assert set(str(root.get("aria-labelledby")).split()) <= ids
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= ids
    assert "prefers-color-scheme:dark" in text
    assert "1 failed" in text
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
