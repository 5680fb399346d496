"""A few of the random histories of tests/seeds.py; `nox -s watching` runs thousands of them."""

import pytest
import seeds


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_a_consumer_stored_is_what_the_server_has_whatever_happened(seed: int) -> None:
    """Over quirks, faults, crashes and restarts, acknowledged in any order: nothing lost or wrong."""
    outcome = seeds.run(seed)
    assert not outcome.problems, outcome.story
    assert outcome.requests
    assert outcome.changes
