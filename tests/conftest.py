"""What holds around every test: nothing is left behind, and the SDK never blocks the event loop."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from blockbuster import BlockBuster
from harness import Canary, VirtualClock, assert_nothing_left, assert_nothing_open, snapshot
from harness import postgres as postgresql
from harness.watches import NOW, VERSIONS
from hypothesis import HealthCheck, settings

from aiovbo._transport.direct_get import SWITCH
from aiovbo.testing import BackupServer, World

# Many tests start Python: with compiled modules each start takes half the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A run in the background ignores Ctrl-C, one under nohup the end of its terminal, and so would the programs
# that tests start. A handler is not inherited: they begin as usual.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

ON_UVLOOP = os.environ.get("AIOVBO_TEST_LOOP") == "uvloop"

if ON_UVLOOP:
    import uvloop

    # The first one opens pipes that stay open for as long as the process.
    uvloop.new_event_loop().close()

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """What makes the event loops of async tests, where asyncio's own are not wanted."""
        return {"uvloop": uvloop.new_event_loop}


# No deadline: how long an example takes depends on what else the machine does.
settings.register_profile(
    "quick", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=20
)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Number of workers of `-n auto`: two for each core, because many tests mostly wait."""
    return (os.cpu_count() or 1) * 2


@pytest.fixture(scope="session", autouse=True)
def unfrozen_at_the_end() -> Iterator[None]:
    """Objects that live as long as the session are released with it."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    """No thread, file or socket outlives a test, nor the loop that it ran in."""
    before = snapshot()
    yield
    # Now, so that a warning of something never closed is shown with the test that forgot it.
    gc.collect()
    # What is left are modules and the like: to search them again after each test would take 50 ms.
    gc.freeze()
    assert_nothing_open(before)


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the user who runs the tests names no servers; a test that needs that sets it."""
    for name in [name for name in os.environ if name.startswith("AIOVBO_")]:
        # The whole run may be one without the direct path.
        if name != SWITCH:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", "/dev/null/config")


@pytest.fixture(autouse=True)
def no_stored_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands store tokens in no folder of the user who runs the tests; a test that needs one sets it."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/state")


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """No task outlives a test; checked in its loop, after the fixtures that own tasks have ended."""
    before = snapshot()
    yield
    # Files of uvloop stay open for as long as its loop.
    await assert_nothing_left(before, serving=ON_UVLOOP)


@pytest.fixture
def unblocked() -> Iterator[None]:
    """The SDK that blocks a running loop gets a `BlockingError`; the servers it is tested with may."""
    buster = BlockBuster("aiovbo", excluded_modules=["aiovbo.testing"])
    buster.activate()
    yield
    buster.deactivate()


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest, nothing_open: None) -> None:
    """Async tests, and only they, are watched inside their loop."""
    # `nothing_open` is asked for so that it begins before the loop, and ends after it.
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("nothing_left")
        request.getfixturevalue("unblocked")


@pytest.fixture
def clock() -> VirtualClock:
    """Time that passes only in `sleep`."""
    return VirtualClock()


@pytest.fixture
def canary() -> Iterator[Canary]:
    """Makes secrets; at the end of the test none of them may stand in a log."""
    with Canary().listening() as listening:
        yield listening
    listening.assert_absent()


@pytest.fixture(params=VERSIONS)
async def backup(request: pytest.FixtureRequest) -> AsyncIterator[BackupServer]:
    """A server of each kind, with small pages, whose world is empty and stands still."""
    world = World(now=NOW, speed=0, sessions=0)
    async with BackupServer(world, version=request.param, page_limit_max=10) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> str:
    """How to connect to a PostgreSQL server, which all tests of the session share."""
    return postgresql.server()


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """How to connect to a schema of the test's own."""
    with postgresql.schema(postgres) as conninfo:
        yield conninfo
