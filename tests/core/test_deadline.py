"""Deadlines: what counts, what is suspended, what is shared; mostly with clocks that are moved by hand."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
from harness import VirtualClock
from harness.backups import asked, beside_a_healthy_server, server_of, view_of
from harness.raw import RawServer, http, json_answer, token_answer, vbo_routes, wait

from aiovbo import Bearer, Client, Clock, Fleet, Password, Server, ServerError, ServerTimeoutError
from aiovbo._core.deadline import EXCUSED, Deadline, Operation, SharedDeadline
from aiovbo._core.single_flight import SingleFlight
from aiovbo._fleet.run import SLOT_RELEASED_AFTER, ConcurrencyLimiter
from aiovbo._settings.limits import Options
from aiovbo.errors import UnreachableError
from aiovbo.testing import BackupServer, Fault, World

# ------------------------------------------------------------------------------- the object


def virtual() -> tuple[VirtualClock, Clock]:
    """A clock that is moved by hand, and the same for the SDK."""
    clock = VirtualClock()
    return clock, Clock(clock.monotonic, clock.now, clock.sleep, clock.random)


def test_a_deadline_counts_only_the_time_of_the_operation_itself() -> None:
    """Between the blocks it is suspended, also where blocks overlap."""
    hand, clock = virtual()
    deadline = Deadline(10, clock, suspended=True)
    hand.advance(100)
    with deadline:
        hand.advance(3)
        with deadline:
            hand.advance(1)
        hand.advance(1)
    hand.advance(100)
    assert (deadline.left(), deadline.spent()) == (5, 5)
    assert deadline.ends == hand.monotonic() + 5
    assert not deadline.has_passed()
    with deadline:
        hand.advance(5)
        assert deadline.has_passed()
        assert deadline.was_reached


def test_a_deadline_that_passed_while_the_event_loop_was_blocked_gives_a_moment_once() -> None:
    """What arrived meanwhile can be read; then the deadline ends the operation."""
    hand, clock = virtual()
    deadline = Deadline(10, clock)
    hand.advance(20)
    assert not deadline.has_passed()
    assert deadline.left() == pytest.approx(EXCUSED)
    hand.advance(20)
    assert deadline.has_passed()


def test_a_shared_deadline_is_the_latest_of_its_callers_and_is_never_shortened() -> None:
    """A caller with more time extends it; a caller that leaves takes nothing away."""
    hand, clock = virtual()
    shared, first, second = SharedDeadline(clock), Deadline(5, clock), Deadline(3, clock)
    shared.join(first)
    shared.join(second)
    assert shared.left() == 5
    shared.leave(second)
    hand.advance(1)
    third = Deadline(10, clock)
    shared.join(third)
    assert shared.left() == 10
    shared.leave(third)
    assert shared.left() == 10
    hand.advance(10)
    assert shared.has_passed()


# ---------------------------------------------------------------------------- shared calls


def caller(seconds: float = 60.0) -> Operation:
    """An operation in progress, with that much time."""
    options = Options(deadline=seconds)
    return Operation(options, deadline=Deadline(seconds, options.clock))


async def test_a_caller_leaves_a_shared_call_at_its_own_deadline_and_the_call_goes_on() -> None:
    """The other caller, who has more time, gets the outcome of the same call."""
    flights: SingleFlight[int] = SingleFlight()
    go, calls = asyncio.Event(), 0

    async def call(_: Operation) -> int:
        nonlocal calls
        calls += 1
        await go.wait()
        return 7

    short = asyncio.create_task(flights.run("key", caller(0.05), call))
    long = asyncio.create_task(flights.run("key", caller(), call))
    with pytest.raises(ServerTimeoutError, match=r"deadline of 0\.05 s") as caught:
        await short
    assert (caught.value.phase, caught.value.attempts) == ("queue", 1)
    go.set()
    assert await long == 7
    assert calls == 1


async def test_a_shared_call_has_its_callers_time_before_its_first_step() -> None:
    """An eager task runs as soon as it is made."""
    flights: SingleFlight[float] = SingleFlight()

    def call(operation: Operation) -> Coroutine[Any, Any, float]:
        return asyncio.sleep(0, operation.deadline.left())

    assert await flights.run("key", caller(), call) > 0


async def test_a_shared_call_that_its_deadline_ends_is_not_joined_any_more() -> None:
    """A caller with time left starts a new one instead, and never gets the error of another's deadline."""
    flights: SingleFlight[int] = SingleFlight()
    go = asyncio.Event()

    async def ends(operation: Operation) -> int:
        operation.deadline.was_reached = True
        await go.wait()
        raise ServerTimeoutError("the deadline of another passed")

    async def works(_: Operation) -> int:
        return 7

    first = asyncio.create_task(flights.run("key", caller(), ends))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await flights.run("key", caller(), works) == 7
    go.set()
    with pytest.raises(ServerTimeoutError):
        await first


