"""Bytes to models: what is accepted, what is set aside, and that both paths agree."""

import asyncio
import json
import pickle
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID
from zipfile import ZipFile

import attrs
import pytest
from documents import SESSIONS, V4_EXAMPLE, array, page, session
from hypothesis import given
from hypothesis import strategies as st

from aiovbo import (
    PayloadError,
    Rejected,
    Resource,
    RestoreSession,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionStatistics,
    RestoreSessionType,
    VboError,
)
from aiovbo import _decode as decode
from aiovbo._structure import read_tolerant

SUITE = Path(__file__).with_name("json-test-suite.zip")
"""Nicolas Seriot's JSONTestSuite; its license is inside."""


def read(body: bytes) -> tuple[list[RestoreSession], list[Rejected]]:
    """All of an answer's sessions, and what was set aside."""
    items: list[RestoreSession] = []
    rejected: list[Rejected] = []
    for some, others in decode.decode_listing(body, RestoreSession, "vbo1", None).slices():
        items += some
        rejected += others
    return items, rejected


def test_the_documented_v4_example_is_right_in_every_field() -> None:
    """Two sessions, their times cut to microseconds, the second without an end."""
    (first, second), rejected = read(V4_EXAMPLE)
    assert not rejected
    assert str(first.id) == "0800471b-d0e2-422b-9d7c-35d15661c3fb"
    assert first.type is RestoreSessionType.VEX
    assert first.creation_time == datetime(2018, 6, 29, 7, 42, 21, 191694, UTC)
    assert first.end_time == datetime(2018, 6, 29, 8, 14, 58, 353283, UTC)
    assert first.state is RestoreSessionState.STOPPED
    assert first.result is RestoreSessionResult.SUCCESS
    assert first.server == "vbo1"
    assert second.creation_time == datetime(2017, 6, 29, 8, 30, 5, 98397, UTC)
    assert second.end_time is None
    assert second.state is RestoreSessionState.WORKING
    assert list(second.links) == ["self", "organization"]


def test_of_a_thousand_items_only_the_senseless_one_is_set_aside() -> None:
    """An unknown state, a null result and unknown members pass; a missing id is set aside with its place."""
    documents = [session(n) for n in range(1000)]
    documents[10] = session(10, state="Paused")
    documents[20] = session(20, result=None)
    documents[30] = session(30, id=...)
    documents[40] = session(40, shade="mauve", nested={"a": [1]})
    items, rejected = read(array(*documents))
    assert len(items) == 999
    assert [(r.index, r.path, r.reason) for r in rejected] == [(30, "$.id", "missing")]
    assert json.loads(rejected[0].raw) == documents[30]
    assert items[10].state == "Paused"
    assert items[10].state is not None
    assert not items[10].state.is_known
    assert items[20].result is None
    assert dict(items[39].extra) == {"shade": "mauve", "nested": {"a": [1]}}


MANY = b",".join(json.dumps(session(n, organization=f"org{n % 9}")).encode() for n in range(1_500))
OF_ANOTHER_PATTERN = st.sampled_from(
    [
        session(7, id=str(UUID(int=9))),  # its links are another's
        session(7, id=str(UUID(int=7)).upper()),
        session(7, _links={"self": {"href": "/v4/restoresessions/00000000-0000-0000-0000-000000000008"}}),
        session(7, _links={}),
        session(7, _links="00000000-0000-0000-0000-000000000008"),
        session(7, _links=...),
        session(7, organization="org1", initiatedBy="a", name="b", pointInTime="2026-11-20T08:30:05Z"),
    ]
)


