"""The change feed of v8: what it reports, how it waits, and what it forgets."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import aiohttp
import pytest
from harness.contract import Contract, our_document, vendors_document

from aiovbo.testing import BackupServer, Fault, World

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = "/v8/Events"
SOON = 10.0
"""Seconds that are little beside the 30 for which a poll waits, also on a busy machine."""


def frozen(**options):
    return World(now=START, speed=0, **({"sessions": 0} | options))


def changes_in(body):
    """What a body says of restore sessions: ID and eTag, None for one that went."""
    sessions = [one for one in body["results"] if one["eventType"].startswith("RestoreSession")]
    assert all((one["eventType"] == "RestoreSessionDelete") == ("eTag" not in one) for one in sessions)
    return [(UUID(one["id"]), one.get("eTag")) for one in sessions]


async def since(client, token, **params):
    """One answer of the feed, which must be as documented."""
    params = {"from": token} | params
    answer = await client.get(PATH, **params)
    for document in (our_document("v8"), vendors_document("v8")):
        if document is not None:
            contract = Contract(document)
            contract.check_answer("GET", PATH, answer.status, answer.body)
    return answer


async def latest(client):
    answer = await since(client, "latest")
    assert (answer.status, answer.body["results"]) == (200, [])
    return answer.body["nextChangeToken"]


def poll(client, *, after="latest", seconds=30):
    return asyncio.create_task(since(client, after, timeoutSeconds=seconds))


async def waits(client, task):
    """Returns once the poll waits at the server."""
    before = len(client.server.requests)
    while len(client.server.requests) == before:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.12)
    assert not task.done()


async def refusal(client, token):
    answer = await since(client, token)
    return answer.status, answer.body["errorCode"]


OUTDATED = (400, "OutdatedChangeToken")
INVALID = (400, "ParameterValidationFailure")


async def test_added_changed_finished_and_removed_sessions_are_reported_in_order(connect):
    """Each once, with the eTag that the session had after it; ends come by time alone."""
    client = await connect(frozen())
    world, token = client.server.world, await latest(client)
    first = world.add(end_time=START + 2 * HOUR)
    second = world.add(end_time=START + HOUR)
    third = world.add(end_time=None)
    third = world.change(third.id, reason="more")
    world.advance(3 * HOUR)
    world.remove(first.id)
    body = (await since(client, token)).body
    assert changes_in(body) == [
        (first.id, first.etag),
        (second.id, second.etag),
        (third.id, third.etag - 1),
        (third.id, third.etag),
        (second.id, second.etag + 1),
        (first.id, first.etag + 1),
        (first.id, None),
    ]
    assert {one.id: one.etag for one in world.sessions} == {
        second.id: second.etag + 1,
        third.id: third.etag,
    }


async def test_sessions_that_begin_by_themselves_are_reported(connect):
    """Who follows the feed from the start knows all sessions and their eTags; IDs that change too."""
    world = frozen(sessions=50)
    client = await connect(world)
    token = await latest(client)
    known = {one.id: one.etag for one in world.sessions}
    for _ in range(20):
        world.advance(12 * HOUR)
        moved = world.change(world.sessions[0].id, id=uuid4())
        body = (await since(client, token, limit=10_000)).body
        token = body["nextChangeToken"]
        for key, etag in changes_in(body):
            if etag is None:
                del known[key]
            else:
                known[key] = etag
        assert moved.id in known
        assert known == {one.id: one.etag for one in world.sessions}
    assert len(known) > 60


async def test_what_a_client_does_to_a_session_is_reported_too(connect):
    """Explored and stopped over the API."""
    client = await connect(frozen())
    token = await latest(client)
    begun = (await client.ask("POST", "/v8/Organization/Explore", json={"type": "Vex"})).body
    await client.ask("POST", f"/v8/RestoreSessions/{begun['id']}/Stop")
    key = UUID(begun["id"])
    assert changes_in((await since(client, token)).body) == [(key, begun["eTag"]), (key, begun["eTag"] + 1)]


async def test_events_of_other_kinds_lie_between(connect):
    """Of several types, none of restore sessions, the same when asked for again."""
    client = await connect(frozen())
    token = await latest(client)
    for _ in range(40):
        client.server.world.add()
    results = (await since(client, token, limit=100)).body["results"]
    kinds = [one["eventType"] for one in results]
    assert kinds.count("RestoreSessionUpdate") == 40
    assert set(kinds) - {"RestoreSessionUpdate"} == {
        "JobSessionUpdate",
        "RestorePointUpdate",
        "JobDelete",
        "OrganizationUserDelete",
    }
    assert (await since(client, token, limit=100)).body["results"] == results


@pytest.mark.parametrize("limit", [1, 3, 5, 7])
async def test_limit_pages_through_without_loss(connect, limit):
    """Each page goes on where the one before ended, and the last token waits for more."""
    client = await connect(frozen())
    token = begin = await latest(client)
    for _ in range(23):
        client.server.world.add()
    whole = (await since(client, begin, limit=1000)).body
    seen = []
    while results := (page := (await since(client, token, limit=limit)).body)["results"]:
        assert page["limit"] == limit >= len(results)
        seen += results
        token = page["nextChangeToken"]
    assert seen == whole["results"]
    assert token == whole["nextChangeToken"]
    added = client.server.world.add()
    assert changes_in((await since(client, token)).body) == [(added.id, added.etag)]


async def test_limit_has_the_documented_default_and_maximum(connect):
    """30 if not said otherwise, never more than 10,000."""
    client = await connect(frozen())
    token = await latest(client)
    for _ in range(50):
        client.server.world.add()
    assert len((await since(client, token)).body["results"]) == 30
    assert (await since(client, token, limit=20_000)).body["limit"] == 10_000


@pytest.mark.parametrize("thread", [True, False])
async def test_a_waiting_poll_reports_a_change_at_once(connect, thread):
    """Made in the loop's thread or in another."""
    client = await connect(frozen())
    waiting = poll(client)
    await waits(client, waiting)
    if thread:
        worker = threading.Thread(target=client.server.world.add)
        worker.start()
        worker.join()
    else:
        client.server.world.add()
    begun = time.monotonic()
    body = (await waiting).body
    assert time.monotonic() - begun < SOON
    (added,) = client.server.world.sessions
    assert changes_in(body) == [(added.id, added.etag)]


