"""Watching: whatever happens, the changes rebuild what the server did."""

import os

import pytest
from harness.watch_machine import WatchMachine
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

EXAMPLES = int(os.environ.get("AIOVBO_TEST_EXAMPLES", "0"))
"""More histories than the few of every day, and other ones each time."""


class WatchOfV4(WatchMachine):
    """Bare lists, and filters by the time of creation."""

    version = "v4"


class WatchOfV6(WatchMachine):
    """PageIterator."""

    version = "v6"


class WatchOfV8(WatchMachine):
    """The change feed."""

    version = "v8"


@pytest.mark.timeout(300 + 5 * EXAMPLES)
@pytest.mark.parametrize("machine", [WatchOfV4, WatchOfV6, WatchOfV8])
def test_whatever_happens_the_changes_rebuild_what_the_server_went_through(
    machine: type[WatchMachine],
) -> None:
    """Nothing is lost, every end is delivered once, and only a crash repeats a change, with its id."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            deadline=None,
            max_examples=EXAMPLES or 6,
            stateful_step_count=40,
            derandomize=not EXAMPLES,
            database=None,
            print_blob=bool(EXAMPLES),
            # A history is made shorter where there is time for it.
            phases=set(Phase) if EXAMPLES else {Phase.generate},
            suppress_health_check=list(HealthCheck),
        ),
    )
