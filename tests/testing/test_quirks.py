"""Each quirk, observed with a plain client."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import pytest

from aiovbo.testing import QUIRK_NAMES, Quirks, World
from aiovbo.testing._times import to_text

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
PATH = "/v8/RestoreSessions"


def frozen(sessions=4):
    return World(1, now=START, speed=0, sessions=sessions)


@pytest.fixture
def odd(connect):
    """A logged-in client of a server with these quirks."""

    async def make(world=None, *names, **options):
        quirks = Quirks.named(*names) if names else Quirks(**options)
        return await connect(frozen() if world is None else world, quirks=quirks)

    return make


async def ids(client, **params):
    answer = await client.get(PATH, **params)
    assert answer.status == 200, answer
    return [one["id"] for one in answer.body["results"]]


def keys(world):
    return [str(one.id) for one in world.sessions]


async def reported(client, token):
    answer = await client.get("/v8/Events", **{"from": token})
    return [one["id"] for one in answer.body["results"] if one["eventType"].startswith("RestoreSession")], (
        answer.body["nextChangeToken"]
    )


async def latest(client):
    return (await reported(client, "latest"))[1]


async def test_late_rows_are_listed_some_time_after_their_start(odd):
    """Until then no list has the session; the change feed reports it at once."""
    client = await odd(None, "late-rows")
    world, token = client.server.world, await latest(client)
    added = str(world.add(end_time=None).id)
    assert added not in await ids(client)
    assert (await reported(client, token))[0] == [added]
    world.advance(timedelta(seconds=31))
    assert added in await ids(client)


async def test_earlier_rows_appear_below_listed_ones(odd):
    """Every second session is late, so that it has an earlier time than what was listed before."""
    client = await odd(frozen(0), "earlier-rows")
    world = client.server.world
    for _ in range(8):
        world.advance(timedelta(seconds=1))
        world.add(end_time=None)
    first = await ids(client)
    world.advance(timedelta(seconds=40))
    second = await ids(client)
    assert 0 < len(first) < len(second) == 8
    assert any(second.index(key) > second.index(first[0]) for key in set(second) - set(first))


async def test_duplicate_rows_begin_each_later_page(odd):
    """The last row of the page before is there once more."""
    client = await odd(None, "duplicate-rows")
    all_ids = keys(client.server.world)
    assert await ids(client, limit="2") == all_ids[:2]
    assert await ids(client, limit="2", offset="2") == all_ids[1:4]


@pytest.mark.parametrize("count", range(1, 9))
async def test_all_rows_are_on_pages_that_are_linked_where_some_are_repeated(odd, count):
    """However many there are: a repeated row does not take the place of another."""
    client = await odd(frozen(count), "duplicate-rows")
    found, offset = [], 0
    while offset is not None:
        page = (await client.get(PATH, limit="3", offset=str(offset))).body
        found += [one["id"] for one in page["results"]]
        offset = offset + 3 if "next" in page["_links"] else None
    assert set(found) == set(keys(client.server.world))


async def test_moving_rows_push_others_to_the_next_page(odd):
    """A session begins before the second page is read."""
    client = await odd(None, "moving-rows")
    first = await ids(client, limit="2")
    second = await ids(client, limit="2", offset="2")
    assert second[0] == first[1]


async def test_a_capped_list_ends_without_a_next_link(odd):
    """More rows than the cap are left out."""
    client = await odd(frozen(12), "list-cap")
    page = (await client.get(PATH, limit="30")).body
    assert len(page["results"]) == 10
    assert "next" not in page["_links"]


@pytest.mark.parametrize(("name", "key"), [("oldest-first", "creation_ticks"), ("sorted-by-id", "id")])
async def test_lists_have_an_order_of_their_own(odd, name, key):
    """Whatever is requested."""
    client = await odd(None, name)
    expected = [
        str(one.id) for one in sorted(client.server.world.sessions, key=lambda one: getattr(one, key))
    ]
    for params in ({}, {"orderBy": "CreationTime", "orderAsc": "false"}):
        assert await ids(client, **params) == expected


async def test_inclusive_bounds_list_what_lies_at_them(odd):
    """Both bounds of the start, and of the end."""
    client = await odd(None, "inclusive-bounds")
    session = client.server.world.sessions[1]
    for word, ticks in (("start", session.creation_ticks), ("end", session.end_ticks)):
        at = to_text(ticks)
        assert await ids(client, **{f"{word}TimeFrom": at, f"{word}TimeTo": at}) == [str(session.id)]


async def test_next_links_may_lack_the_filter(odd):
    """They have nothing but offset and limit."""
    client = await odd(None, "next-without-filter")
    page = (await client.get(PATH, limit="1", startTimeFrom="2020-01-01T00:00:00Z")).body
    assert page["_links"]["next"]["href"] == f"{PATH}?offset=1&limit=1"


@pytest.mark.parametrize(("name", "hours"), [("clock-ahead", 1), ("clock-behind", -1)])
async def test_a_skewed_clock_shows_in_dates_times_and_filters(odd, name, hours):
    """By an hour."""
    client = await odd(frozen(1), name)
    (session,) = client.server.world.sessions
    answer = await client.get(PATH)
    ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)
    assert abs(ahead - timedelta(hours=hours)) < timedelta(minutes=5)
    shown = session.creation_ticks + hours * 36_000_000_000
    assert answer.body["results"][0]["creationTime"] == to_text(shown)
    assert len(await ids(client, startTimeFrom=to_text(shown - 1), startTimeTo=to_text(shown + 1))) == 1
    assert (await client.get(f"{PATH}/{session.id}")).body == answer.body["results"][0]


@pytest.mark.parametrize(("name", "hours"), [("clock-jumps", 1), ("clock-jumps-back", -1)])
async def test_a_clock_jumps_after_some_requests(odd, name, hours):
    """What began before keeps its time; what begins later has a time of the other clock."""
    client = await odd(frozen(1), name)
    world = client.server.world
    (old,) = world.sessions
    dates = [parsedate_to_datetime((await client.get(PATH)).headers["Date"]) for _ in range(4)]
    assert abs(dates[3] - dates[2] - timedelta(hours=hours)) < timedelta(minutes=5)
    new = world.add(end_time=None)
    times = {one["id"]: one["creationTime"] for one in (await client.get(PATH)).body["results"]}
    assert times[str(old.id)] == to_text(old.creation_ticks)
    assert times[str(new.id)] == to_text(new.creation_ticks + hours * 36_000_000_000)


async def test_a_feed_skips_events(odd):
    """Of several changes it reports some."""
    client = await odd(None, "feed-skips")
    world, token = client.server.world, await latest(client)
    added = [str(world.add(end_time=None).id) for _ in range(4)]
    found, _ = await reported(client, token)
    assert set(found) < set(added)


async def test_a_feed_delays_events(odd):
    """An event is reported when the next one has happened."""
    client = await odd(None, "feed-delays")
    world, token = client.server.world, await latest(client)
    one = str(world.add(end_time=None).id)
    found, token = await reported(client, token)
    assert found == []
    world.add(end_time=None)
    assert (await reported(client, token))[0] == [one]


async def test_a_feed_repeats_events(odd):
    """Each is there twice."""
    client = await odd(None, "feed-repeats")
    token = await latest(client)
    added = str(client.server.world.add(end_time=None).id)
    assert (await reported(client, token))[0] == [added, added]


async def test_a_feed_reports_a_session_before_lists_have_it(odd):
    """Two seconds earlier."""
    client = await odd(None, "feed-early")
    world, token = client.server.world, await latest(client)
    added = str(world.add(end_time=None).id)
    assert (await reported(client, token))[0] == [added]
    assert added not in await ids(client)
    world.advance(timedelta(seconds=3))
    assert added in await ids(client)


async def test_a_feed_responds_immediately(odd):
    """A long poll of an hour does not wait."""
    client = await odd(None, "feed-immediate")
    async with asyncio.timeout(60):
        answer = await client.get("/v8/Events", timeoutSeconds="3600", **{"from": "latest"})
    assert (answer.status, answer.body["results"]) == (200, [])


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("feed-4xx", 400, "application/json"),
        ("feed-5xx", 500, "application/json"),
        ("feed-empty", 200, ""),
        ("feed-html", 200, "text/html"),
    ],
)
async def test_a_feed_responds_with_something_else(odd, name, status, kind):
    """Lists work meanwhile."""
    client = await odd(None, name)
    answer = await client.get("/v8/Events", **{"from": "latest"})
    assert answer.status == status
    assert answer.headers.get("Content-Type", "").startswith(kind)
    assert (answer.body == b"") == (name == "feed-empty")
    assert len(await ids(client)) == 4


async def test_change_tokens_expire_at_once(odd):
    """Each is outdated when it is used; `latest` works."""
    client = await odd(None, "expired-tokens")
    answer = await client.get("/v8/Events", **{"from": await latest(client)})
    assert (answer.status, answer.body["errorCode"]) == (400, "OutdatedChangeToken")


async def test_fields_are_null_absent_or_of_another_type_or_case(odd):
    """In lists and in one session."""
    shown = {}
    for name in ("null", "absent", "type", "case"):
        client = await odd(frozen(1), f"fields-{name}")
        (session,) = client.server.world.sessions
        shown[name] = (await client.get(PATH)).body["results"][0]
        assert (await client.get(f"{PATH}/{session.id}")).body == shown[name]
    assert (shown["null"]["result"], shown["null"]["organization"]) == (None, None)
    assert not {"result", "organization", "initiatedBy"} & shown["absent"].keys()
    assert (shown["type"]["eTag"], shown["type"]["result"]) == (str(session.etag), [session.result])
    assert (shown["case"]["State"], shown["case"]["Type"]) == ("stopped", session.type.lower())
    assert "state" not in shown["case"]


@pytest.mark.parametrize(
    ("name", "statuses"), [("upgraded", [404, 404, 404, 200]), ("downgraded", [200, 200, 200, 404])]
)
async def test_the_api_version_changes_in_place(connect, name, statuses):
    """After some requests v8 is served, or is no longer; v7 is all the time."""
    client = await connect(frozen(), quirks=Quirks.named(name), log_in=False)
    await client.log_in("v7")
    assert [(await client.get(PATH)).status for _ in range(4)] == statuses
    assert (await client.get("/v7/RestoreSessions")).status == 200


async def test_a_server_is_restored_from_an_older_state(odd):
    """After some requests it is as it was at the first one: later sessions no longer exist."""
    client = await odd(None, "restored")
    before = await ids(client)
    added = str(client.server.world.add(end_time=None).id)
    assert [added in await ids(client) for _ in range(3)] == [True, True, False]
    assert await ids(client) == before


def test_quirks_are_named_and_combined():
    """Every name makes a quirk of its own; an unknown one is rejected with those that exist."""
    made = [Quirks.named(name) for name in QUIRK_NAMES]
    assert all(quirks != Quirks() for quirks in made)
    assert Quirks.named("list-cap", "duplicate-rows") == Quirks(list_cap=10, duplicate_rows=True)
    with pytest.raises(ValueError, match=r"no quirk 'x'; there are late-rows, .*restored"):
        Quirks.named("x")
