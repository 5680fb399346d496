"""The versions of the REST API, and what each can do.

The only place that knows in which versions a feature exists: other modules call `supports`.
"""

from typing import Literal

ApiVersion = Literal["v4", "v5", "v6", "v7", "v8"]
"""A version of the REST API."""
API_VERSIONS: tuple[ApiVersion, ...] = ("v4", "v5", "v6", "v7", "v8")
"""The supported versions, oldest first."""

Feature = Literal[
    "actions",
    "antiforgery cookie",
    "administrator role",
    "end time filter",
    "event feed",
    "explore by data_retrieval",
    "explore by job",
    "explore by operators",
    "explore by repository",
    "explore by repository_id",
    "extended view",
    "integration tokens",
    "job filter",
    "job status filter",
    "job time filter",
    "latest job time filter",
    "logout",
    "order",
    "service instance",
    "session statistics",
]
"""Something that not every version can do."""

_VERSIONS_WITH: dict[Feature, tuple[ApiVersion, ...]] = {
    # Sessions are explored and stopped by a POST to `action`; later each action has its own path.
    "actions": ("v4", "v5"),
    # A login also sends a cookie, unless the request declines it.
    "antiforgery cookie": ("v7", "v8"),
    # A login with a password needs the role Veeam Backup Administrator.
    "administrator role": ("v8",),
    "end time filter": ("v8",),
    "event feed": ("v8",),
    "explore by data_retrieval": ("v6", "v7", "v8"),
    "explore by job": ("v6", "v7", "v8"),
    "explore by operators": ("v6", "v7", "v8"),
    "explore by repository": ("v7", "v8"),
    "explore by repository_id": ("v8",),
    # The parameter `extendedView` of organizations is required; other versions have a default.
    "extended view": ("v6",),
    "integration tokens": ("v6", "v7"),
    # Job sessions by job are a parameter; before, they have a path below the job.
    "job filter": ("v7", "v8"),
    "job status filter": ("v8",),
    "job time filter": ("v6", "v7", "v8"),
    "latest job time filter": ("v7", "v8"),
    "logout": ("v7", "v8"),
    "order": ("v8",),
    "service instance": ("v6", "v7", "v8"),
    "session statistics": ("v8",),
}  # read in the vendor's schemas, v6 to v8, and help center, v4


def supports(version: ApiVersion, feature: Feature) -> bool:
    """Whether this version of the API has the feature."""
    return version in _VERSIONS_WITH[feature]


def versions_with(feature: Feature) -> tuple[ApiVersion, ...]:
    """The versions that have the feature, oldest first."""
    return _VERSIONS_WITH[feature]
