"""Bytes to models: what is delivered, what is rejected, and that both paths agree."""

import json
import pickle
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID
from zipfile import ZipFile

import attrs
import pytest
from harness.documents import SESSIONS, V4_EXAMPLE, array, page, session
from hypothesis import given
from hypothesis import strategies as st

from aiovbo import (
    BackupOrganization,
    Organization,
    PayloadError,
    Rejected,
    Resource,
    RestoreSession,
    RestoreSessionEvent,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionStatistics,
    RestoreSessionType,
    VboError,
)
from aiovbo._decoding.listing import SLICE, STEP, decode_listing, decode_one
from aiovbo._resources.structuring import read_tolerant

SUITE = Path(__file__).with_name("json-test-suite.zip")
"""Nicolas Seriot's JSONTestSuite; its license is inside."""


def read(body: bytes) -> tuple[list[RestoreSession], list[Rejected]]:
    """All of a response's sessions, and what was rejected."""
    items: list[RestoreSession] = []
    rejected: list[Rejected] = []
    for some, others in decode_listing(body, RestoreSession, "vbo1", None).slices():
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


def test_of_a_thousand_items_only_the_one_without_an_id_is_rejected() -> None:
    """Unknown states, null results and unknown members pass; a missing id is rejected with its index."""
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
        ({"creationTime": ""}, "$.creationTime", "Invalid isoformat string: ''"),
        ({"creationTime": "2016-12-31T23:59:60Z"}, "$.creationTime", "second must be in 0..59"),
    ],
)
def test_an_item_without_an_id_or_a_creation_time_is_rejected(
    changes: dict[str, object], path: str, reason: str
) -> None:
    """The index, the path and the reason say what is wrong; the other items are delivered."""
    items, rejected = read(array(session(1), session(2, **changes), session(3)))
    assert len(items) == 2
    assert [(r.index, r.path, r.reason) for r in rejected] == [(1, path, reason)]


ODD_VALUES = [5, True, 1.5, ["Working"], {"id": "1", "name": "contoso"}, 2**70]
OPTIONAL = [
    "name",
    "state",
    "endTime",
    "organization",
    "type",
    "result",
    "details",
    "eTag",
    "reason",
    "_links",
]


@pytest.mark.parametrize(
    "value", [*ODD_VALUES, "", "AAAAAAAB2kE=", "yesterday", "1.0", "/Date(1530258141191)/"]
)
@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("change", [str, str.upper])
def test_an_invalid_optional_field_is_none_and_its_value_is_in_extra(
    name: str, value: object, change: Callable[[str], str]
) -> None:
    """Whatever it contains, the session is delivered, and `to_dict` gives back what was received."""
    sent = session(1, name="a")
    sent.pop(name, None)
    sent[change(name)] = value
    (item,), rejected = read(page(sent))
    assert not rejected
    if name == "_links":
        assert not item.links
        assert item.to_dict()["_links"] == value
    elif item.extra:
        assert getattr(item, {"endTime": "end_time", "eTag": "etag"}.get(name, name)) is None
        assert dict(item.extra) == {change(name): value}
        assert item.to_dict()[change(name)] == value
    else:
        # A value of the right kind: any text for most, a number for the eTag.
        assert isinstance(value, int if name == "eTag" else str)
        assert item.to_dict()[name] == value
    assert item == read_tolerant(json.dumps(sent).encode(), RestoreSession, "vbo1", None)


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


def test_numbers_sent_as_texts_are_numbers() -> None:
    """The vendor's own v8 example writes them so."""
    items, _ = read(page(session(1, eTag="17"), limit="30"))
    assert items[0].etag == 17


