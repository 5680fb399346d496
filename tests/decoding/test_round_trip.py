"""What a server sends and what a model has: both paths agree, and nothing gets out of reach."""

import json
import pickle
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from harness.documents import (
    MORE,
    NEVER,
    array,
    documents_of,
    in_odd_case,
    mutated,
    page,
    session,
    sessions,
    timespan,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from aiovbo import ConfigError, RestoreSession, RestoreSessionEvent, RestoreSessionStatistics, models
from aiovbo._core.query import Rejected
from aiovbo._decoding.listing import decode_listing, decode_one
from aiovbo._resources.structuring import CLIENT_FIELDS, api_name, parse_time, read_tolerant
from aiovbo.models import Model

VERSIONS = ["v4", "v5", "v6", "v7", "v8"]
# Not its subclasses: attrs makes each class twice, and the first lives on until the garbage collector comes.
MODELS = [kind for kind in vars(models).values() if isinstance(kind, type) and kind.__base__ is Model]


def read(body: bytes) -> list[RestoreSession | Rejected]:
    """What a listing's answer holds, by the path that it takes of itself."""
    listing = decode_listing(body, RestoreSession, "vbo1", None)
    found: list[RestoreSession | Rejected] = []
    for items, rejected in listing.slices():
        found += [*items, *rejected]
    return found


def assert_the_same(fast: object, tolerant: object) -> None:
    """Equal, and so is everything that equality does not look at."""
    assert fast == tolerant
    assert type(fast) is type(tolerant)
    if not isinstance(fast, RestoreSession) or not isinstance(tolerant, RestoreSession):
        return
    assert hash(fast) == hash(tolerant)
    assert repr(fast) == repr(tolerant)
    assert fast.extra == tolerant.extra
    assert fast.links == tolerant.links
    assert fast.to_dict() == tolerant.to_dict()
    for field in attrs.fields(RestoreSession):
        ours, theirs = getattr(fast, field.name), getattr(tolerant, field.name)
        assert type(ours) is type(theirs)
        if isinstance(ours, datetime):
            assert ours.tzinfo is theirs.tzinfo is UTC
    assert pickle.loads(pickle.dumps(fast)) == pickle.loads(pickle.dumps(tolerant))


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_the_fast_and_the_tolerant_path_give_equal_objects(version: str, data: st.DataObject) -> None:
    """Nulls, unknown members, odd case, seven digits, naive times, years 1 and 9999; or both refuse it."""
    known = sessions(version)
    document = data.draw(st.one_of(known, in_odd_case(known)))
    document = {**data.draw(st.one_of(st.just({}), MORE)), **document}
    tolerant = read_tolerant(json.dumps(document).encode(), RestoreSession, "vbo1", None)
    for body in (array(document), page(document), b" " * 500_000 + array(document)):
        (fast,) = read(body)
        if isinstance(fast, Rejected):
            assert isinstance(tolerant, Rejected)
            assert (fast.path, fast.reason) == (tolerant.path, tolerant.reason)
        else:
            assert_the_same(fast, tolerant)


@pytest.mark.parametrize("version", ["v4", "v8"])
@given(data=st.data())
def test_whatever_optional_members_contain_both_paths_deliver_the_session(
    version: str, data: st.DataObject
) -> None:
    """Nulls, other types, absent members, another case and unknown members; and nothing received is lost."""
    document = data.draw(mutated(sessions(version)))
    tolerant = read_tolerant(json.dumps(document).encode(), RestoreSession, "vbo1", None)
    assert isinstance(tolerant, RestoreSession)
    beside = session(0)
    for body in (array(document), page(document, beside), b" " * 500_000 + array(beside, document)):
        found = [one for one in read(body) if not isinstance(one, RestoreSession) or one.id == tolerant.id]
        assert len(found) == 1
        assert_the_same(found[0], tolerant)
    kept = tolerant.to_dict()
    for key, value in tolerant.extra.items():
        assert kept[key] == document[key] == value
    for key, value in document.items():
        assert value is None or value in NEVER or key in kept or api_name_of(key) in kept
    assert_the_same(RestoreSession.from_dict(kept, server="vbo1"), tolerant)


def api_name_of(key: str) -> str:
    """The documented name of a member that came in another case."""
    names = {name.casefold(): name for name in (*kinds_of(RestoreSession), "_links")}
    return names.get(key.casefold(), key)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@given(data=st.data())
def test_every_resource_survives_invalid_members(model: type[Model], data: st.DataObject) -> None:
    """Only what identifies it is required; `to_dict` has what was received, and is read as the same again."""
    document = data.draw(mutated(documents_of(model)))
    found = read_tolerant(json.dumps(document).encode(), model, "vbo1", None)
    if isinstance(found, Rejected):
        # An organization of which nothing was sent.
        assert found.path == "$"
        return
    kept = json.loads(json.dumps(found.to_dict()))
    again = model.from_dict(kept, server="vbo1")
    assert again == found
    assert again.to_dict() == kept
    assert again.extra == found.extra


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_a_session_exactly_as_documented_takes_the_fast_path(version: str, data: st.DataObject) -> None:
    """Otherwise the two would agree because there is only one of them."""
    document = data.draw(sessions(version))
    assume(
        isinstance(read_tolerant(json.dumps(document).encode(), RestoreSession, "vbo1", None), RestoreSession)
    )
    assume(not isinstance(document.get("eTag"), str))
    assume(abs(document.get("eTag") or 0) < 2**63)
    for body in (array(document), page(document)):
        listing = decode_listing(body, RestoreSession, "vbo1", None)
        assert listing.sessions is not None


def kinds_of(model: type[Model]) -> dict[str, str]:
    """What a model's fields hold, by the API's names."""
    return {api_name(f.name): str(f.type) for f in attrs.fields(model) if f.name not in CLIENT_FIELDS}


def as_it_is_kept(kind: str, value: Any) -> object:
    """A member's value, as far as a model keeps it."""
    if not isinstance(value, str):
        return value
    if "timedelta" in kind:
        # Of seven digits the last is cut, and a fraction that is none is not written.
        whole, point, fraction = re.fullmatch(r"(.*:\d\d)(\.?)(\d*)", value).groups()  # type: ignore[union-attr]  # it is a duration
        return whole.lstrip("-"), (fraction[:6] if point else "").rstrip("0")
    if "datetime.datetime" in kind:
        return parse_time(value)
    if "bool" in kind:
        return value.lower() == "true"
    if "int" in kind:
        return int(value)
    return value.casefold() if "enums." in kind else value


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@given(data=st.data())
def test_nothing_that_a_server_sends_is_out_of_reach(model: type[Model], data: st.DataObject) -> None:
    """Every member is in `to_dict`, by the API's own name, as plain JSON; read again it is the same value."""
    sent = data.draw(documents_of(model))
    # An object with nothing of an organization is not one.
    known = {key.casefold() for key, value in sent.items() if value is not None}
    assume("Organization" not in model.__name__ or known & set(map(str.casefold, kinds_of(model))))
    found = decode_one(json.dumps(sent).encode(), model, "vbo1", None)
    kept = json.loads(json.dumps(found.to_dict()))
    again = decode_one(json.dumps(kept).encode(), model, "vbo1", None)
    assert again == found
    assert again.to_dict() == kept == found.raw.to_dict()
    kinds = kinds_of(model)
    documented = {name.casefold(): name for name in kinds}
    for key, value in sent.items():
        name = documented.get(key.casefold(), key)
        if key != name and name in sent:
            name = key
        kind = kinds.get(name, "")
        if value is None and (kind or name == "_links"):
            assert not kept.get(name)
        else:
            assert as_it_is_kept(kind, kept[name]) == as_it_is_kept(kind, value)


@given(st.integers(-(10**15), 10**15))
def test_a_duration_is_kept_to_the_microsecond(ticks: int) -> None:
    """As .NET writes it, in ticks of which there are ten to the microsecond; the last digit is cut."""
    sent = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "duration": timespan(ticks)}
    event = decode_one(json.dumps(sent).encode(), RestoreSessionEvent, "vbo1", None)
    micros = abs(ticks) // 10
    assert event.duration == timedelta(microseconds=-micros if ticks < 0 else micros)


