"""The table of what each version of the API can do."""

from typing import get_args

import pytest

from aiovbo._settings.api_versions import API_VERSIONS, ApiVersion, Feature, supports, versions_with

FEATURES: tuple[Feature, ...] = get_args(Feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_has_versions_that_follow_each_other(feature: Feature) -> None:
    """At least one, in the order of the versions, so that the first one is the oldest."""
    versions = versions_with(feature)
    first = API_VERSIONS.index(versions[0])
    assert versions == API_VERSIONS[first : first + len(versions)]


def test_the_versions_are_those_of_the_type() -> None:
    """A version that type checkers accept is one that the SDK can use."""
    assert get_args(ApiVersion) == API_VERSIONS


def test_an_older_version_lacks_what_came_later() -> None:
    """Ordering came with v8, the service instance with v6, and actions ended with v5."""
    assert [version for version in API_VERSIONS if supports(version, "order")] == ["v8"]
    assert [version for version in API_VERSIONS if supports(version, "service instance")] == [
        "v6",
        "v7",
        "v8",
    ]
    assert not supports("v6", "actions")