def test_property_names_are_read_without_regard_to_case() -> None:
    """Older property tables write `Id` where the examples have `id`."""
    items, _ = read(array({"Id": session(1)["id"], "CreationTime": "2020-01-01T00:00:00Z"}))
    assert items[0].creation_time == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_time_may_end_with_a_small_z() -> None:
    """RFC 3339 permits it; no session is rejected for it."""
    items, rejected = read(array(session(1, creationTime="2020-01-01T00:00:00z"), session(2)))
    assert not rejected
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
def test_a_number_that_python_cannot_hold_costs_no_session(number: str) -> None:
    """What is not JSON is refused with its body; any other number is in `extra`, as the received text."""
    body = array(session(1), session(2, eTag=0)).replace(b'"eTag": 0', f'"eTag": {number}'.encode())
    if "N" in number or "I" in number:
        with pytest.raises(PayloadError):
            read(body)
        return
    items, rejected = read(body)
    assert [len(items), len(rejected)] == [2, 0]
    assert items[1].etag is None
    assert items[1].to_dict()["eTag"] == number


@pytest.mark.parametrize("name", ["name", "nóvelty", "_links"])
@pytest.mark.parametrize("count", [1, 2_000])
def test_an_invalid_byte_is_a_replacement_character_in_its_text(name: str, count: int) -> None:
    """No session is rejected for it, and no other text is changed."""
    odd = session(1, **{name: {"self": {"href": "/v4/\xe9"}} if name == "_links" else "\xe9t\xe9"})
    rows = [session(0, name="Ωmega"), odd, *(session(n) for n in range(2, count))]
    body = json.dumps(rows, ensure_ascii=False).encode().replace("\xe9".encode(), b"\xe9")
    items, rejected = read(body)
    assert not rejected
    assert len(items) == len(rows)
    assert items[0].name == "Ωmega"
    kept = items[1].to_dict()[name]
    assert kept == ({"self": {"href": "/v4/\ufffd"}} if name == "_links" else "\ufffdt\ufffd")


@pytest.mark.parametrize("odd", ["Disk full", {"a": 1}, 7])
def test_several_texts_are_a_list_and_nothing_else(odd: object) -> None:
    """Not the letters of one, nor the names of an object's members; with a list, it can be hashed."""
    found = decode_one(json.dumps({"warnings": odd}).encode(), RestoreSessionStatistics, "vbo1", None)
    assert found.warnings == ()
    assert found.to_dict()["warnings"] == odd
    body = json.dumps({"warnings": ["Disk full"], "items": [{"a": 1}]}).encode()
    found = decode_one(body, RestoreSessionStatistics, "vbo1", None)
    assert found.warnings == ("Disk full",)
    assert hash(found) == hash(decode_one(body, RestoreSessionStatistics, "vbo1", None))


@pytest.mark.parametrize("cls", [Organization, BackupOrganization])
@pytest.mark.parametrize("key", [None, "contoso.onmicrosoft.com", 7, ""])
def test_an_organization_is_delivered_whatever_its_id_is(cls: type[Organization], key: object) -> None:
    """Its `id` is None, and what was received is in `extra`; an object that has nothing of it is refused."""
    found = decode_one(json.dumps({"id": key, "name": "contoso"}).encode(), cls, "vbo1", None)
    assert (found.id, found.name) == (None, "contoso")
    assert found.to_dict().get("id") == key
    for other in (b'{"message": "busy"}', page(session(1), _links={"self": {"href": "/v8/x"}})):
        with pytest.raises(PayloadError, match="nothing of"):
            decode_one(other, cls, "vbo1", None)


@pytest.mark.parametrize("value", ["00:00:01", "PT1S", "1 second", "", None, 12, 1.5, {"ticks": 5}, []])
def test_an_event_is_delivered_whatever_its_duration_is(value: object) -> None:
    """A duration that cannot be read is None."""
    sent = {"id": session(1)["id"], "duration": value}
    found = decode_one(json.dumps(sent).encode(), RestoreSessionEvent, "vbo1", None)
    assert found.duration == (timedelta(seconds=1) if value == "00:00:01" else None)
    assert value is None or found.to_dict()["duration"] == value


