"""Views of a fleet or client: other limits, or a part of the servers, on the same connections."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from harness.backups import asked, server_of
from harness.watches import FAST, NOW, take

from aiovbo import Client, ClosedError, ConfigError, Fleet, ServerFaultError, ServerTimeoutError
from aiovbo.testing import BackupServer, Fault, World


@pytest.fixture
async def backups() -> AsyncIterator[list[BackupServer]]:
    """Three servers with one session each."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                BackupServer(World(now=NOW, speed=0, sessions=1), version="v8", name=name)
            )
            for name in ("one", "two", "three")
        ]


@pytest.fixture
async def fleet(backups: list[BackupServer]) -> AsyncIterator[Fleet]:
    """A fleet of the first two, in different sites."""
    sites = zip(backups[:2], ("athens", "berlin"), strict=True)
    servers = [server_of(one, name=one.name, labels={"site": site, "all": "yes"}) for one, site in sites]
    async with Fleet(servers, retries=1) as fleet:
        yield fleet


async def test_a_client_with_other_limits_uses_the_same_token(
    backups: list[BackupServer], fleet: Fleet
) -> None:
    """Its retries and deadline count, and the former client keeps its own."""
    client = fleet["one"]
    await client.restore_sessions()
    view = client.with_options(retries=0)
    async with view:
        await view.restore_sessions()
    assert (backups[0].logins, view.name, view.status().logins) == (1, "one", 1)
    for one, tries in ((view, 1), (client, 2)):
        before = asked(backups[0])
        backups[0].fail(Fault.status(503), on="RestoreSessions", times=None)
        with pytest.raises(ServerFaultError):
            await one.restore_sessions()
        assert asked(backups[0]) - before == tries
        backups[0].heal()


async def test_the_error_of_a_view_states_its_own_deadline(backups: list[BackupServer], fleet: Fleet) -> None:
    """Of a client, and of a fleet; and the links of what they deliver are followed within it."""
    # Logged in and connected before: then one request has the two seconds, also on busy cores.
    await fleet.restore_sessions()
    (session,) = await fleet["one"].with_options(deadline=2).restore_sessions()
    for backup in backups[:2]:
        backup.fail(Fault.stall(), on="*", times=None)
    short = fleet.with_options(deadline=2)

    async def error_of(use: Awaitable[object]) -> BaseException:
        with pytest.raises(ServerTimeoutError) as raised:
            await use
        return raised.value

    result, *errors = await asyncio.gather(
        short.restore_sessions(),
        error_of(short["two"].restore_sessions()),
        error_of(fleet["one"].with_options(read_timeout=2, retries=0).restore_sessions()),
        error_of(session.fetch_organization()),
    )
    errors += [answer.error for answer in result.answers.values()]
    assert all("2 s" in str(error) for error in errors)
    assert len(errors) == 5


def test_the_limits_of_a_view_are_checked() -> None:
    """At once, as those of a fleet are."""
    fleet = Fleet([])
    with pytest.raises(ConfigError, match="deadline"):
        fleet.with_options(deadline=0)
    with pytest.raises(ConfigError, match="takes labels"):
        fleet.where()


async def test_a_part_of_a_fleet_has_the_servers_that_match(
    backups: list[BackupServer], fleet: Fleet
) -> None:
    """By labels, by a function, or both; those that join or leave later too."""
    athens = fleet.where(site="athens")
    assert (list(athens), len(athens), "two" in athens) == (["one"], 1, False)
    assert list(fleet.where(lambda client: client.name == "two", all="yes")) == ["two"]
    assert list(fleet.where(all="yes").where(site="berlin")) == ["two"]
    assert list(athens.status()) == ["one"]
    with pytest.raises(KeyError):
        _ = athens["two"]
    assert athens["one"] is fleet["one"]
    assert list((await athens.restore_sessions()).answers) == ["one"]
    assert asked(backups[1]) == 0
    fleet.add(server_of(backups[2], name="three", labels={"site": "athens"}))
    assert list(athens) == ["one", "three"]
    athens.remove("one")
    assert list(athens) == ["three"]
    assert list(fleet) == ["two", "three"]


async def test_to_close_a_view_closes_nothing(backups: list[BackupServer], fleet: Fleet) -> None:
    """The fleet goes on; where the fleet is closed, its views are too."""
    part = fleet.where(site="athens").with_options(deadline=20)
    async with part:
        assert len((await part.restore_sessions()).items) == 1
    assert len((await fleet.restore_sessions()).items) == 2
    await fleet.aclose()
    with pytest.raises(ClosedError):
        part.restore_sessions()
    assert [one.logins for one in backups[:2]] == [1, 1]


async def test_a_watch_and_a_poll_of_a_part_leave_the_others_out(
    backups: list[BackupServer], fleet: Fleet
) -> None:
    """Also those that join while they run."""
    athens = fleet.where(site="athens")
    for backup in backups:
        backup.world.add(creation_time=NOW, end_time=None)
    hourly = timedelta(hours=1)
    async with athens.watch(every=FAST) as changes, athens.poll(every=hourly) as poll:
        fleet.add(server_of(backups[2], name="three", labels={"site": "chania"}))
        (change,) = await take(changes, 1)
        await asyncio.sleep(0)
        assert change.server == "one"
        assert (list(changes.status()), list(poll.status())) == (["one"], ["one"])


async def test_a_client_of_its_own_is_not_closed_by_its_view(backups: list[BackupServer]) -> None:
    """The view ends nothing."""
    async with Client(server_of(backups[0])) as client:
        async with client.with_options(strict=True) as view:
            assert len(await view.restore_sessions()) == 1
        assert len(await client.restore_sessions()) == 1
