"""A few of the random histories of tests/seeds.py; `nox -s watching` runs thousands of them."""

from pathlib import Path

import pytest
import seeds
import watch_faults


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_a_consumer_stored_is_what_the_server_has_whatever_happened(seed: int) -> None:
    """Over quirks, faults, crashes and restarts, acknowledged in any order: nothing lost or wrong."""
    outcome = seeds.run(seed)
    assert not outcome.problems, outcome.story
    assert outcome.requests
    assert outcome.changes


ALL_FAULTS = watch_faults.FAULTS | watch_faults.LEASE_FAULTS


@pytest.mark.parametrize("name", ALL_FAULTS)
def test_each_fault_can_be_put_back(name: str, tmp_path: Path) -> None:
    """The texts that `nox -s watching -- --faults` replaces exist; what comes of it is still Python."""
    watch_faults.put_back(name, tmp_path)
    for edit in ALL_FAULTS[name]:
        path = tmp_path / "aiovbo" / edit.file
        compile(path.read_text(encoding="utf-8"), path, "exec")