async def test_a_shared_call_is_cancelled_when_the_last_caller_leaves_and_not_before() -> None:
    """Cancelled callers do not affect the others."""
    flights: SingleFlight[None] = SingleFlight()
    ended = False

    async def call(_: Operation) -> None:
        nonlocal ended
        try:
            await asyncio.sleep(60)
        finally:
            ended = True

    callers = [asyncio.create_task(flights.run("key", caller(), call)) for _ in range(3)]
    await asyncio.sleep(0.01)
    for number, task in enumerate(callers):
        assert not ended, number
        task.cancel()
        await asyncio.wait([task])
    assert ended


async def test_each_caller_of_a_shared_call_gets_an_error_of_its_own() -> None:
    """What one of them writes on it, the others do not see."""
    flights: SingleFlight[None] = SingleFlight()

    async def call(_: Operation) -> None:
        await asyncio.sleep(0)
        raise UnreachableError("no connection")

    waiting = [flights.run("key", caller(), call) for _ in range(3)]
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["no connection"] * 3
    assert len(set(map(id, errors))) == 3


PROBE, FETCH, LOGIN = "the version", "a resource", "a token"


@pytest.mark.parametrize("shared", [PROBE, FETCH, LOGIN])
async def test_a_caller_that_joins_a_shared_call_has_its_own_deadline(shared: str) -> None:
    """The first one runs out of time; the one that joined it later gets the answer to the same request."""
    go = asyncio.Event()
    thing = json_answer({"id": "x"})
    routes: dict[Any, Any] = vbo_routes(version="v8", token=token_answer("access-1"))
    routes["GET", "/v8/ServiceInstance"] = http(401)
    routes["GET", "/v8/Things"] = thing
    slow: Any = {PROBE: ("GET", "/v8/ServiceInstance"), FETCH: ("GET", "/v8/Things")}.get(
        shared, ("POST", "/v8/token")
    )
    routes[slow] = [wait(go), routes[slow]]
    async with RawServer(routes) as raw:
        login = Bearer("token") if shared == FETCH else Password("u", "p")
        version: Any = "auto" if shared == PROBE else "v8"
        server = Server(raw.url, login, allow_http=True, name="bad", api_version=version)
        limits = {"connect_timeout": 9.0, "read_timeout": 9.0, "deadline": 1.0}
        async with beside_a_healthy_server(server, **limits) as fleet:
            client = fleet["bad"]
            first = asyncio.create_task(failure_of(client.fetch("Things")))
            await asyncio.sleep(0.6)
            joined = asyncio.create_task(client.fetch("Things"))
            error = await first
            assert isinstance(error, ServerTimeoutError)
            assert "the deadline of 1 s passed" in str(error)
            assert (error.server, error.phase) == ("bad", "read")
            assert not joined.done()
            go.set()
            assert (await joined)["id"] == "x"
        assert len(raw.asked(*slow)) == 1


async def failure_of(call: Awaitable[object]) -> ServerError | None:
    """What a call fails with."""
    try:
        await call
    except ServerError as error:
        return error
    return None