@given(st.lists(st.one_of(SESSIONS, OF_ANOTHER_PATTERN), min_size=1, max_size=80))
def test_long_listings_lose_nothing_by_keeping_little(documents: list[dict[str, object]]) -> None:
    """What a thousand sessions have in common is kept once; each is what it would be by itself."""
    body = b"[%b,%b]" % (MANY, array(*documents)[1:-1])
    items, rejected = read(body)
    alone = [read_tolerant(json.dumps(one).encode(), RestoreSession, "vbo1", None) for one in documents]
    kept = [one for one in alone if isinstance(one, RestoreSession)]
    assert items[1_500:] == kept
    assert [one.to_dict() for one in items[1_500:]] == [one.to_dict() for one in kept]
    assert len(rejected) == len(alone) - len(kept)
    assert items[3].links["self"].href == session(3)["_links"]["self"]["href"]


def test_what_the_fast_path_makes_is_a_session_as_any_other() -> None:
    """Frozen, hashable, picklable, to be matched, evolved and taken apart; equal to one made by hand."""
    (fast,), _ = read(array(session(1)))
    assert type(fast) is RestoreSession
    by_hand = RestoreSession(**{f.name: getattr(fast, f.name) for f in attrs.fields(RestoreSession)})
    assert fast == by_hand
    assert hash(fast) == hash(by_hand)
    assert repr(fast) == repr(by_hand)
    assert pickle.loads(pickle.dumps(fast)) == fast
    assert attrs.evolve(fast, name="other").name == "other"
    assert attrs.asdict(fast, recurse=False)["id"] == fast.id
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        fast.name = "other"  # type: ignore[misc]  # it is frozen
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del fast.name
    with pytest.raises(AttributeError):
        fast.shade = "mauve"  # type: ignore[attr-defined]  # it has slots
    match fast:
        case RestoreSession(state=RestoreSessionState.STOPPED, id=key):
            assert key == fast.id
        case _:
            pytest.fail("it does not match")


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"id": "not-a-uuid"}, "$.id", "expected a UUID"),
        ({"id": ""}, "$.id", "expected a UUID"),
        ({"id": None}, "$.id", "expected a text, got null"),
        ({"id": 5}, "$.id", "expected a text, got a number"),
        ({"creationTime": ...}, "$.creationTime", "missing"),
        ({"creationTime": None}, "$.creationTime", "expected a text, got null"),
        ({"creationTime": "0001-01-01T00:00:00"}, "$.creationTime", "a time that stands for 'never'"),
        ({"name": 5}, "$.name", "expected a text, got a number"),
        ({"name": True}, "$.name", "expected a text, got true or false"),
        ({"state": ["Working"]}, "$.state", "expected a text, got a list"),
        ({"eTag": 1.0}, "$.eTag", "expected a whole number, got a number"),
        ({"eTag": True}, "$.eTag", "expected a whole number, got true or false"),
    ],
)
def test_a_wrong_type_is_never_coerced(changes: dict[str, object], path: str, reason: str) -> None:
    """The item is set aside, with the place of the trouble and what is wrong there."""
    items, rejected = read(array(session(1), session(2, **changes), session(3)))
    assert len(items) == 2
    assert [(r.index, r.path, r.reason) for r in rejected] == [(1, path, reason)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-05-12T15:55:20.8557419Z", datetime(2020, 5, 12, 15, 55, 20, 855741, UTC)),
        ("2020-05-12T15:55:20.999999999Z", datetime(2020, 5, 12, 15, 55, 20, 999999, UTC)),
        ("2020-05-12T15:55:20.1Z", datetime(2020, 5, 12, 15, 55, 20, 100000, UTC)),
        ("2020-05-12T15:55:20", datetime(2020, 5, 12, 15, 55, 20, 0, UTC)),
        ("2020-05-12T15:55:20+05:30", datetime(2020, 5, 12, 10, 25, 20, 0, UTC)),
        ("2020-05-12T15:55:20.8557419+00:00", datetime(2020, 5, 12, 15, 55, 20, 855741, UTC)),
        ("0001-01-01T00:00:00", None),
        ("9999-12-31T23:59:59.9999999-01:00", None),
    ],
)
def test_times_are_aware_utc_and_cut_not_rounded(text: str, expected: datetime | None) -> None:
    """Seven and more digits are cut; naive means UTC; .NET's first and last year mean never."""
    items, _ = read(array(session(1, endTime=text)))
    assert items[0].end_time == expected
    assert expected is None or items[0].end_time.utcoffset() == expected.utcoffset()  # type: ignore[union-attr]  # not None, as just seen


