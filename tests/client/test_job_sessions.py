"""Job sessions: what the server's version does not filter is filtered by the client."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from harness.backups import server_of
from harness.watches import NOW

from aiovbo import Client, ConfigError, Fleet, JobSession, JobSessionStatus, NotFoundError
from aiovbo.testing import BackupServer, Fault, World

VERSIONS = ["v4", "v5", "v6", "v7", "v8"]
LATE, EARLY = NOW - timedelta(hours=2), NOW - timedelta(hours=5)


def still(now: datetime = NOW + timedelta(minutes=5)) -> World:
    """A world that stands still while the first jobs of the hour run."""
    return World(now=now, speed=0, sessions=0)


def queries(backup: BackupServer) -> list[str]:
    """Paths and queries of the requests for job sessions."""
    return [f"{r.resource}?{r.query}" for r in backup.requests if r.resource.endswith("JobSessions")]


FILTERS: dict[str, tuple[dict[str, Any], Callable[[JobSession], bool]]] = {
    "started": (
        {"started_after": EARLY, "started_before": LATE},
        lambda one: one.creation_time is not None and EARLY < one.creation_time < LATE,
    ),
    "ended": (
        {"ended_after": EARLY, "ended_before": LATE},
        lambda one: one.end_time is not None and EARLY < one.end_time < LATE,
    ),
    "running": ({"status": "running"}, lambda one: one.end_time is None),
    "failed": ({"status": JobSessionStatus.FAILED}, lambda one: one.status == "Failed"),
    "success": ({"status": "Success"}, lambda one: one.status == "Success"),
    "several": ({"status": ["Warning", "Failed"]}, lambda one: one.status in ("Failed", "Warning")),
}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", FILTERS)
async def test_a_filter_delivers_what_fits_and_nothing_else(version: Any, case: str) -> None:
    """In every version, whether the server knows the filter or not."""
    bounds, fits = FILTERS[case]
    async with BackupServer(still(), version=version) as backup, Client(server_of(backup)) as client:
        every = await client.job_sessions()
        found = await client.job_sessions(**bounds)
        assert found == [one for one in every if fits(one)]
        assert 0 < len(found) < len(every)


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_sessions_of_one_job_are_requested_by_id_or_as_it_is(version: Any) -> None:
    """By a parameter where there is one, else by the job's own path."""
    async with BackupServer(still(), version=version) as backup, Client(server_of(backup)) as client:
        job = (await client.query("Jobs"))[1]
        found = await client.job_sessions(job=job)
        assert len(found) == 8
        assert found == await client.job_sessions(job=job["id"])
        assert found == await client.job_sessions(job=UUID(job["id"]))
        if version == "v8":
            assert {one.job_id for one in found} == {UUID(job["id"])}
        assert all(job["id"] in query for query in queries(backup))
        nothing = client.job_sessions(job=UUID(int=1))
        if version < "v7":
            with pytest.raises(NotFoundError):
                await nothing
        else:
            assert await nothing == []


async def test_what_the_version_can_filter_is_sent_to_it() -> None:
    """A page is requested as large as that of restore sessions."""
    bounds: dict[str, Any] = {"ended_after": EARLY, "ended_before": LATE, "status": "Failed"}
    expected = {
        "v4": ["limit=1000"],
        "v6": ["endTimeLowerBound", "limit=1000"],
        "v7": ["endTimeLowerBound", "endTimeUpperBound", "limit=1000"],
        "v8": ["endTimeLowerBound", "endTimeUpperBound", "status=Failed", "limit=1000"],
    }
    for version, names in expected.items():
        async with (
            BackupServer(still(), version=version) as backup,  # type: ignore[arg-type]  # one of them
            Client(server_of(backup)) as client,
        ):
            await client.job_sessions(**bounds)
            (query,) = queries(backup)
            parameters = query.partition("?")[2].split("&")
            assert [p if "Bound" not in p else p.partition("=")[0] for p in parameters] == names


