"""Recognition of unchanged sessions: the same result as decoding everything, whatever the responses are."""

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from attrs import frozen
from harness.documents import session
from hypothesis import given, settings
from hypothesis import strategies as st

from aiovbo import Bearer, Client, PayloadError, Rejected, RestoreSession, Server
from aiovbo._decoding.listing import DecodedPage, decode_listing
from aiovbo._decoding.recognition import LARGEST, Recognition, ServerRecognition

CLIENTS = [cast("Any", object()), cast("Any", object())]
"""Two clients of one server; these tests follow no link."""
HOSTILE = ["a},{b", '"results":[{', '}]},"results":[{', "365365365365365365", "\\", "é", "\u2028", "x" * 300]
PIECES = ["null", "1", "{}", '{"id":"x"}', '[{"a":1},{"b":2}]', '{"id":"\\ud800"}', '{"a":1e400}']


def compact(document: object) -> str:
    """JSON as servers send it, without blanks."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def array(*documents: object) -> bytes:
    """A bare array without blanks."""
    return compact(documents).encode()


def page(*documents: object, **members: object) -> bytes:
    """A page without blanks."""
    return compact({"limit": 30, "results": documents, "_links": {}, **members}).encode()


def fresh() -> ServerRecognition:
    """The recognition of a server that was never queried."""
    return ServerRecognition(Recognition())


def decode(recognition: ServerRecognition, body: bytes, client: int = 0) -> DecodedPage[RestoreSession]:
    """The page in `body`."""
    return recognition.decode(body, "vbo1", CLIENTS[client], "v8")


def items_of(listing: DecodedPage[RestoreSession]) -> list[RestoreSession]:
    """All sessions on a page."""
    return [item for items, _ in listing.slices() for item in items]


def described(listing: DecodedPage[RestoreSession]) -> object:
    """Everything that a page says."""
    items, rejected = [], []
    for some, others in listing.slices():
        items += [(item, item.extra, item.links.raw, item.links.fetcher) for item in some]
        rejected += others
    head = (listing.count, listing.is_array, listing.is_doubtful)
    return items, rejected, head, listing.limit, listing.total, listing.next_href


documents = st.builds(
    lambda number, changes: session(number, **changes),
    st.integers(0, 6),
    st.dictionaries(
        st.sampled_from(["state", "endTime", "name", "newMember", "id", "creationTime", "ETag"]),
        st.one_of(
            st.sampled_from([None, 5, True, "Working", "2026-11-20T09:30:05.0983979Z", [1], {"a": 1}]),
            st.sampled_from(HOSTILE),
        ),
        max_size=1,
    ),
).map(compact)
rows = st.lists(st.one_of(*[documents] * 8, st.sampled_from(PIECES)), max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A response: v4 or a page, with blanks, `next`, other members, and what is not a listing."""
    comma = draw(st.sampled_from([",", ",", ",", ", ", " ,"]))
    listed = f"[{comma.join(draw(rows))}]"
    if draw(st.booleans()):
        return listed.encode()
    members = [
        draw(st.sampled_from(['"results":', '"results":', '"results":', '"results": ', '"Results":']))
        + listed,
        *draw(
            st.lists(
                st.sampled_from(
                    [
                        '"limit":30',
                        '"Limit":7',
                        '"totalCount":40',
                        '"limit":"x"',
                        '"setId":"f0e1"',
                        '"setId":"f0e2"',
                        '"_links":{"next":{"href":"/v8/RestoreSessions?offset=30"}}',
                        '"_links":{"Next":{"href":"/v8/RestoreSessions?offset=60"},"a":[{"b":1}]}',
                        '"_links":null',
                        '"results":[]',
                        '"results":[{"id":"y"}]',
                        '"other":{"results":[{"id":"x"},{"id":"z"}]}',
                        '"a\\"results":[{"c":1}]',
                        '"é":1',
                    ]
                ),
                max_size=3,
            )
        ),
    ]
    body = "{" + ",".join(draw(st.permutations(members))) + "}"
    encoded = body.encode(
        draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1"])), "replace"
    )
    return encoded[: draw(st.sampled_from([None, None, None, None, -1]))]


def outcome(read: Any) -> object:
    """What a page says, or why there is none."""
    try:
        return described(read())
    except PayloadError as error:
        return str(error), error.problems, error.retryable


@settings(max_examples=30)
@given(st.lists(st.tuples(st.one_of(bodies(), st.integers(0, 5)), st.integers(0, 1)), min_size=2, max_size=8))
def test_responses_are_read_the_same_with_and_without_recognition(
    responses: list[tuple[bytes | int, int]],
) -> None:
    """Values, order, rejected rows, links of the right client; in any order of responses, repeated or new."""
    recognition = fresh()
    sent: list[bytes] = []
    for chosen, client in responses:
        body = chosen if isinstance(chosen, bytes) else sent[chosen % len(sent)] if sent else b"[]"
        sent.append(body)
        found = outcome(lambda body=body, client=client: decode(recognition, body, client))
        expected = outcome(
            lambda body=body, client=client: decode_listing(body, RestoreSession, "vbo1", CLIENTS[client])
        )
        assert found == expected


