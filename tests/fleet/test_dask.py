"""Fleets that are queried by the workers of a dask cluster; one cluster for all of these tests."""

import json
import subprocess
import sys
from typing import Any

import pytest
from harness.readme import ROOT

from aiovbo import ConfigError

pytest.importorskip("distributed")

pytestmark = [
    # A cluster of three processes starts, and one of them again: on a busy machine that takes a while.
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("dask"),
]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What a program saw that queried servers on a cluster of two workers."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "harness" / "dask_cluster.py"), "12"],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_all_sessions_arrive_and_then_the_error_of_the_server_that_failed(seen: dict[str, Any]) -> None:
    """As from a fleet in one process; a session of it can be followed in the caller's own fleet."""
    assert seen["items"] == 15
    assert seen["failed"] == ["vbo1"]
    assert seen["followed"]


def test_a_worker_logs_in_once_and_logs_out_at_the_end(seen: dict[str, Any]) -> None:
    """The second query uses the tokens of the first one; each login has its logout."""
    assert seen["logins of one query"] == seen["logins of two queries"]
    assert seen["logouts"] >= sum(seen["logins of two queries"])


def test_a_function_is_mapped_on_the_workers(seen: dict[str, Any]) -> None:
    """Answers are in the inventory's order; what is no server's failure is raised."""
    assert seen["mapped"] == ["vbo0 5", 3, True]
    assert seen["bug"] == "raised"
    assert seen["page_size"] == "refused"


def test_a_wrong_password_is_not_sent_by_every_worker(seen: dict[str, Any]) -> None:
    """As often as one process sends it, and not again by the next query."""
    assert seen["wrong passwords"] == 3
    assert seen["errors"] == 6


def test_a_worker_that_dies_costs_repeated_work(seen: dict[str, Any]) -> None:
    """Every server has one answer; at most what the worker had is done again."""
    assert seen["answers"] == [12, 12]
    assert 12 <= seen["logins with a killed worker"] <= 24


def test_a_worker_that_dies_before_the_fleet_is_closed_raises_nothing(seen: dict[str, Any]) -> None:
    """The scheduler does not know of its death yet; the worker that is left logs out."""
    assert 1 <= seen["logouts of the worker that is left"] < 12


def test_a_worker_that_dies_while_the_fleet_is_opened_is_done_without(seen: dict[str, Any]) -> None:
    """All servers answer."""
    assert seen["answers after a kill at the start"] == 20


def test_the_example_prints_the_sessions_of_all_servers(seen: dict[str, Any]) -> None:
    """From an inventory's file and the address of a cluster."""
    assert seen["restored"]
    assert seen["printed"] == seen["restored"]


def test_what_is_no_client_of_dask_is_an_error_at_once() -> None:
    """Before anything is sent."""
    from aiovbo.dask import DaskFleet  # needs the extra

    with pytest.raises(ConfigError, match=r"distributed\.Client, not str"):
        DaskFleet("tcp://127.0.0.1:8786", {"servers": {}})