async def test_a_waiting_poll_reports_what_time_does(connect):
    """A session that ends because the world's clock runs wakes it."""
    world = World(sessions=0, now=START, speed=3600)
    client = await connect(world)
    session = world.add(end_time=world.now + timedelta(minutes=30))
    token = await latest(client)
    begun = time.monotonic()
    body = (await poll(client, after=token)).body
    assert time.monotonic() - begun < 0.5 + SOON
    assert changes_in(body) == [(session.id, session.etag + 1)]


async def test_a_poll_without_news_ends_in_its_time(connect):
    """Empty, and with a token to go on with; without a time it does not wait at all."""
    client = await connect(frozen())
    begun = time.monotonic()
    body = (await poll(client, seconds=1)).body
    assert 0.9 < time.monotonic() - begun < 1 + SOON
    assert body["results"] == []
    begun = time.monotonic()
    assert (await since(client, body["nextChangeToken"])).body["results"] == []
    assert (await since(client, "LATEST", timeoutSeconds=0)).body["results"] == []
    assert time.monotonic() - begun < SOON


async def test_stop_of_the_server_ends_a_waiting_poll(connect):
    """At once, and after the next start the token is still good."""
    client = await connect(frozen())
    token = await latest(client)
    waiting = poll(client, after=token)
    await waits(client, waiting)
    begun = time.monotonic()
    await client.server.stop()
    (ended,) = await asyncio.gather(waiting, return_exceptions=True)
    assert time.monotonic() - begun < SOON
    assert isinstance(ended, aiohttp.ClientError) or ended.body["results"] == []
    added = client.server.world.add()
    await client.server.start()
    assert changes_in((await since(client, token)).body) == [(added.id, added.etag)]


