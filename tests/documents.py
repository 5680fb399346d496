"""Documents of the API for tests: the documented v4 example, and random ones of every version."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

V4_EXAMPLE = b"""[{"id": "0800471b-d0e2-422b-9d7c-35d15661c3fb", "type": "Vex", "creationTime": "2018-06-29T07:42:21.191694Z",
  "endTime": "2018-06-29T08:14:58.3532833Z", "state": "Stopped", "result": "Success", "_links": {
   "self": {"href": "https://abc.tech.local:4443/v4/restoresessions/0800471b-d0e2-422b-9d7c-35d15661c3fb"},
   "organization": {"href": "https://abc.tech.local:4443/v4/restoresessions/0800471b-d0e2-422b-9d7c-35d15661c3fb/organization"}}},
 {"id": "9f786f0f-de9a-4a90-8118-093b6cb2c4fc", "type": "Vex", "creationTime": "2017-06-29T08:30:05.0983973Z",
  "state": "Working", "result": "Success", "_links": {
   "self": {"href": "https://abc.tech.local:4443/v4/restoresessions/9f786f0f-de9a-4a90-8118-093b6cb2c4fc"},
   "organization": {"href": "https://abc.tech.local:4443/v4/restoresessions/9f786f0f-de9a-4a90-8118-093b6cb2c4fc/organization"}}}]"""  # noqa: E501  # byte for byte
"""Source: help center, "Getting Restore Sessions", v4, read 2026-11-23."""


def session(number: int = 0, **changes: object) -> dict[str, Any]:
    """A v4 session as a server would send it; a change to `...` leaves the member out."""
    key = UUID(int=number + 1)
    document: dict[str, Any] = {
        "id": str(key),
        "type": "Vex",
        "creationTime": "2026-11-20T08:30:05.0983973Z",
        "endTime": "2026-11-20T09:30:05.0983979Z",
        "state": "Stopped",
        "result": "Success",
        "_links": {
            "self": {"href": f"https://abc.tech.local:4443/v4/restoresessions/{key}"},
            "organization": {"href": f"https://abc.tech.local:4443/v4/restoresessions/{key}/organization"},
        },
    }
    document |= changes
    return {name: value for name, value in document.items() if value is not ...}


def array(*documents: object) -> bytes:
    """A bare array, as v4 answers."""
    return json.dumps(documents).encode()


def page(*documents: object, **members: object) -> bytes:
    """A page, as v5 and later answer."""
    return json.dumps({"offset": 0, "limit": 30, "results": documents, **members}).encode()


def _time(text: Callable[[datetime], str]) -> st.SearchStrategy[str]:
    moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return moments.map(text)


TIMES = st.one_of(
    _time(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%f7Z")),
    _time(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ")),
    _time(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.%f9")),
    _time(lambda t: t.strftime("%Y-%m-%dT%H:%M:%S+05:30")),
    st.sampled_from(["0001-01-01T00:00:00", "9999-12-31T23:59:59.9999999Z"]),
)
TEXTS = st.one_of(st.none(), st.text(max_size=20))
SESSIONS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"id": st.uuids().map(str), "creationTime": TIMES},
    optional={
        "type": st.sampled_from(["Vex", "Veod", "vesp", "Vet", "Vxx", None]),
        "endTime": st.one_of(st.none(), TIMES),
        "state": st.sampled_from(["Working", "stopped", "Paused", None]),
        "result": st.sampled_from(["Success", "FAILED", "Cancelled", None]),
        "name": TEXTS,
        "organization": TEXTS,
        "initiatedBy": TEXTS,
        "details": TEXTS,
        "scopeName": TEXTS,
        "clientHost": TEXTS,
        "reason": TEXTS,
        "eTag": st.one_of(st.none(), st.integers(-(2**70), 2**70)),
        "_links": st.one_of(
            st.none(),
            st.just([]),
            st.dictionaries(
                st.text(max_size=5),
                st.one_of(st.none(), st.fixed_dictionaries({"href": TEXTS})),
                max_size=3,
            ),
        ),
    },
)
"""Sessions of every version, with every oddity that a session survives, and some that it does not."""