def same(former: Sequence[object], later: Sequence[object]) -> int:
    """How many items are the same objects."""
    known = {id(item) for item in former}
    return sum(id(item) in known for item in later)


@pytest.mark.parametrize("make", [array, page])
def test_an_unchanged_response_gives_the_same_objects(make: Any) -> None:
    """From the second response on; another `setId` or link of the page does not matter."""
    recognition = fresh()
    rows = [session(n) for n in range(30)]
    first = items_of(decode(recognition, make(*rows)))
    again = items_of(decode(recognition, make(*rows)))
    assert same(first, again) == 30
    if make is page:
        other = decode(recognition, page(*rows, setId="abc", _links={"next": {"href": "/v8/x"}}))
        assert same(first, items_of(other)) == 30
        assert other.next_href == "/v8/x"


def test_one_changed_session_of_thirty_is_decoded_alone() -> None:
    """The other 29 are the same objects, response after response."""
    recognition = fresh()
    rows = [session(n) for n in range(30)]
    former = []
    for number in range(5):
        rows[7] = session(7, details=f"step {number}")
        items = items_of(decode(recognition, page(*rows)))
        assert items[7].details == f"step {number}"
        if number > 1:
            assert same(former, items) == 29
        former = items


def test_responses_with_blanks_are_recognized() -> None:
    """As `json.dumps` writes them."""
    recognition = fresh()
    bodies = [
        json.dumps(
            {"results": [session(n, details=str(m)) if n == 3 else session(n) for n in range(5)]}
        ).encode()
        for m in range(3)
    ]
    _, before, after = [items_of(decode(recognition, body)) for body in bodies]
    assert same(before, after) == 4


def test_alternating_queries_are_both_recognized() -> None:
    """Each of them changes a little from one response to the next."""
    recognition = fresh()
    week = [session(n) for n in range(40)]
    former: dict[int, list[RestoreSession]] = {}
    for turn in range(6):
        week[0] = session(0, details=f"step {turn}")
        for length in (40, 10):
            items = items_of(decode(recognition, page(*week[:length])))
            if turn > 1:
                # But the one that changed, and the last one of the shorter list: no comma follows it there.
                assert same(former[length], items) >= length - 2
            former[length] = items


def test_a_rejected_row_does_not_prevent_recognition() -> None:
    """It is rejected again, with its index in the new response."""
    recognition = fresh()
    rows = [session(n) for n in range(10)]
    rows[4] = session(4, id=...)
    listings = [decode(recognition, page(*rows[start:])) for start in (0, 0, 0, 1)]
    former, later = items_of(listings[1]), items_of(listings[2])
    assert same(former, later) == 9
    indexes = [[one.index for _, rejected in listing.slices() for one in rejected] for listing in listings]
    assert indexes == [[4], [4], [4], [3]]
    assert same(former, items_of(listings[3])) == 8


def test_what_cannot_be_matched_is_recognized_again_later() -> None:
    """A row that is no object stops recognition for some responses only."""
    recognition = fresh()
    rows = [session(n) for n in range(5)]
    for _ in range(3):
        decode(recognition, page(*rows, None))
    for _ in range(30):
        items_of(decode(recognition, page(*rows, session(9, details="x"))))
    former = items_of(decode(recognition, page(*rows, session(9, details="y"))))
    assert same(former, items_of(decode(recognition, page(*rows, session(9, details="z"))))) == 5


def test_responses_that_have_nothing_in_common_take_no_more_and_more_memory() -> None:
    """The last four are kept."""
    recognition = ServerRecognition(fleet := Recognition())
    sizes: list[int] = []
    for number in range(10):
        decode(recognition, page(*[session(n, details=str(number)) for n in range(10)]))
        sizes.append(fleet.size)
    assert sizes[3:] == [4 * sizes[0]] * 7


def test_sessions_with_members_that_can_be_changed_are_not_shared() -> None:
    """Two responses do not hold the same list, whatever else is on their page."""
    recognition = fresh()
    body = page(session(0, future=[1]), session(1, future="text"))
    pages = [items_of(decode(recognition, body)) for _ in range(4)]
    pages[2][0].extra["future"].append(2)
    assert pages[3][0].extra["future"] == [1]


def test_sessions_with_new_members_are_shared() -> None:
    """From the third response on, where nothing in the members can be changed."""
    recognition = fresh()
    rows = [session(n, future="text") for n in range(5)]
    pages = [items_of(decode(recognition, page(*rows))) for _ in range(3)]
    assert same(pages[1], pages[2]) == 5
    changed = items_of(decode(recognition, page(*rows[:4], session(4, future="other"))))
    assert same(pages[2], changed) == 4
    assert changed[4].extra["future"] == "other"


COMMAS = st.sampled_from([",", ",", ",", ",", ", ", " ,", ",,", "", " ", "\x0b,", ",\x0b"])