async def test_a_client_that_goes_leaves_nothing_waiting(connect):
    """The server's task ends with the connection."""
    client = await connect(frozen())
    await latest(client)
    tasks = asyncio.all_tasks()
    waiting = poll(client)
    await waits(client, waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(30):
        while asyncio.all_tasks() - tasks:
            await asyncio.sleep(0.01)


async def test_tokens_are_outdated_beyond_what_is_kept(connect):
    """The last so many events are there, one more is not; paging on is possible up to it."""
    client = await connect(frozen(), events_kept=3)
    token = await latest(client)
    for _ in range(3):
        client.server.world.add()
    assert len((await since(client, token)).body["results"]) == 3
    client.server.world.add()
    assert await refusal(client, token) == OUTDATED
    assert (await since(client, await latest(client))).status == 200


async def test_ten_thousand_events_are_kept_by_default(connect):
    """And the world's memory of them does not grow on."""
    client = await connect(frozen())
    world = client.server.world
    session, token = world.add(), await latest(client)
    for _ in range(7_999):
        world.change(session.id)
    page = (await since(client, token, limit=10_000)).body
    assert len(page["results"]) == 7_999 + 2_000
    for _ in range(12_000):
        world.change(session.id)
    assert await refusal(client, token) == OUTDATED
    assert await refusal(client, page["nextChangeToken"]) == OUTDATED
    assert len(world.changes().changes) == 10_000
    assert world.changes().first == 10_000


async def test_memory_of_ends_that_never_come_is_bounded():
    """Sessions added to a frozen world and removed again leave nothing."""
    world = frozen()
    for _ in range(2_000):
        world.remove(world.add(end_time=START + HOUR).id)
    assert len(world._ends) < 200
    kept = world.add(end_time=START + HOUR)
    before = world.changes().total
    world.advance(2 * HOUR)
    assert [one.id for one in world.changes(before).changes] == [kept.id]


async def test_forgotten_events_outdate_every_token(connect):
    """Also that of a poll that waits; `latest` goes on."""
    client = await connect(frozen())
    token = await latest(client)
    waiting = poll(client, after=token)
    await waits(client, waiting)
    client.server.forget_events()
    answer = await waiting
    assert (answer.status, answer.body["errorCode"]) == OUTDATED
    assert await refusal(client, token) == OUTDATED
    assert (await since(client, await latest(client))).status == 200


async def test_another_world_is_reported_at_once_and_outdates_every_token(connect):
    """Sessions and feed are those of the new world, and what happens in the old one is no event."""
    client = await connect(frozen())
    old, token = client.server.world, await latest(client)
    client.server.world = new = frozen()
    assert client.server.world is new
    assert await refusal(client, token) == OUTDATED
    token = await latest(client)
    old.add()
    added = new.add()
    assert changes_in((await since(client, token)).body) == [(added.id, added.etag)]
    (listed,) = (await client.get("/v8/RestoreSessions")).body["results"]
    assert listed["id"] == str(added.id)


async def test_a_world_restored_from_backup_has_lost_what_came_since(connect):
    """IDs and changes vanish, the clock goes back, tokens are outdated; the future is another one."""
    world = frozen(sessions=5)
    client = await connect(world)
    working = world.add(end_time=START + HOUR)
    before, snapshot = world.sessions, world.snapshot()
    world.remove(world.sessions[-1].id)
    world.change(world.sessions[-1].id, reason="lost")
    lost = world.add().id
    world.advance(timedelta(days=30))
    gone = {one.id for one in world.sessions} - {one.id for one in before}
    token = await latest(client)
    world.restore(snapshot)
    assert (world.now, world.sessions) == (START, before)
    assert lost in gone
    assert await refusal(client, token) == OUTDATED
    token = await latest(client)
    world.advance(HOUR)
    assert (working.id, working.etag + 1) in changes_in((await since(client, token)).body)
    world.advance(timedelta(days=30))
    assert not gone & {one.id for one in world.sessions}


async def test_garbled_tokens_and_parameters_are_refused(connect):
    """No token, one of another server, one letter changed; a limit of nothing, a time before now."""
    client, other = await connect(frozen()), await connect(frozen(), name="other")
    token = await latest(client)
    changed = token[:-1] + ("0" if token[-1] != "0" else "1")
    for garbled in ("", "now", str(UUID(int=0)), changed, token + token, await latest(other)):
        assert await refusal(client, garbled) == INVALID, garbled
    for params in ({"limit": "0"}, {"limit": "x"}, {"timeoutSeconds": "-1"}, {"timeoutSeconds": "x"}):
        answer = await since(client, token, **params)
        assert (answer.status, answer.body["errorCode"]) == INVALID
    assert (await client.get(PATH)).status == 400


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7"])
async def test_other_versions_have_no_feed(connect, version):
    """The path is 404 there, also beside v8."""
    for options in ({"version": version}, {"versions": [version, "v8"]}):
        client = await connect(frozen(), **options)
        assert (await client.get(f"/{version}/Events", **{"from": "latest"})).status == 404


async def test_the_feed_is_for_who_is_logged_on(connect):
    """Without a token there is nothing, and no wait."""
    client = await connect(frozen(), log_in=False)
    assert (await client.get(PATH, **{"from": "latest", "timeoutSeconds": "30"})).status == 401


async def test_a_fault_strikes_a_waiting_poll_at_once(connect):
    """A spoilt answer is that of the moment: it does not wait."""
    client = await connect(frozen())
    client.server.fail(Fault.edit(lambda body: body | {"edited": True}), on="Events")
    begun = time.monotonic()
    body = (await client.get(PATH, **{"from": "latest", "timeoutSeconds": "30"})).body
    assert time.monotonic() - begun < SOON
    assert (body["results"], body["edited"]) == ([], True)


def test_as_many_events_are_kept_as_a_world_remembers():
    """More, or fewer than none, is refused."""
    for kept in (-1, 10_001):
        with pytest.raises(ValueError, match="between 0 and 10000"):
            BackupServer(events_kept=kept)