@given(st.integers(2**53, 2**70))
def test_an_items_size_is_exact_however_large(size: int) -> None:
    """Beyond 2^53 a number that was a float on its way would have lost its last digits."""
    for written in (size, str(size)):
        sent = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "itemSizeBytes": written}
        event = decode_one(json.dumps(sent).encode(), RestoreSessionEvent, "vbo1", None)
        assert event.item_size_bytes == size
        assert json.loads(json.dumps(event.to_dict()))["itemSizeBytes"] == size


def test_a_copy_that_is_changed_changes_nothing_else() -> None:
    """What `to_dict` gives is the caller's own, down to the last list."""
    sent = {
        "id": "0800471b-d0e2-422b-9d7c-35d15661c3fb",
        "creationTime": "2026-01-01T00:00:00.000000Z",
        "novelty": [{"a": [1]}],
        "_links": {"self": {"href": "/v8/x", "templated": True}},
    }
    found = decode_one(json.dumps(sent).encode(), RestoreSession, "vbo1", None)
    copy = found.to_dict()
    copy["novelty"][0]["a"].append(2)
    copy["_links"]["self"]["href"] = "/v8/y"
    assert found.to_dict() == sent


def test_a_copy_of_statistics_is_the_callers_own_too() -> None:
    """Their items are mappings as the server sent them."""
    sent = {"items": [{"status": "Success", "path": ["a"]}], "warnings": [], "errors": []}
    figures = decode_one(json.dumps(sent).encode(), RestoreSessionStatistics, "vbo1", None)
    figures.to_dict()["items"][0]["path"].append("b")
    assert figures.to_dict() == {**sent, "_links": {}}


