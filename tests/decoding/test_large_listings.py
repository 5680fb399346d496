"""Large listings: divided in steps, with the same result as in one, whatever they contain."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from harness.documents import session
from harness.raw import RawServer, http, vbo_routes
from hypothesis import given, settings
from hypothesis import strategies as st

from aiovbo import Client, Password, PayloadError, RestoreSession, Server
from aiovbo._decoding.listing import SLICE, STEP, DecodedPage, decode_listing
from aiovbo._decoding.listing_body import Body, split_in_steps
from aiovbo._resources.structuring import BROKEN

HOSTILE = [
    "a},{b", '"results":[{', "}]", '],"', "\\", "é", "\ud800", "\ud83d\ude00", "\\ud800", ",", "}" * 50
]  # fmt: skip


def decode(body: bytes) -> DecodedPage[RestoreSession]:
    """The page in `body`."""
    return decode_listing(body, RestoreSession, "vbo1", None)


def rows_of(page: DecodedPage[RestoreSession]) -> list[tuple[Any, ...]]:
    """The sessions and the rejected rows of a page."""
    found: list[tuple[Any, ...]] = []
    for items, rejected in page.slices():
        assert len(items) + len(rejected) <= SLICE
        found += [(item, item.extra) for item in items]
        found += [(one.index, one.raw) for one in rejected]
    return found


rows = st.one_of(
    st.builds(
        lambda number, text, size: session(number, name=text * size),
        st.integers(0, 99),
        st.sampled_from(HOSTILE),
        st.sampled_from([1, 1, 30, 3_000]),
    ),
    st.sampled_from([{}, None, 7, [{"a": 1}, {"b": 2}], {"id": "x"}]),
)


def often(texts: list[str]) -> list[str]:
    """The same again and again, until it is a large listing."""
    return texts * (3 * STEP // sum(map(len, texts)) + 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(rows.map(json.dumps), min_size=1, max_size=12), st.sampled_from([",", ", ", " ,\n"]))
def test_a_text_is_divided_into_exactly_its_items(texts: list[str], comma: str) -> None:
    """Wherever commas and braces are, and however long the items are; what is no list is an error."""
    text = comma.join(often(texts)).encode()
    divided = [bytes(raw).decode() for raws in split_in_steps(Body(text, 0, len(text))) for raw in raws]
    assert list(map(repaired_value, divided)) == list(map(repaired_value, often(texts)))
    for spoilt in (b",", b"}", b'"', b"1 2", b",,{}"):
        for bad in (text + spoilt, spoilt + b" " + text):
            with pytest.raises(BROKEN):
                list(split_in_steps(Body(bad, 0, len(bad))))


def repaired_value(text: str) -> object:
    """The JSON value, with a replacement character for each half of a surrogate pair."""
    return json.loads(re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(json.loads(text), ensure_ascii=False)))


@settings(max_examples=10, deadline=None)
@given(st.lists(rows.map(json.dumps), min_size=1, max_size=8), st.booleans())
def test_a_large_listing_has_the_rows_of_its_parts(texts: list[str], is_page: bool) -> None:  # noqa: FBT001  # drawn
    """Each row is what it is in a listing by itself, with its own index."""
    alone = {text: rows_of(decode(f"[{text}]".encode()))[0] for text in texts}
    expected: list[tuple[Any, ...]] = []
    for index, text in enumerate(often(texts)):
        row = alone[text]
        expected.append((index, row[1]) if isinstance(row[0], int) else row)
    listed = f"[{','.join(often(texts))}]"
    if is_page:
        beside = '"_links":{"next":{"href":"/v8/x"},"odd":[{"a":[]}]}'
        listed = f'{{"limit":9,"results":{listed},{beside}}}'
    page = decode(listed.encode())
    found = rows_of(page)
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert page.count == len(expected)
    if is_page:
        assert (page.limit, page.next_href) == (9, "/v8/x")


def item(text: bytes = b"") -> bytes:
    """A session with such a text, in JSON."""
    return json.dumps(session(1, name="@")).encode().replace(b"@", text)


@pytest.mark.parametrize("count", [1, 2, 2 * STEP // 300])
@pytest.mark.parametrize(
    ("begin", "end"), [("[", "}"), ("[", "]}"), ('{"results":[', "}"), ('{"results":[', "]]")]
)
def test_a_listing_that_ends_with_another_bracket_is_no_listing(begin: str, end: str, count: int) -> None:
    """Of any length: its items are valid, and it is not."""
    text = begin + ",".join([json.dumps(session(1))] * count) + end
    with pytest.raises(PayloadError, match="not a list of items"):
        decode(text.encode())


MIB = 1024 * 1024
DENSE: dict[str, Callable[[], bytes]] = {
    "lone surrogates": lambda: b"[" + b",".join([item(b"\\ud800" * 40)] * 8_000) + b"]",
    "escapes and one lone surrogate": lambda: (
        b"[" + b",".join([item(b"\\n" * 150)] * 6_000 + [item(b"\\ud800")]) + b"]"
    ),
    "empty objects": lambda: b"[" + b"{}," * (2 * MIB // 3) + b"{}]",
    "numbers": lambda: b'{"results":[' + b"1," * MIB + b'1],"limit":1,"_links":{}}',
}


@pytest.mark.parametrize("kind", DENSE)
def test_no_step_divides_more_than_a_step(kind: str) -> None:
    """Of a response of 2 MB or more, `STEP` bytes and one item at a time."""
    body = DENSE[kind]()
    text = body[body.index(b"[") + 1 : body.rindex(b"]")]
    sizes = [sum(map(len, raws)) for raws in split_in_steps(Body(text, 0, len(text)))]
    assert max(sizes) <= 2 * STEP
    # All of it but the commas.
    assert len(text) // 2 <= sum(sizes) < len(text)
    for steps, (items, rejected) in enumerate(decode(body).slices()):
        assert len(items) + len(rejected) <= SLICE
        if steps == 5:
            break


BESIDE: dict[str, tuple[bytes, str | None]] = {
    "many members": (
        b'{"results":[],' + b",".join(b'"m%d":1' % n for n in range(200_000)) + b"}",
        "no links",
    ),
    "links": (b'{"limit":1,"results":[],"_links":{"next":{"href":"' + b"x" * 4 * MIB + b'"}}}', None),
    "the end": (b"[" + item() + b"," * (2 * STEP) + b"]", "malformed"),
    "a row that comes late": (b"[" + (item() + b",") * 900 + b"{,}]", "malformed"),
}
ON_THE_BOUND = datetime(2026, 11, 20, 8, 30, 5, 98397, UTC)
"""When the sessions began, cut to the microsecond: all rows of a page are looked at once more."""


@pytest.mark.parametrize("kind", BESIDE)
async def test_a_large_response_that_is_no_listing_is_an_error_of_its_server(kind: str) -> None:
    """It states the server and the request, also where the mistake is seen late; others go on."""
    body, said = BESIDE[kind]
    path = ("GET", "/v4/RestoreSessions")
    sound = b"[" + item() + b"]"
    async with (
        RawServer(vbo_routes() | {path: http(200, body)}) as raw,
        RawServer(vbo_routes() | {path: http(200, sound)}) as bystander,
    ):
        answers = {}
        for name, url in (("vbo1", raw.url), ("vbo2", bystander.url)):
            server = Server(url, Password("u", "p"), name=name, allow_http=True, api_version="v4")
            async with Client(server, retries=0) as client:
                answers[name] = await client.restore_sessions(started_after=ON_THE_BOUND).answer()
    assert answers["vbo2"].error is None
    assert len(answers["vbo2"].items) == 1
    error = answers["vbo1"].error
    if said is None:
        # Where its next page is cannot be read.
        assert error is None
        assert not answers["vbo1"].complete
        return
    assert isinstance(error, PayloadError)
    assert said in str(error.problems)
    assert (error.server, error.operation) == ("vbo1", "GET /v4/RestoreSessions")