@st.composite
def edited(draw: st.DrawFn) -> list[bytes]:
    """Listings of which each is like the one before: items added, removed and replaced, commas spoilt."""
    rows: list[str] = draw(st.lists(documents, min_size=1, max_size=6))
    commas: list[str] = [","] * 20
    found: list[bytes] = []
    is_page = draw(st.booleans())
    for _ in range(draw(st.integers(2, 6))):
        listed = "".join(f"{row}{comma}" for row, comma in zip(rows, commas, strict=False))
        listed = (
            f"[{listed.removesuffix(commas[len(rows) - 1])}]" if draw(st.integers(0, 9)) else f"[{listed}]"
        )
        found.append((f'{{"limit":30,"results":{listed},"_links":{{}}}}' if is_page else listed).encode())
        at = draw(st.integers(0, len(rows) - 1))
        for _ in range(draw(st.integers(0, 2))):
            match draw(st.sampled_from(["add", "remove", "replace", "twice", "comma"])):
                case "add":
                    rows = [*rows[:at], draw(documents), *rows[at:]]
                case "remove" if len(rows) > 1:
                    rows = [*rows[:at], *rows[at + 1 :]]
                case "replace":
                    rows = [*rows[:at], draw(documents), *rows[at + 1 :]]
                case "twice":
                    rows = [*rows[:at], rows[at], *rows[at:]]
                case _:
                    commas[at] = draw(COMMAS)
            at = min(at, len(rows) - 1)
    return found


@settings(max_examples=30)
@given(edited())
def test_a_response_like_the_one_before_is_read_as_it_is(responses: list[bytes]) -> None:
    """Also where it is no longer JSON: what was not decoded again is exactly what is there."""
    recognition = fresh()
    for body in responses:
        found = outcome(lambda body=body: decode(recognition, body))
        assert found == outcome(lambda body=body: decode_listing(body, RestoreSession, "vbo1", CLIENTS[0]))


def test_clients_do_not_share_sessions() -> None:
    """The links of each are followed by its own client, in its own API version."""
    recognition = fresh()
    body = page(session(0))
    for client in (0, 1, 0, 1):
        (item,) = items_of(decode(recognition, body, client))
        assert item.links.fetcher is CLIENTS[client]
    (other,) = items_of(recognition.decode(body, "vbo1", CLIENTS[0], "v7"))
    assert other is not items_of(decode(recognition, body))[0]


def test_a_fleet_keeps_no_more_than_its_budget() -> None:
    """The servers that were queried longest ago lose what was kept, and begin again."""
    body = page(*[session(n) for n in range(10)])
    fleet = Recognition(budget=60_000)
    servers = [ServerRecognition(fleet) for _ in range(10)]
    kept = [items_of(decode(server, body)) for server in servers]
    decode(servers[6], body)
    assert fleet.size <= 60_000
    assert same(kept[9], items_of(decode(servers[9], body))) == 10
    assert same(kept[0], items_of(decode(servers[0], body))) == 0
    fleet.clear()
    assert fleet.size == 0
    assert same(kept[9], items_of(decode(servers[9], body))) == 0


def test_large_responses_are_not_kept() -> None:
    """They would be compared for too long at a stretch."""
    recognition = ServerRecognition(fleet := Recognition())
    decode(recognition, page(*[session(n) for n in range(LARGEST // 300)]))
    assert fleet.size == 0


@frozen
class _Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class _Replies:
    """A server that sends these bodies in turn."""

    def __init__(self, *bodies: bytes, charset: str = "") -> None:
        self._bodies = list(bodies)
        self._charset = charset

    async def send(self, _request: object, _deadline: object, /) -> _Reply:
        """The next one."""
        kind = f"application/json{self._charset}"
        return _Reply(200, {"Content-Type": kind}, self._bodies.pop(0))


SERVER = Server("vbo1", Bearer("token"), api_version="v8")


async def test_polls_of_a_client_get_the_same_objects() -> None:
    """Also where the server writes them in another charset; views of the client have their own."""
    rows = [session(n, name="é") for n in range(3)]
    text = page(*rows).decode()
    for charset in ("utf-8", "utf-16"):
        bodies = [text.encode(charset)] * 3
        async with Client(SERVER, transport=_Replies(*bodies, charset=f"; charset={charset}")) as client:
            first, again = await client.restore_sessions(), await client.restore_sessions()
            viewed = await client.with_options(deadline=5).restore_sessions()
        assert first[0].name == "é"
        assert same(first, again) == 3
        assert viewed == first
        assert same(first, viewed) == 0


async def test_recognized_sessions_are_checked_like_others() -> None:
    """Duplicates, `strict` and rejected rows: what was recognized passes the same checks."""
    twice = page(session(1), session(2), session(1))
    bad = page(session(1), session(2, id=...))
    async with Client(SERVER, transport=_Replies(twice, twice, twice, bad, bad, bad, bad)) as client:
        for _ in range(3):
            assert [item.id.int for item in await client.restore_sessions()] == [2, 3]
        answers = [await client.restore_sessions().answer() for _ in range(3)]
        assert [[one.index for one in answer.rejected] for answer in answers] == [[1]] * 3
        assert all(isinstance(one, Rejected) for answer in answers for one in answer.rejected)
        answer = await client.with_options(strict=True).restore_sessions().answer()
        assert isinstance(answer.error, PayloadError)