def test_links_that_python_cannot_hold_are_none() -> None:
    """Their text is kept: a session with them can be compared, pickled and written down."""
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
                decode_one(wrapped, Resource, "vbo1", None)
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


def steps_of(body: bytes, sizes: dict[UUID, int]) -> list[tuple[int, int]]:
    """How many items, and how many bytes of items, each step of decoding a body takes."""
    return [
        (len(items) + len(rejected), sum(sizes.get(item.id, 0) for item in items))
        for items, rejected in decode_listing(body, RestoreSession, "vbo1", None).slices()
    ]


@pytest.mark.parametrize("make", [array, page])
@pytest.mark.parametrize(
    "details",
    ["", "x" * 1_000, "x" * 40_000, "x" * 3_000_000, "\ufffd" * 300],
    ids=lambda text: str(len(text)),
)
def test_a_step_takes_five_hundred_items_or_64_kib(make: Callable[..., bytes], details: str) -> None:
    """Whatever the size of the items is; one that is larger is delivered in a step by itself."""
    count = min(1_200, 4_000_000 // (300 + len(details)))
    documents = [session(n, _links=..., details=details) for n in range(count)]
    sizes = {UUID(one["id"]): len(json.dumps(one)) for one in documents}
    steps = steps_of(make(*documents), sizes)
    assert sum(items for items, _ in steps) == count
    assert all(items <= SLICE for items, _ in steps)
    assert all(size <= STEP or items == 1 for items, size in steps)
    assert len(steps) <= 3 * (sum(sizes.values()) / STEP + count / SLICE) + 1


def test_rejected_and_unusual_items_take_shorter_steps() -> None:
    """They cost up to twenty times as much as others."""
    documents = [session(n, id=..., state="x" * 10) if n % 2 else session(n, shade=[n]) for n in range(800)]
    steps = steps_of(array(*documents), {})
    assert sum(items for items, _ in steps) == 800
    assert max(items for items, _ in steps) <= SLICE // 5


def test_links_of_a_page_that_are_too_long_are_not_read() -> None:
    """But for the next page, and what says that something may be missing."""
    links = {"next": {"href": "/v8/RestoreSessions?offset=1"}, "other": {"href": "x" * STEP}}
    listing = decode_listing(page(session(), _links=links), RestoreSession, "vbo1", None)
    assert listing.next_href == "/v8/RestoreSessions?offset=1"
    assert listing.is_doubtful


CASINGS = [str.upper, str.title, lambda name: name[:1].upper() + name[1:]]


@pytest.mark.parametrize("change", CASINGS)
@pytest.mark.parametrize("count", [2, 2_000])
@pytest.mark.parametrize("cls", [RestoreSession, Resource])
@pytest.mark.parametrize("results", ["results", "Results"])
def test_a_pages_members_are_read_in_any_case(
    change: Callable[[str], str], count: int, cls: type[Resource], results: str
) -> None:
    """Also where only the link to the next page is written otherwise: its page is not the last one."""
    document = {
        change("limit"): count,
        change("totalCount"): "9000",
        results: [session(n) for n in range(count)],
        change("_links"): {"next": {"href": "/v8/RestoreSessions?offset=2"}},
    }
    listing = decode_listing(json.dumps(document).encode(), cls, "vbo1", None)
    assert sum(len(items) for items, _ in listing.slices()) == count
    assert (listing.limit, listing.total) == (count, 9000)
    assert listing.next_href == "/v8/RestoreSessions?offset=2"
    assert not listing.is_doubtful


def test_of_a_pages_member_that_comes_in_two_cases_the_documented_one_counts() -> None:
    """In any order."""
    for rows in ({"Results": [], "results": [session(1)]}, {"results": [session(1)], "RESULTS": []}):
        items, _ = read(json.dumps(rows).encode())
        assert len(items) == 1