# ------------------------------------------------------------------- the consumer's own time


async def by_items(fleet: Fleet) -> Any:
    """The items of one server."""
    async for item in fleet["many"].restore_sessions(page_size=5):
        yield [item]


async def by_pages(fleet: Fleet) -> Any:
    """The pages of one server."""
    async for page in fleet["many"].restore_sessions(page_size=5).pages():
        yield page.items


async def by_fleet(fleet: Fleet) -> Any:
    """The items of a fleet."""
    async for item in fleet.restore_sessions(page_size=5):
        yield [item]


@pytest.mark.parametrize("stream", [by_items, by_pages, by_fleet])
@pytest.mark.parametrize("turns", [0, 3])
async def test_the_deadline_is_suspended_while_the_consumer_holds_a_page(
    stream: Callable[[Fleet], Any], turns: int
) -> None:
    """For much longer than the deadline, also while the next page is on its way: nothing is lost."""
    ahead = 0.0
    clock = Clock(monotonic=lambda: time.monotonic() + ahead)
    async with BackupServer(World(sessions=20, speed=0), version="v8") as backup:
        server = server_of(backup, name="many")
        async with Fleet([server], deadline=20, retries=0, clock=clock) as fleet:
            await fleet["many"].fetch_api_version()
            seen = set[object]()
            async for items in stream(fleet):
                seen |= {item.id for item in items}
                ahead += 400
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert len(seen) == 20


async def test_servers_that_wait_for_their_turn_do_not_lose_the_time_of_the_consumer() -> None:
    """One server at a time, and a consumer that holds the first answer for longer than the deadline."""
    hand, clock = virtual()
    async with RawServer({("GET", "/v8/RestoreSessions"): json_answer({"results": []})}) as raw:
        servers = [
            Server(raw.url, Bearer(f"token-{n}"), allow_http=True, api_version="v8", name=f"s{n}")
            for n in range(3)
        ]
        async with Fleet(servers, deadline=60, retries=0, concurrency=1, clock=clock) as fleet:
            errors: list[ServerError | None] = []
            async for answer in fleet.restore_sessions().answers():
                errors.append(answer.error)
                hand.advance(60 + EXCUSED / 2 if len(errors) == 1 else 0)
            assert errors == [None] * 3


async def test_waiting_for_a_slot_counts() -> None:
    """A server whose turn comes after the deadline is not queried, and the error says where the time went."""
    hand, clock = virtual()
    async with BackupServer(World(sessions=2, speed=0), version="v8") as backup:
        servers = [view_of(backup, name=name, api_version="v8") for name in ("first", "second")]
        async with Fleet(servers, deadline=60, concurrency=1, clock=clock) as fleet:

            async def listing(client: Client) -> int:
                return len(await client.restore_sessions())

            def question(client: Client) -> Awaitable[int]:
                if client.name == "first":
                    hand.advance(60 + EXCUSED / 2)
                return listing(client)

            result = await fleet.map(question)
            error = result.answers["second"].error
            assert isinstance(error, ServerTimeoutError)
            assert (error.phase, error.attempts, error.server) == ("queue", 0, "second")
            assert "the deadline of 60 s passed while waiting for its turn" in str(error)
            assert "(deadline=...)" in error.hint


# ------------------------------------------------------------------------ decoding and paging


@pytest.mark.parametrize("row", [b"0", b"{}", b'{"id":1,"more":[]}'])
async def test_decoding_ends_with_the_deadline(row: bytes) -> None:
    """A page of many invalid rows: the deadline is checked after each step."""
    ticks = itertools.count()
    clock = Clock(monotonic=lambda: next(ticks) * 0.02)
    body = b'{"results":[' + row + (b"," + row) * 4000 + b"]}"
    script = http(body=body)
    async with (
        RawServer(vbo_routes(version="v8", sessions=script)) as raw,
        BackupServer(World(sessions=3)) as healthy,
        Client(server_of(healthy)) as bystander,
    ):
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8", name="bad")
        async with Client(server, deadline=1, retries=0, clock=clock) as client:
            answer, others = await asyncio.gather(
                client.restore_sessions().answer(), bystander.restore_sessions()
            )
        assert isinstance(answer.error, ServerTimeoutError)
        assert (answer.error.phase, answer.error.attempts) == ("decoding", 1)
        assert "bad: GET /v8/RestoreSessions: the deadline of 1 s passed while decoding" in str(answer.error)
        assert "(deadline=...)" in answer.error.hint
        assert next(ticks) < 80
        assert len(others) == 3


