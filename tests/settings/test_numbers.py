"""Numbers that are given as settings: what is none is rejected before anything is sent."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from aiovbo import Client, ConfigError, Fleet, Password, RestoreSession, Retry, Server, fetch_certificate
from aiovbo.models import Links

LOGIN = Password("u", "p")
SERVER = Server("vbo1", LOGIN)

SECONDS = ("deadline", "connect_timeout", "read_timeout", "idle_timeout", "login_cooldown")
COUNTS = ("retries", "connections", "max_body", "max_resource")
OF_FLEETS = ("concurrency", "lockout_guard")
NO_NUMBERS = [True, False, 10**400, 10**5000, -(10**400), float("inf"), float("nan"), -1, "5", None]


@pytest.mark.parametrize(
    "value", NO_NUMBERS, ids=lambda value: repr(value)[:8] if value != 10**5000 else "10**5000"
)
def test_what_is_no_number_is_rejected_by_every_numeric_option(value: Any) -> None:
    """Of fleets and of clients, by the option's name, in a short message."""
    for name in (*SECONDS, *COUNTS, *OF_FLEETS):
        makers: list[Any] = [lambda name=name: Fleet(["vbo1"], LOGIN, **{name: value})]  # type: ignore[misc]
        if name not in OF_FLEETS:
            makers.append(lambda name=name: Client(SERVER, **{name: value}))  # type: ignore[misc]
        for make in makers:
            with pytest.raises(ConfigError, match=f"^{name} is a") as caught:
                make()
            assert len(str(caught.value)) < 200


def session_of(client: Client) -> RestoreSession:
    """A session that may be waited for."""
    return RestoreSession(
        id=UUID(int=1),
        creation_time=datetime(2026, 1, 1, tzinfo=UTC),
        links=Links(None, client, RestoreSession),
    )


@pytest.mark.parametrize(
    "value", [True, 10**5000, float("inf"), -1, timedelta(0), timedelta(-1)], ids=range(6)
)
async def test_what_is_no_interval_is_rejected_by_everything_that_repeats(value: Any) -> None:
    """By watches, polls, pages, waits and policies, at the call."""
    fleet, client = Fleet(["vbo1"], LOGIN), Client(SERVER)
    makers: list[Any] = [
        lambda: fleet.watch(every=value),
        lambda: fleet.watch(full_look_every=value),
        lambda: fleet.watch(heartbeat=value),
        lambda: fleet.poll(every=value),
        lambda: fleet.restore_sessions(page_size=value),
        lambda: client.restore_sessions(page_size=value),
        lambda: Retry(attempts=value) if value is not True else Retry(base=value),
        lambda: Retry(cap=value),
        lambda: fleet.shard(value, 5) if value is not True else fleet.shard(0, value),
    ]
    for make in makers:
        with pytest.raises(ConfigError):
            make()
    for wait in ({"timeout": value}, {"every": value}):
        with pytest.raises(ConfigError):
            await session_of(client).wait(**wait)
    with pytest.raises(ConfigError):
        await fetch_certificate("vbo1", timeout=value)


@pytest.mark.parametrize("state", ["stoped", "", "Success"])
async def test_a_state_that_is_unknown_is_not_waited_for(state: str) -> None:
    """It would never be reached; the error names the states."""
    with pytest.raises(ConfigError, match="Starting, Working, Stopping, Stopped"):
        await session_of(Client(SERVER)).wait(state)


@pytest.mark.parametrize("agent", ["", " ", "a\r\nX: y", "ä", 5, None])
def test_a_user_agent_that_no_header_can_hold_is_rejected(agent: Any) -> None:
    """Not by the first request."""
    with pytest.raises(ConfigError, match="user_agent"):
        Fleet(["vbo1"], LOGIN, user_agent=agent)


async def _later(_: object) -> bool:
    return True


@pytest.mark.parametrize("decide", [_later, True, "no"])
def test_a_decision_about_retries_is_a_plain_function(decide: Any) -> None:
    """A coroutine would be true whatever it returns."""
    with pytest.raises(ConfigError, match="decide"):
        Retry(decide=decide)
