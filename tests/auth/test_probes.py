"""The probe before the first login: sent to a few servers only, and to more while no verdict comes."""

import asyncio
from typing import Any

import pytest
from harness.backups import asked

from aiovbo import Clock, Fleet, Password, Server, ServerTimeoutError
from aiovbo._auth.probe_limiter import PROBE_PATIENCE, ProbeLimiter
from aiovbo.testing import BackupServer, Fault, MemoryTransport, SimClock, World


def in_memory(count: int, clock: SimClock) -> tuple[dict[str, BackupServer], dict[str, Any]]:
    """So many servers of one account, and what a fleet needs to query them; all in virtual time."""
    servers = {f"vbo{n:02}": BackupServer(World(sessions=1, clock=clock)) for n in range(count)}
    some = servers["vbo00"]
    login = Password(some.username, some.password)
    return servers, {"credentials": login, "transport": MemoryTransport(servers), "clock": clock}


@pytest.mark.parametrize(("version", "probes"), [("v8", 3), ("auto", 20)])
async def test_a_cold_start_probes_three_servers_and_the_version_probe_counts(
    version: Any, probes: int
) -> None:
    """All others send a login and a listing, and nothing else."""
    backups, settings = in_memory(20, SimClock())
    login = settings.pop("credentials")
    async with Fleet([Server(name, login, api_version=version) for name in backups], **settings) as fleet:
        assert not (await fleet.restore_sessions()).failed
        assert sum(asked(backup, "ServiceInstance") for backup in backups.values()) == probes
        assert [backup.logins for backup in backups.values()] == [1] * 20
        assert [asked(backup) for backup in backups.values()] == [1] * 20


async def test_a_wrong_password_is_sent_to_as_many_servers_as_are_probed() -> None:
    """Three probes and three rejections; the others are skipped without a request."""
    backups, settings = in_memory(20, SimClock())
    wrong = Password(settings.pop("credentials").username, "wrong")
    async with Fleet([Server(name, wrong, api_version="v8") for name in backups], **settings) as fleet:
        assert len((await fleet.restore_sessions()).failed) == 20
        assert sum(backup.refused_logins for backup in backups.values()) == 3
        assert sum(len(backup.requests) for backup in backups.values()) == 6


async def test_silent_servers_delay_the_others_by_a_moment() -> None:
    """The first nine of twenty are silent: more servers are probed, until one accepts the password."""
    clock = SimClock()
    backups, settings = in_memory(20, clock)
    login = settings.pop("credentials")
    for backup in list(backups.values())[:9]:
        backup.fail(Fault.delay(600), times=None)
    servers = [Server(name, login, api_version="v8") for name in backups]
    async with Fleet(servers, retries=0, deadline=30, **settings) as fleet:
        started = clock.monotonic()
        answers = fleet.restore_sessions().answers()
        arrived = [(answer.error, clock.monotonic() - started) async for answer in answers]
        seconds = [when for error, when in arrived if error is None]
        assert len(seconds) == 11
        assert max(seconds) < 10 * PROBE_PATIENCE


async def test_a_server_that_waits_for_a_verdict_ends_with_its_deadline() -> None:
    """All servers are silent: no password is sent."""
    backups, settings = in_memory(8, SimClock())
    login = settings.pop("credentials")
    for backup in backups.values():
        backup.fail(Fault.delay(600), times=None)
    servers = [Server(name, login, api_version="v8") for name in backups]
    async with Fleet(servers, deadline=0.3, retries=0, **settings) as fleet:
        failed = (await fleet.restore_sessions()).failed
    assert [type(answer.error) for answer in failed] == [ServerTimeoutError] * 8
    assert not any(one.method == "POST" for backup in backups.values() for one in backup.requests)


async def test_twice_as_many_are_probed_while_no_verdict_comes() -> None:
    """At first three; each that ends makes room; after the last one, three again."""
    limiter = ProbeLimiter(3, Clock())
    rejections: int | None = 0
    tasks = [asyncio.create_task(limiter.begin(lambda: rejections)) for _ in range(30)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) == 3
    limiter.end()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) == 4
    while sum(task.done() for task in tasks) == 4:
        await asyncio.sleep(PROBE_PATIENCE / 5)
    begun = sum(task.done() for task in tasks)
    assert begun in (7, 13, 25)
    rejections = None
    limiter.check_again()
    assert (await asyncio.gather(*tasks)).count(True) == begun
    for _ in range(begun - 1):
        limiter.end()
    again = [asyncio.create_task(limiter.begin(int)) for _ in range(5)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in again) == 3
    for task in again:
        task.cancel()
    await asyncio.wait(again)
