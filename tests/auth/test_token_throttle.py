"""The throttle of the token endpoint: it is named, remembered per address, and waited for."""

import pytest
from harness import VirtualClock
from harness.backups import server_of
from harness.raw import RawServer, http, in_turn, token_answer, vbo_routes

from aiovbo import AuthenticationError, Client, Clock, Fleet, Password, RateLimitedError, Server
from aiovbo._auth.token_throttle import TokenThrottle
from aiovbo._core.deadline import Deadline
from aiovbo.testing import BackupServer

QUOTA = b'"API calls quota exceeded! maximum admitted 5 per Minute."'


def throttled(seconds: int | None) -> bytes:
    """The response of the throttle."""
    return http(429, QUOTA, headers=[] if seconds is None else [("Retry-After", str(seconds))])


def clock_of(virtual: VirtualClock) -> Clock:
    """The SDK's clock that follows a virtual one."""
    return Clock(virtual.monotonic, virtual.now, virtual.sleep, virtual.random)


def views(raw: RawServer, count: int) -> list[Server]:
    """Servers at one address, each with an account of its own."""
    return [
        Server(raw.url, Password(f"tenant{n}", "p"), name=f"view{n}", allow_http=True, api_version="v4")
        for n in range(count)
    ]


def posts(raw: RawServer) -> int:
    """Number of logins that arrived."""
    return len(raw.asked("POST", "/v4/token"))


async def test_a_throttled_login_says_what_the_limit_counts() -> None:
    """The server's own words, who counts together, and `retry_after`."""
    async with BackupServer(token_limit=1) as backup:
        async with Client(server_of(backup)) as first:
            await first.restore_sessions()
        async with Client(server_of(backup), deadline=0.9) as second:
            with pytest.raises(RateLimitedError) as caught:
                await second.restore_sessions()
    error = caught.value
    assert "token endpoint is throttled" in str(error)
    assert "maximum admitted 1 per Minute" in str(error)
    assert "all processes behind this address count together" in str(error)
    assert error.message == "API calls quota exceeded! maximum admitted 1 per Minute."
    assert 1 <= (error.retry_after or 0) <= 60
    assert error.retryable


async def test_while_a_throttle_lasts_no_server_at_the_address_is_sent_a_login() -> None:
    """Another view of the server fails at once, with the time that is left; other ports do not."""
    async with (
        RawServer(vbo_routes(token=throttled(40))) as raw,
        BackupServer() as healthy,
        Fleet([*views(raw, 2), server_of(healthy, name="healthy")], deadline=5, retries=0) as fleet,
    ):
        with pytest.raises(RateLimitedError, match=r"POST /v4/token.*tried once"):
            await fleet["view0"].restore_sessions()
        for name in ("view0", "view1"):
            with pytest.raises(RateLimitedError, match="not sent: the token endpoint is throttled") as caught:
                await fleet[name].restore_sessions()
            assert caught.value.attempts == 0
            assert 35 < (caught.value.retry_after or 0) <= 40
            assert "The next login can be sent in" in str(caught.value)
        assert posts(raw) == 1
        assert len(await fleet["healthy"].restore_sessions()) == 40


@pytest.mark.parametrize("retries", [0, 2])
async def test_a_login_waits_for_the_end_of_a_throttle_where_the_deadline_allows(retries: int) -> None:
    """A retry after the 429, and the next call where retries are disabled."""
    virtual = VirtualClock()
    async with RawServer(vbo_routes(token=in_turn(throttled(30), token_answer()))) as raw:
        (server,) = views(raw, 1)
        async with Client(server, clock=clock_of(virtual), retries=retries) as client:
            if not retries:
                with pytest.raises(RateLimitedError):
                    await client.restore_sessions()
            assert await client.restore_sessions() == []
    assert posts(raw) == 2
    assert 30 <= sum(virtual.slept) < 32


async def test_after_a_throttle_logins_to_the_address_are_sent_one_second_apart() -> None:
    """For a minute: all at once would meet the next throttle. Before it, they are not spaced."""
    virtual = VirtualClock()
    clock = clock_of(virtual)
    throttle, deadline = TokenThrottle(clock), Deadline(1000.0, clock)
    await throttle.wait(deadline)
    await throttle.wait(deadline)
    assert virtual.monotonic() == 0
    error = RateLimitedError("HTTP 429", status=429)
    error.retry_after = 10.0
    throttle.note(error)
    sent_at = []
    for _ in range(3):
        await throttle.wait(deadline)
        sent_at.append(virtual.monotonic())
    assert sent_at == [10, 11, 12]
    virtual.advance(100)
    await throttle.wait(deadline)
    await throttle.wait(deadline)
    assert virtual.monotonic() == 112


async def test_a_throttle_is_no_verdict_on_the_password() -> None:
    """However often it answers, the password is sent when it has ended."""
    virtual = VirtualClock()
    async with RawServer(vbo_routes(token=in_turn(*[throttled(20)] * 8, token_answer()))) as raw:
        (server,) = views(raw, 1)
        async with Client(server, clock=clock_of(virtual), deadline=30, retries=0) as client:
            for _ in range(8):
                with pytest.raises(RateLimitedError):
                    await client.restore_sessions()
            assert await client.restore_sessions() == []
    assert posts(raw) == 9


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v8", "Veeam Backup Administrator role"),
        ("v7", "marked as a service account"),
        ("v4", "tenants' logins must be enabled"),
    ],
)
async def test_a_rejected_login_names_the_likely_causes(version: str, said: str) -> None:
    """In the product's terms; the role counts since v8 only."""
    async with BackupServer(version=version) as backup:  # type: ignore[arg-type]  # parametrised
        wrong = server_of(backup, credentials=Password("TECH\\monitor", "wrong"))
        async with Client(wrong) as client:
            with pytest.raises(AuthenticationError) as caught:
                await client.restore_sessions()
    assert said in str(caught.value)
    assert "restore operators only" in str(caught.value)
    assert ("Veeam Backup Administrator" in str(caught.value)) is (version == "v8")