async def test_a_session_that_began_long_before_the_bound_is_not_lost() -> None:
    """By its description the bound is about the creation time: a server may filter by that."""
    async with BackupServer(still(), version="v8") as backup, Client(server_of(backup)) as client:
        begun = NOW - timedelta(days=2)

        def by_creation(page: Any) -> Any:
            query = dict(part.split("=") for part in backup.requests[-1].query.split("&"))
            bound = query["endTimeLowerBound"]
            row = page["results"][0] | {"creationTime": f"{begun:%Y-%m-%dT%H:%M:%SZ}", "id": str(UUID(int=5))}
            rows = [row, *page["results"]]
            return page | {"results": [one for one in rows if one["creationTime"] > bound]}

        backup.fail(Fault.edit(by_creation), on="JobSessions")
        found = await client.job_sessions(ended_after=EARLY, status=["Success", "Failed", "Warning"])
        assert UUID(int=5) in {one.id for one in found}


async def test_rows_of_another_job_are_recognised_by_id_or_by_link() -> None:
    """A server that ignores the parameter costs time, and delivers nothing wrong."""
    async with BackupServer(still(), version="v7") as backup, Client(server_of(backup)) as client:
        job = (await client.query("Jobs"))[1]["id"]
        link = {"job": {"href": f"https://abc.tech.local:4443/v7/Jobs/{UUID(int=3)}"}}

        def mixed(page: Any) -> Any:
            first, second, *others = page["results"]
            first["jobId"] = str(UUID(int=2))
            second["_links"] |= link
            return page | {"results": [first, second, *others]}

        backup.fail(Fault.edit(mixed), on="JobSessions")
        assert len(await client.job_sessions(job=job)) == 8 - 2


@pytest.mark.parametrize(
    "bounds",
    [
        {"started_after": datetime(2026, 1, 1)},  # noqa: DTZ001  # as a caller may by mistake
        {"status": "Faild"},
        {"status": 5},
        {"status": []},
        {"page_size": 0},
    ],
)
async def test_invalid_filters_are_rejected_at_the_call(bounds: dict[str, Any]) -> None:
    """Before anything is sent, of a client and of a fleet."""
    async with BackupServer(still(), name="vbo1") as backup, Fleet([server_of(backup, name="vbo1")]) as fleet:
        for asked in (fleet, fleet["vbo1"]):
            with pytest.raises(ConfigError):
                asked.job_sessions(**bounds)
        with pytest.raises(ConfigError, match="id"):
            fleet["vbo1"].job_sessions(job="no id")
        assert backup.requests == []


async def test_a_fleet_gives_the_job_sessions_of_all_servers_beside_one_that_fails() -> None:
    """The failure is a value."""
    async with (
        BackupServer(still(), version="v6", name="good") as good,
        BackupServer(still(), version="v8", name="bad") as bad,
        Fleet([server_of(one, name=one.name) for one in (good, bad)], retries=0) as fleet,
    ):
        bad.fail(Fault.status(403), on="JobSessions")
        result = await fleet.job_sessions(ended_after=timedelta(days=30000), status="Failed")
        assert [answer.server for answer in result.failed] == ["bad"]
        assert {(one.server, one.status) for one in result.items} == {("good", JobSessionStatus.FAILED)}


async def test_a_job_session_has_every_documented_field() -> None:
    """With those that are only in the newest version."""
    document = {
        "id": str(UUID(int=1)),
        "jobId": str(UUID(int=2)),
        "repositoryId": str(UUID(int=3)),
        "mainSessionId": str(UUID(int=4)),
        "jobType": "Backup",
        "jobWillBeRetried": "true",
        "status": "NotConfigured",
        "statistics": {"processedObjects": 7},
        "eTag": "5",
    }
    found = JobSession.from_dict(document)
    ids = (found.job_id, found.repository_id, found.main_session_id)
    assert ids == (UUID(int=2), UUID(int=3), UUID(int=4))
    assert (found.job_type, found.job_will_be_retried, found.etag) == ("Backup", True, 5)
    assert found.status is JobSessionStatus.NOT_CONFIGURED
    assert found.statistics == {"processedObjects": 7}
    assert JobSession.from_dict(found.to_dict()) == found
    assert hash(found) == hash(JobSession.from_dict(found.to_dict()))
