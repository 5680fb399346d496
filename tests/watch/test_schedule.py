"""When servers are polled: spread over the interval, rarely where they are down, in shares of workers."""

from datetime import datetime, timedelta

import pytest
from harness.watches import NOW

from aiovbo import (
    Clock,
    ConfigError,
    Fleet,
    Password,
    Server,
)
from aiovbo._watch.schedule import PollSchedule
from aiovbo.testing import BackupServer, MemoryTransport, SimClock, World


def beat_of(every: float, now: datetime = NOW, chance: float = 0.5) -> PollSchedule:
    """The beat of one server, at an instant."""
    return PollSchedule("vbo", timedelta(seconds=every), Clock(now=lambda: now, random=lambda: chance))


def test_a_server_has_the_same_place_in_every_interval() -> None:
    """Whenever it is asked for, and however long the interval is; so has its first look."""
    place = beat_of(100).until_first() / 5
    assert 0 < place < 1
    assert beat_of(1).until_first() == place
    assert beat_of(10, NOW + timedelta(seconds=3)).until_first() == place * 5
    for interval in (1.0, 25.0, 100.0):
        for passed in (0.0, 0.3, 7.7, 88.8):
            left = beat_of(7, NOW + timedelta(seconds=passed)).until_moment(interval)
            assert 0 <= left < interval
            # Noon is the beginning of each of these intervals.
            assert (passed + left) % interval == pytest.approx(place * interval, abs=1e-4)


@pytest.mark.parametrize(
    ("before", "took", "pause", "overruns"),
    [
        (90, 1, 90, 0),
        (26, 1, 26, 0),
        (24, 1, 124, 0),
        (1, 49, 101, 0),
        (1, 51, 1, 0),
        (1, 99, 1, 0),
        (1, 100, 1, 1),
        (60, 250, 60, 2),
    ],
)
def test_the_next_look_is_at_the_servers_place_and_never_right_after_one(
    before: float, took: float, pause: float, overruns: int
) -> None:
    """A clock that ticks early is no reason to look twice; after a long look the next place is due."""
    at_its_place = NOW + timedelta(seconds=beat_of(100).until_moment(100))
    beat = beat_of(100, at_its_place - timedelta(seconds=before))
    assert beat.until_next(took) == pytest.approx(pause, abs=1e-3)
    assert beat.overruns == overruns


@pytest.mark.parametrize(
    ("every", "errors", "longest"),
    [
        (10, 1, 10),
        (10, 2, 20),
        (10, 3, 40),
        (10, 6, 300),
        (10, 10_000, 300),
        (1000, 1, 1000),
        (1000, 5, 1000),
    ],
)
def test_a_server_that_is_down_is_left_alone_for_twice_as_long_each_time(
    every: float, errors: int, longest: float
) -> None:
    """From the half to the whole of that by chance, up to five minutes or one interval."""
    for chance, share in ((0.0, 0.5), (0.5, 0.75), (0.98, 0.99)):
        assert beat_of(every, chance=chance).backoff(errors) == pytest.approx(longest * share)


async def test_many_watches_of_one_moment_are_spread_and_steady() -> None:
    """Each server has its own place in the interval, the same after a restart."""
    clock = SimClock()
    backups = {
        f"vbo{number}": BackupServer(World(seed=number, clock=clock, sessions=1, speed=0), version="v4")
        for number in range(20)
    }
    servers = [
        Server(f"https://{host}", Password(one.username, one.password), api_version="v4")
        for host, one in backups.items()
    ]
    places: list[list[float]] = []
    for pause in (0, 17):
        await clock.sleep(pause)
        for one in backups.values():
            one.requests.clear()
        async with (
            Fleet(servers, clock=clock, transport=MemoryTransport(backups)) as fleet,
            fleet.watch(every=timedelta(minutes=1)),
        ):
            await clock.sleep(150)
        last = [
            [r.at for r in one.requests if r.resource == "RestoreSessions"][-1] for one in backups.values()
        ]
        places.append([(clock.now().timestamp() - clock.monotonic() + at) % 60 for at in last])
    assert len({round(place / 6) for place in places[0]}) >= 6
    differences = [min((a - b) % 60, (b - a) % 60) for a, b in zip(*places, strict=True)]
    assert max(differences) < 1


def test_workers_have_shares_of_about_a_size() -> None:
    """Of 3,000 servers each of four workers has some 750."""
    fleet = Fleet([Server(f"vbo{number}", Password("u", "p")) for number in range(3000)])
    assert all(650 < len(fleet.shard(index, 4)) < 850 for index in range(4))
    with pytest.raises(ConfigError, match="index"):
        fleet.shard(4, 4)
