"""Retries: how often, after how long, and when not; with a clock that costs no time."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from harness import VirtualClock
from harness.backups import beside_a_healthy_server
from harness.ports import closed_port
from harness.raw import RawServer, fin, http, in_turn, json_answer, vbo_routes

from aiovbo import (
    Answer,
    Clock,
    Password,
    RateLimitedError,
    RestoreSession,
    Server,
    ServerFaultError,
)

OK = json_answer([])


async def ask(
    virtual: VirtualClock, *answers: Any, chance: Callable[[], float] | None = None, **limits: Any
) -> tuple[Answer[RestoreSession], int]:
    """What a client makes of these answers to its listing, and how often it asked; it logs in once."""
    clock = Clock(virtual.monotonic, virtual.now, virtual.sleep, chance or virtual.random)
    limits = {"deadline": 60, "retries": 2, **limits, "clock": clock}
    async with RawServer(vbo_routes(sessions=in_turn(*answers))) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4", name="bad")
        async with beside_a_healthy_server(server, **limits) as fleet:
            answer = await fleet["bad"].restore_sessions().answer()
        assert len(raw.asked("POST", "*")) == 1
        return answer, len(raw.asked("GET", "*"))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("date", 30.0), ("0", None), ("past", None), ("-3", None), ("soon", None), (None, None)],
)
async def test_retry_after_is_obeyed_within_the_deadline(
    status: int, header: str | None, wait: float | None
) -> None:
    """In seconds or as a date; junk counts as not having said anything, and costs the usual backoff."""
    virtual = VirtualClock()
    dates = {"date": timedelta(seconds=30), "past": -timedelta(days=1)}
    if header in dates:
        header = format_datetime(virtual.now() + dates[header], usegmt=True)
    headers = [] if header is None else [("Retry-After", header)]
    answer, asked = await ask(virtual, http(status, headers=headers), OK)
    assert answer.error is None
    assert asked == 2
    (slept,) = virtual.slept
    if wait is None:
        assert 0 <= slept <= 0.25
    else:
        assert slept == pytest.approx(wait, abs=1)


@pytest.mark.parametrize("header", ["61", "9000000000"])
async def test_a_wait_beyond_the_deadline_is_an_error_at_once(header: str) -> None:
    """It carries the time that the server asked for."""
    virtual = VirtualClock()
    answer, asked = await ask(virtual, http(429, headers=[("Retry-After", header)]))
    assert isinstance(answer.error, RateLimitedError)
    assert answer.error.retry_after == float(header)
    assert asked == 1
    assert virtual.slept == []


async def test_the_backoff_grows_and_is_jittered() -> None:
    """From nothing up to twice as much each time, so that servers are not asked in step."""
    virtual = VirtualClock(seed=3)
    answer, asked = await ask(virtual, *[http(503)] * 5, OK, retries=5)
    assert answer.error is None
    assert answer.attempts == asked == 6
    assert len(virtual.slept) == 5
    for n, slept in enumerate(virtual.slept):
        assert 0 <= slept <= 0.25 * 2**n
    assert len(set(virtual.slept)) == 5


async def test_the_backoff_doubles_up_to_eight_seconds() -> None:
    """With the longest possible pauses; the error states the time of all attempts."""
    virtual = VirtualClock()
    answer, asked = await ask(virtual, *[http(503)] * 8, retries=7, chance=lambda: 1.0)
    assert virtual.slept == [0.25, 0.5, 1, 2, 4, 8, 8]
    assert answer.error is not None
    assert answer.error.elapsed == sum(virtual.slept)
    assert asked == 8


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_no_more_is_tried_than_was_allowed(retries: int) -> None:
    """The error states the number of attempts."""
    answer, asked = await ask(VirtualClock(), *[http(502), http(504)] * 4, retries=retries)
    assert isinstance(answer.error, ServerFaultError)
    assert answer.error.attempts == asked == retries + 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 409, 501])
async def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    """Asking again would change nothing."""
    answer, asked = await ask(VirtualClock(), *[http(status)] * 3)
    assert answer.error is not None
    assert not answer.error.retryable
    assert asked == 1


async def test_a_rate_limit_without_retry_after_is_retried_until_the_deadline() -> None:
    """These retries do not count: what the limit of retries allows is still there afterwards."""
    virtual = VirtualClock()
    answer, asked = await ask(virtual, *[http(429)] * 5, http(503), OK, retries=1, chance=lambda: 1.0)
    assert answer.error is None
    assert asked == 7
    assert virtual.slept == [0.25, 0.5, 1, 2, 4, 0.25]


async def test_a_rate_limit_without_an_end_is_an_error_when_the_deadline_leaves_no_time() -> None:
    """Also where chance chooses the shortest pauses, the number of requests is bounded."""
    virtual = VirtualClock()
    answer, asked = await ask(virtual, http(429), deadline=3, chance=lambda: 0.0)
    assert isinstance(answer.error, RateLimitedError)
    assert 28 <= asked <= 30
    assert set(virtual.slept) == {0.1}


async def test_without_retries_a_rate_limit_is_an_error_at_once() -> None:
    """`retries=0` disables these retries too."""
    answer, asked = await ask(VirtualClock(), http(429), retries=0)
    assert isinstance(answer.error, RateLimitedError)
    assert asked == 1


async def test_a_server_that_was_unreachable_gets_one_try_until_it_answers() -> None:
    """The first query tries three times, the next ones once; after a response it is three again."""
    virtual = VirtualClock()
    clock = Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)
    tried: list[int] = []
    with closed_port() as port:
        pass
    url = f"http://127.0.0.1:{port}"
    bad = Server(url, Password("u", "p"), allow_http=True, api_version="v4", name="bad")
    async with beside_a_healthy_server(bad, retries=2, deadline=60, clock=clock) as fleet:

        async def ask_again() -> None:
            tried.append((await fleet["bad"].restore_sessions().answer()).attempts)

        await ask_again()
        await ask_again()
        async with RawServer(vbo_routes(), port=port):
            await ask_again()
        await ask_again()
    assert tried == [3, 1, 1, 3]


async def test_retries_end_with_the_deadline() -> None:
    """However many were allowed: waiting counts."""
    virtual = VirtualClock()
    waits = [http(503, headers=[("Retry-After", "20")])] * 9
    answer, asked = await ask(virtual, *waits, retries=9, deadline=60)
    assert isinstance(answer.error, ServerFaultError)
    assert virtual.slept == [20, 20]
    assert asked == 3


async def test_a_pause_that_takes_longer_than_it_should_ends_with_the_deadline() -> None:
    """As where the event loop is blocked: the failure is reported with its server, and nothing else."""

    async def sleep_too_long(_: float) -> None:
        await asyncio.sleep(60)

    async with RawServer(vbo_routes(sessions=http(503))) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4", name="bad")
        clock = Clock(sleep=sleep_too_long)
        async with beside_a_healthy_server(server, retries=2, deadline=0.4, clock=clock) as fleet:
            answer = await fleet["bad"].restore_sessions().answer()
    assert isinstance(answer.error, ServerFaultError)
    assert (answer.error.server, answer.error.attempts) == ("bad", 1)


async def test_an_answer_after_a_retry_shows_what_it_cost() -> None:
    """TimeoutRegistry on the answer, as on errors."""
    answer, _ = await ask(VirtualClock(), http(500), [fin()], OK)
    assert answer.error is None
    assert answer.attempts >= 2
    assert answer.elapsed > 0