async def test_paging_ends_with_the_deadline_and_keeps_what_had_come() -> None:
    """No further page is requested once the deadline has passed."""
    hand, clock = virtual()
    pages = 0

    async def page(connection: Any) -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            hand.advance(60 + EXCUSED / 2)
        row = {"id": f"00000000-0000-0000-0000-{pages:012}", "creationTime": "2026-01-01T00:00:00Z"}
        following = {"next": {"href": f"/v8/RestoreSessions?offset={pages}"}}
        await connection.send(json_answer({"results": [row], "_links": following}))

    async with RawServer(vbo_routes(version="v8", sessions=[page])) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8", name="bad")
        async with beside_a_healthy_server(server, deadline=60, clock=clock) as fleet:
            answer = await fleet["bad"].restore_sessions().answer()
    assert isinstance(answer.error, ServerTimeoutError)
    assert (answer.error.phase, len(answer.items), pages) == ("paging", 3, 3)
    assert not answer.complete
    assert "(deadline=...)" in answer.error.hint


# ------------------------------------------------------- an event loop that the application blocks


@pytest.mark.parametrize("limit", [{"deadline": 0.6}, {"read_timeout": 0.6}])
async def test_an_answer_that_came_while_the_event_loop_was_blocked_is_delivered(
    limit: dict[str, float],
) -> None:
    """Also where the limit passed meanwhile: what is there is read before anything counts as late."""
    backup = BackupServer(World(sessions=3, speed=0), version="v8")
    with backup.run_in_thread():
        server = server_of(backup, api_version="v8")
        async with Client(server, retries=0, **cast("Any", limit)) as client:
            await client.restore_sessions()
            backup.fail(Fault.delay(0.2), on="RestoreSessions")
            before = asked(backup)
            asking = asyncio.create_task(client.restore_sessions().answer())
            while asked(backup) == before and not asking.done():
                await asyncio.sleep(0.005)
            time.sleep(0.9)  # noqa: ASYNC251  # this is what the application must not do, and does
            answer = await asking
            assert answer.error is None
            assert len(answer.items) == 3


class _Loop:
    """An event loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., None], tuple[Any, ...]]] = []

    def time(self) -> float:
        """Its time."""
        return self.now

    def call_at(self, when: float, function: Callable[..., None], *arguments: Any) -> object:
        """Note what is to be called."""
        self.timers.append((when, function, arguments))
        return object()

    def fire(self, now: float) -> None:
        """Call what is due."""
        self.now = now
        due, self.timers = self.timers, []
        for _, function, arguments in due:
            function(*arguments)


@pytest.mark.parametrize(
    ("late", "begun"),
    [(0.0, ["first", "second"]), (SLOT_RELEASED_AFTER / 2, ["first"])],
    ids=["idle", "busy"],
)
def test_a_busy_event_loop_is_no_sign_of_a_slow_server(
    monkeypatch: pytest.MonkeyPatch, late: float, begun: list[str]
) -> None:
    """A server that holds its slot while the event loop was busy keeps it for longer."""
    loop = _Loop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    found: list[str] = []

    class Run:
        def begin(self, client: str) -> None:
            found.append(client)

    ConcurrencyLimiter(1).queue(cast("Any", Run()), cast("Any", ["first", "second"]))
    loop.fire(SLOT_RELEASED_AFTER + late)
    assert found == begun
    if late:
        loop.fire(0.1)
        assert found == ["first", "second"]
