"""The world of sessions: plausible, repeatable, moving with time."""

import statistics
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from aiovbo.testing import World
from aiovbo.testing._times import to_text, to_ticks

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def frozen(seed=0, **options):
    return World(seed, now=START, speed=0, **options)


def test_same_seed_and_instants_give_the_same_world_whatever_the_stepping():
    """One jump, many small steps and steps with looks in between end in equal sessions."""
    jump, steps, looks = frozen(7), frozen(7), frozen(7)
    jump.advance(3 * DAY)
    for _ in range(72):
        steps.advance(timedelta(hours=1))
    for _ in range(6):
        looks.advance(timedelta(hours=12))
        assert looks.sessions
    assert jump.sessions == steps.sessions == looks.sessions
    assert len(jump.sessions) > 40


def test_what_is_added_by_hand_does_not_change_what_chance_draws():
    """The drawn sessions are the same with and without one added."""
    plain, touched = frozen(), frozen()
    added = touched.add()
    plain.advance(7 * DAY)
    touched.advance(7 * DAY)
    assert [one for one in touched.sessions if one.id != added.id] == plain.sessions


def test_other_seeds_give_other_worlds():
    """Two seeds share no session."""
    assert not {one.id for one in frozen(1).sessions} & {one.id for one in frozen(2).sessions}


def test_sessions_lie_in_the_span_before_the_start_newest_first():
    """The start has as many sessions as asked for, ordered by creation."""
    times = [one.creation_time for one in frozen(sessions=200, span=2 * DAY).sessions]
    assert len(times) == 200
    assert times == sorted(times, reverse=True)
    assert START - 2 * DAY <= times[-1] < times[0] <= START


def test_new_sessions_come_at_the_rate_of_the_past():
    """Ten spans bring about ten times as many sessions."""
    world = frozen(sessions=50, span=DAY)
    world.advance(10 * DAY)
    assert 400 < len(world.sessions) - 50 < 600


def test_world_is_plausible():
    """All types come, most sessions succeed, typical lengths are minutes to hours."""
    world = frozen(sessions=1000, span=90 * DAY)
    world.advance(DAY)
    ended = [one for one in world.sessions if one.state == "Stopped"]
    assert {one.type for one in ended} == {"Vex", "Veod", "Vesp", "Vet"}
    results = [one.result for one in ended]
    assert 0.75 < results.count("Success") / len(results) < 0.95
    assert {"Warning", "Failed"} <= set(results)
    lengths = [one.end_time - one.creation_time for one in ended]
    assert timedelta(minutes=15) < statistics.median(lengths) < timedelta(minutes=40)
    assert max(lengths) > timedelta(hours=2)
    assert {"\\" in one.initiated_by for one in ended} == {True, False}
    assert any(one.creation_ticks % 10 for one in ended)


def test_session_works_until_its_end_and_then_has_stopped():
    """State, result, end and eTag change at the planned end and not before."""
    world = frozen(sessions=0)
    session = world.add(end_time=START + timedelta(hours=1), result="Failed")
    assert (session.state, session.result, session.end_time) == ("Working", "Success", None)
    world.advance(timedelta(minutes=59))
    assert world.session(session.id) == session
    world.advance(timedelta(minutes=1))
    ended = world.session(session.id)
    assert (ended.state, ended.result) == ("Stopped", "Failed")
    assert ended.end_time == START + timedelta(hours=1)
    assert ended.etag == session.etag + 1


def test_session_added_takes_any_field_as_given():
    """Every field can be given, times also as text with seven digits, states of any text."""
    fields = {
        "id": UUID(int=5),
        "type": "Vnew",
        "creation_time": "2020-05-12T15:55:20.8557416Z",
        "end_time": "2020-05-12T16:55:20.9999999Z",
        "state": "Stopping",
        "result": None,
        "name": None,
        "organization": "o",
        "initiated_by": "i",
        "details": "d",
        "scope_name": "s",
        "client_host": "c",
        "reason": "r",
        "etag": 77,
    }
    session = frozen().add(**fields)
    assert to_text(session.creation_ticks) == fields.pop("creation_time")
    assert to_text(session.end_ticks) == fields.pop("end_time")
    assert session.creation_time == datetime(2020, 5, 12, 15, 55, 20, 855741, tzinfo=UTC)
    assert {name: getattr(session, name) for name in fields} == fields


