"""The pytest plugin: a running backup server, or several, for any test that requests them.

Knows pytest, which loads it by itself. The servers run in threads of their own, so that they
serve tests of every async framework, and of none. What they need is imported when a test requests
one: most test runs that load this plugin have nothing to do with backup servers.
"""

from collections.abc import Generator, Iterator

import pytest

import aiovbo.testing

_SHOWN = 20
_STARTER = pytest.StashKey["aiovbo.testing.Starter"]()


@pytest.fixture
def vbo_start(request: pytest.FixtureRequest) -> "Iterator[aiovbo.testing.Starter]":
    """Starts what the test makes, and stops it at its end: `vbo_start(BackupServer(version="v6"))`.

    Takes a `BackupServer` or a `BackupFleet`, any number of times.
    """
    with aiovbo.testing.Starter() as start:
        node: pytest.Item = request.node
        node.stash[_STARTER] = start
        yield start


@pytest.fixture
def vbo_server(vbo_start: "aiovbo.testing.Starter") -> "aiovbo.testing.BackupServer":
    """A running backup server, a new one for each test."""
    return vbo_start(aiovbo.testing.BackupServer())


@pytest.fixture
def vbo_fleet_size() -> int:
    """How many servers `vbo_fleet` has; override it for another number."""
    return 3


@pytest.fixture
def vbo_fleet(vbo_start: "aiovbo.testing.Starter", vbo_fleet_size: int) -> "aiovbo.testing.BackupFleet":
    """Several running backup servers of different versions, new ones for each test."""
    return vbo_start(aiovbo.testing.BackupFleet(vbo_fleet_size))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test fails, show what was requested from its servers, and how they responded."""
    report = yield
    start = item.stash.get(_STARTER, None)
    if report.failed and start is not None:
        unasked: list[str] = []
        for server in _servers(start):
            asked = [str(one) for one in server.requests]
            if not asked:
                unasked.append(server.name)
                continue
            left_out = [f"({len(asked) - _SHOWN} more before)"] if len(asked) > _SHOWN else []
            text = "\n".join([*left_out, *asked[-_SHOWN:]])
            report.sections.append((f"requests to {server.name}", text))
        if unasked:
            report.sections.append(("no requests to", ", ".join(unasked)))
    return report


def _servers(start: "aiovbo.testing.Starter") -> "Iterator[aiovbo.testing.BackupServer]":
    for service in start.started:
        if isinstance(service, aiovbo.testing.BackupServer):
            yield service
        elif isinstance(service, aiovbo.testing.BackupFleet):
            yield from service