def test_of_a_name_that_comes_in_two_cases_neither_is_lost() -> None:
    """The documented one is the field, the other is kept beside it."""
    sent = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00.000000Z"}
    for document in ({"Name": "a", "name": "b", **sent}, {"name": "b", "Name": "a", **sent}):
        (found,) = read(array(document))
        assert isinstance(found, RestoreSession)
        assert found.name == "b"
        assert dict(found.extra) == {"Name": "a"}


@pytest.mark.parametrize("name", ["RELATIONS", "extra", "server", "raw", "links", "has_ended"])
def test_a_member_that_is_called_as_something_of_ours_is_kept(name: str) -> None:
    """On both paths; it is the server's, and overwrites nothing."""
    sent = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00Z"}
    sent[name] = "its own"
    (fast,) = read(array(sent))
    assert isinstance(fast, RestoreSession)
    assert dict(fast.extra) == {name: "its own"}
    assert_the_same(fast, read_tolerant(json.dumps(sent).encode(), RestoreSession, "vbo1", None))


def test_a_document_that_is_not_a_session_is_refused_by_from_dict() -> None:
    """The error says what is missing."""
    sent = {"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "creationTime": "2026-01-01T00:00:00Z"}
    with pytest.raises(ConfigError, match=r"not a RestoreSession: missing @ \$\.creationTime"):
        RestoreSession.from_dict({"id": sent["id"]})
    with pytest.raises(ConfigError, match="not a RestoreSession"):
        RestoreSession.from_dict(5)  # type: ignore[arg-type]  # the point


def test_from_dict_takes_a_copy() -> None:
    """A change of the document changes no session."""
    sent: dict[str, Any] = {
        "id": "0800471b-d0e2-422b-9d7c-35d15661c3fb",
        "creationTime": "2026-01-01T00:00:00.000000Z",
        "novelty": [1],
        "_links": {"self": {"href": "/v8/x"}},
    }
    found = RestoreSession.from_dict(sent, server="vbo1")
    sent["novelty"].append(2)
    sent["_links"].clear()
    assert found.server == "vbo1"
    assert found.extra["novelty"] == [1]
    assert found.links["self"].href == "/v8/x"
