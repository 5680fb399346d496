"""The pytest plugin: a running backup server, or several, for any test that asks for them.

Knows pytest, which loads it by itself. The servers run in a thread of their own, so that they
serve tests of every async framework, and of none.
"""

from collections.abc import Iterator

import pytest

from aiovbo.testing import BackupFleet, BackupServer


@pytest.fixture
def vbo_server() -> Iterator[BackupServer]:
    """A running backup server, a new one for each test."""
    with BackupServer().run_in_thread() as server:
        yield server


@pytest.fixture
def vbo_fleet_size() -> int:
    """How many servers `vbo_fleet` has; override it for another number."""
    return 3


@pytest.fixture
def vbo_fleet(vbo_fleet_size: int) -> Iterator[BackupFleet]:
    """Several running backup servers of different versions, new ones for each test."""
    with BackupFleet(vbo_fleet_size).run_in_thread() as fleet:
        yield fleet