@pytest.mark.parametrize(
    "text", ["", "yesterday", "/Date(1530258141191)/", "2020-13-01T00:00:00Z", "2016-12-31T23:59:60Z"]
)
def test_what_is_no_time_is_set_aside(text: str) -> None:
    """A time that cannot be read is no reason to guess one."""
    _, rejected = read(array(session(1, endTime=text)))
    assert [r.path for r in rejected] == ["$.endTime"]


def test_numbers_sent_as_texts_are_numbers() -> None:
    """The vendor's own v8 example writes them so."""
    items, _ = read(page(session(1, eTag="17"), limit="30"))
    assert items[0].etag == 17


def test_property_names_are_read_without_regard_to_case() -> None:
    """Older property tables write `Id` where the examples have `id`."""
    items, _ = read(array({"Id": session(1)["id"], "CreationTime": "2020-01-01T00:00:00Z"}))
    assert items[0].creation_time == datetime(2020, 1, 1, tzinfo=UTC)


def test_half_a_surrogate_pair_does_no_harm() -> None:
    """It becomes U+FFFD, so that the text can be logged and stored; whole pairs stay whole."""
    body = array(session(1, name="NAME")).replace(b"NAME", rb"a\ud800b \ud83d\ude00 \\ud800")
    items, rejected = read(body)
    assert not rejected
    assert items[0].name == "a\ufffdb \U0001f600 \\ud800"
    assert items[0].name.encode()


def test_a_byte_order_mark_is_no_obstacle() -> None:
    """Some servers put one in front of their JSON."""
    items, _ = read(b"\xef\xbb\xbf" + array(session(1)))
    assert len(items) == 1


@pytest.mark.parametrize(
    "body",
    [b"null", b"5", b'"text"', b"{}", b'{"results": null}', b'{"results": {}}', b"<html>", b"[", b"[NaN]",
     b"\xff\xfe[\x00]\x00", b"[" * 100_000, b'{"a":' * 100_000],
)  # fmt: skip
def test_what_is_not_a_listing_is_a_payload_error(body: bytes) -> None:
    """Never an empty listing, and never another kind of exception."""
    with pytest.raises(PayloadError):
        read(body)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 5000])
def test_a_number_that_json_has_not_or_nobody_can_hold_spoils_nothing_else(number: str) -> None:
    """Refused with its body, or set aside with its item; never an infinity, and never another exception."""
    body = array(session(1), session(2, eTag=0)).replace(b'"eTag": 0', f'"eTag": {number}'.encode())
    try:
        items, rejected = read(body)
    except PayloadError:
        return
    assert [len(items), len(rejected)] == [1, 1]


def test_a_text_that_is_not_utf_8_is_set_aside_with_its_item() -> None:
    """Guessing would make a name of it that nobody has."""
    body = json.dumps([session(1, name="\xe9t\xe9"), session(2)], ensure_ascii=False).encode("latin-1")
    items, rejected = read(body)
    assert (len(items), [r.index for r in rejected]) == (1, [0])


@pytest.mark.parametrize("odd", ["Disk full", {"a": 1}, 7])
def test_several_texts_are_a_list_and_nothing_else(odd: object) -> None:
    """Not the letters of one, nor the names of an object's members; with a list, it can be hashed."""
    with pytest.raises(PayloadError, match="expected a list"):
        decode.decode_one(json.dumps({"warnings": odd}).encode(), RestoreSessionStatistics, "vbo1", None)
    body = json.dumps({"warnings": ["Disk full"], "items": [{"a": 1}]}).encode()
    found = decode.decode_one(body, RestoreSessionStatistics, "vbo1", None)
    assert found.warnings == ("Disk full",)
    assert hash(found) == hash(decode.decode_one(body, RestoreSessionStatistics, "vbo1", None))