def test_session_added_without_an_end_works_indefinitely():
    """With `end_time=None` no time ends it."""
    world = frozen(sessions=0)
    session = world.add(end_time=None)
    world.advance(1000 * DAY)
    assert world.session(session.id).state == "Working"


@pytest.mark.parametrize("state", ["Stopped", "Starting", "Working"])
def test_session_added_with_a_state_keeps_it(state):
    """A given state holds at once and later; only a stopped session has an end."""
    world = frozen(sessions=0)
    for later in (timedelta(0), DAY):
        session = world.add(state=state)
        world.advance(later)
        assert world.session(session.id).state == state
        assert (session.end_time is not None) == (state == "Stopped")
    assert session.end_time is None or session.end_time >= session.creation_time


def test_change_and_removal_are_seen_at_once():
    """A changed session has a greater eTag; a removed one is gone."""
    world = frozen()
    first = world.sessions[0]
    changed = world.change(first.id, result="Warning", end_time=START, state="Stopped")
    assert world.session(first.id) == changed
    assert (changed.etag, changed.end_time) == (first.etag + 1, START)
    world.remove(first.id)
    assert first.id not in {one.id for one in world.sessions}
    for ask in (world.session, world.remove, world.change):
        with pytest.raises(KeyError):
            ask(first.id)


def test_impossible_orders_are_refused():
    """A taken ID, a naive time, a step back and an empty span raise ValueError."""
    world = frozen()
    taken = world.sessions[0].id
    naive = START.replace(tzinfo=None)
    for order in (
        lambda: world.add(id=taken),
        lambda: world.add(creation_time=naive),
        lambda: world.add(creation_time="yesterday"),
        lambda: world.advance(-DAY),
        lambda: World(span=timedelta(0)),
        lambda: World(sessions=-1),
        lambda: World(speed=-1),
        lambda: World(organizations=()),
    ):
        with pytest.raises(ValueError, match=r"\S"):
            order()


def test_clock_runs_with_real_time_unless_frozen():
    """At a million-fold speed hours pass at once; at speed 0 nothing does."""
    fast, still = World(now=START, speed=1e9), frozen()
    before = fast.now
    assert before > START
    assert fast.now > before
    assert still.now == START
    assert abs(World().now - datetime.now(UTC)) < timedelta(minutes=1)


def test_organizations_are_those_given():
    """Every session restores from one of the world's organizations."""
    assert {one.organization for one in frozen(organizations=["only"]).sessions} == {"only"}


def test_threads_see_one_world():
    """Many threads that look at a running world draw no session twice."""
    fast, steady = World(3, now=START, speed=0), World(3, now=START, speed=0)
    fast.advance(365 * DAY)
    steady.advance(365 * DAY)
    with ThreadPoolExecutor(8) as threads:
        views = list(threads.map(lambda _: fast.sessions, range(32)))
    assert all(view == steady.sessions for view in views)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2020-05-12T15:55:20.8557416Z", "2020-05-12T15:55:20.8557416Z"),
        ("2020-05-12T17:55:20.5+02:00", "2020-05-12T15:55:20.5000000Z"),
        ("2020-05-12 15:55:20", "2020-05-12T15:55:20.0000000Z"),
        ("2020-05-12", "2020-05-12T00:00:00.0000000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.0000000Z"),
    ],
)
def test_instants_are_written_with_seven_digits(text, same):
    """Whatever precision and zone came in, UTC with 100 ns goes out."""
    assert to_text(to_ticks(text)) == same


def test_details_agree_with_a_result_that_was_given():
    """They are not the drawn ones of another result; details that were given stay."""
    world = World(sessions=0, speed=0)
    failed = [world.add(end_time=world.now, result="Failed") for _ in range(20)]
    assert {one.details for one in failed} == {"Restore failed: the target could not be found."}
    assert world.change(failed[0].id, result="Success").details == "All items were processed."
    assert world.add(end_time=world.now, result="Failed", details="No space.").details == "No space."
    assert world.add(end_time=None, result="Failed").details == ""