def test_links_that_no_decoder_can_read_are_found_out_at_once_or_are_none() -> None:
    """Not when somebody looks at them, compares the session, or writes it down."""
    rows = [session(1, _links={"self": {"href": "/v4/\xe9"}}), session(2)]
    items, rejected = read(json.dumps(rows, ensure_ascii=False).encode("latin-1"))
    assert (len(items), [r.index for r in rejected]) == (1, [0])
    body = json.dumps([session(1, _links={"self": {"href": 7}})]).encode().replace(b"7", b"1e400", 1)
    for item in read(body)[0]:
        assert list(item.links) == []
        assert pickle.loads(pickle.dumps(item)) == item  # our own
        json.dumps(item.to_dict(), allow_nan=False)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_an_answer_in_another_encoding_is_refused(encoding: str) -> None:
    """JSON is UTF-8."""
    with pytest.raises(PayloadError):
        read(json.dumps([session(1)]).encode(encoding))


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    """On both paths alike."""
    body = b'[{"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2020-01-01T00:00:00Z",'
    fast, _ = read(body + b'"name": "a", "name": "b"}]')
    tolerant, _ = read(body + b'"name": "a", "name": "b", "shade": 1}]')
    assert fast[0].name == tolerant[0].name == "b"


@pytest.mark.parametrize(
    "text", ["0800471B-D0E2-422B-9D7C-35D15661C3FB", "{0800471b-d0e2-422b-9d7c-35d15661c3fb}"]
)
def test_an_id_is_the_same_however_it_is_written(text: str) -> None:
    """In capitals or in braces, as Windows likes to write it."""
    items, rejected = read(array(session(1, id=text)))
    assert not rejected
    assert str(items[0].id) == "0800471b-d0e2-422b-9d7c-35d15661c3fb"


def test_what_contradicts_itself_is_kept_as_it_came() -> None:
    """It ended before it began, or is Working with an end, or Stopped without: all of them are shown."""
    items, rejected = read(
        array(
            session(1, creationTime="2020-01-02T00:00:00Z", endTime="2020-01-01T00:00:00Z"),
            session(2, state="Working"),
            session(3, state="Stopped", endTime=None),
        )
    )
    assert (len(items), len(rejected)) == (3, 0)
    assert items[0].end_time is not None
    assert items[0].end_time < items[0].creation_time


def test_the_json_test_suite_raises_nothing_but_our_errors() -> None:
    """318 bodies: what must not parse is refused, and nothing but a VboError comes out."""
    with ZipFile(SUITE) as suite:
        cases = {name: suite.read(name) for name in suite.namelist() if name.endswith(".json")}
    assert len(cases) >= 318
    accepted: list[str] = []
    for name, body in cases.items():
        for wrapped in (body, b"[" + body + b"]"):
            try:
                read(wrapped)
                decode.decode_one(wrapped, Resource, "vbo1", None)
            except VboError:
                continue
            if wrapped is body:
                accepted.append(name)
    assert not [name for name in accepted if name.startswith("n_")]


@given(st.binary(max_size=200))
def test_no_bytes_make_anything_but_our_errors(body: bytes) -> None:
    """Whatever comes, it is a listing or a PayloadError."""
    with suppress(PayloadError):
        read(body)


@given(st.integers(0, 600))
def test_json_cut_short_is_a_payload_error_that_may_pass(length: int) -> None:
    """A body that ends too early is worth another try, and never a shorter listing."""
    body = array(session(1), session(2))
    if length < len(body):
        with pytest.raises(PayloadError) as caught:
            read(body[:length])
        assert caught.value.retryable or not length


async def test_ten_thousand_items_leave_the_event_loop_responsive() -> None:
    """They are structured in slices, so a ticker beside them keeps ticking."""
    body = array(*(session(n) for n in range(10_000)))
    slices = 0
    for items, _ in decode.decode_listing(body, RestoreSession, "vbo1", None).slices():
        slices += 1
        assert len(items) <= decode.SLICE
        await asyncio.sleep(0)
    assert slices == 10_000 / decode.SLICE
