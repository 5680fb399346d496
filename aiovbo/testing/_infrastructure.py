"""What a server has beside restore sessions: jobs, their sessions and restore points, and where backups are.

Knows the API's paths and shapes of these resources, version by version. Must not know sockets or TLS.
"""

import re
from collections.abc import Callable, Mapping
from uuid import NAMESPACE_DNS, UUID, uuid5

from aiovbo.testing._answers import Json
from aiovbo.testing._routes import Api, Call, NotFoundError, ParameterError, Reply, Route, time_parameter
from aiovbo.testing._times import TICKS_PER_SECOND, to_text

_V6, _V7, _V8 = 6, 7, 8
_JOB_SESSIONS_ARE_PAGES_SINCE = 5
_RESTORE_POINTS_ARE_PAGES_SINCE = 7
_JOB_SINCE = {"lastBackup": 7, "organizationId": 8, "eTag": 8}
_JOB_SESSION_SINCE = {
    "repositoryId": 7,
    "mainSessionId": 7,
    "jobWillBeRetried": 7,
    "jobType": 7,
    "jobId": 8,
    "eTag": 8,
}
_RESTORE_POINT_SINCE = {"isDeleted": 7, "isCopy": 7, "eTag": 8}
"""Which version added a property; the others were always there."""
_JOB_STATUSES = {
    "stopped": "Stopped",
    "running": "Running",
    "succeeded": "Success",
    "failed": "Failed",
    "warning": "Warning",
}
"""Values of the parameter `status`, and the status of the sessions that it finds."""
_HOUR = 3600 * TICKS_PER_SECOND
_RUNS = 8
"""Last hours that job sessions and restore points are from."""


def organization_id(name: str | None) -> str:
    """The ID of an organization, the same on every server."""
    return str(uuid5(NAMESPACE_DNS, name or ""))


def _key(*words: object) -> str:
    return str(uuid5(NAMESPACE_DNS, " ".join(map(str, words))))


def _of_version(body: Json, call: Call, since: Mapping[str, int]) -> Json:
    return {name: value for name, value in body.items() if call.version >= since.get(name, 0)}


def _matching(call: Call, bodies: list[Json], *names: str) -> list[Json]:
    """Those that have the values of the call's parameters of these names."""
    for name in names:
        wanted = call.parameter(name)
        if wanted is not None:
            bodies = [body for body in bodies if str(body.get(name)).lower() == wanted.lower()]
    return bodies


def _jobs(api: Api, call: Call) -> list[Json]:
    """One job for each organization, run at every hour.

    Source: RESTJob, v6 to v8, 2026-11-27.
    """
    latest = api.now_ticks // _HOUR * _HOUR
    bodies: list[Json] = []
    for name in api.world.organizations:
        key = _key("job", name)
        bodies.append(
            {
                "description": f"Backup of {name}",
                "backupType": "EntireOrganization",
                "schedulePolicy": {"scheduleEnabled": True, "type": "Periodically"},
                "id": key,
                "organizationId": organization_id(name),
                "repositoryId": _key("repository", 0),
                "name": f"Backup {name.partition('.')[0]}",
                "lastRun": to_text(latest),
                "nextRun": to_text(latest + _HOUR),
                "lastBackup": to_text(latest + _HOUR // 6),
                "isEnabled": True,
                "lastStatus": "Success",
                "eTag": latest // _HOUR % 2**31,
                "_links": {
                    "self": api.links(call).href(f"Jobs/{key}"),
                    "jobSessions": api.links(call).href(f"Jobs/{key}/JobSessions"),
                },
            }
        )
    return bodies


def _list_jobs(api: Api, call: Call, _found: re.Match[str]) -> Reply:
    jobs = _matching(call, _jobs(api, call), "organizationId", "repositoryId")
    shown = [_of_version(job, call, _JOB_SINCE) for job in jobs]
    return api.listing(call, shown, "Jobs", pages_since=_V8)


def _get_job(api: Api, call: Call, found: re.Match[str]) -> Reply:
    job = _named(_jobs(api, call), found["id"], "Backup job")
    return Reply(200, _of_version(job, call, _JOB_SINCE))


def _named(bodies: list[Json], key: str, kind: str) -> Json:
    for body in bodies:
        if body["id"] == key:
            return body
    msg = f"{kind} with the ID '{key}' was not found."
    raise NotFoundError(msg)


def _runs(api: Api) -> list[tuple[str, int]]:
    """Organization and start of each run of a job, newest first."""
    latest = api.now_ticks // _HOUR * _HOUR
    return [(name, latest - hour * _HOUR) for hour in range(_RUNS) for name in api.world.organizations]


def _job_sessions(api: Api, call: Call) -> list[Json]:
    """Runs of backup jobs.

    Source: RESTJobSession, v6 to v8, 2026-11-23.
    """
    bodies: list[Json] = []
    for name, begin in _runs(api):
        key = _key("job session", name, begin)
        end = begin + _HOUR // 6
        bodies.append(
            {
                "id": key,
                "jobId": _key("job", name),
                "repositoryId": _key("repository", 0),
                "mainSessionId": key,
                "details": None,
                "creationTime": to_text(begin),
                # What is still under way has no end.
                **({"endTime": to_text(end)} if end <= api.now_ticks else {}),
                "retryCount": 0,
                "jobWillBeRetried": False,
                "progress": 100 if end <= api.now_ticks else 50,
                "jobType": "Backup",
                "status": _status_of(key) if end <= api.now_ticks else "Running",
                "eTag": 1,
                "_links": {"self": api.links(call).href(f"JobSessions/{key}")},
            }
        )
    return bodies


def _status_of(key: str) -> str:
    """How a run went: one in eight failed, one in eight with a warning."""
    return {0: "Failed", 1: "Warning"}.get(UUID(key).int % 8, "Success")


def _list_job_sessions(api: Api, call: Call, found: re.Match[str]) -> Reply:
    sessions = _job_sessions(api, call)
    path, job = "JobSessions", found.groupdict().get("id")
    if job is not None:
        _named(_jobs(api, call), job, "Backup job")
        path = f"Jobs/{job}/JobSessions"
        sessions = [one for one in sessions if one["jobId"] == job]
    sessions = _matching(call, sessions, "jobType")
    latest = ""
    if call.version >= _V7:
        sessions = _matching(call, sessions, "jobId")
        latest = "endTimeUpperBound"
    if call.version >= _V8:
        sessions = _with_status(call, sessions)
    if call.version >= _V6:
        sessions = _between(call, sessions, "endTime", "endTimeLowerBound", latest)
    shown = [_of_version(one, call, _JOB_SESSION_SINCE) for one in sessions]
    return api.listing(call, shown, path, pages_since=_JOB_SESSIONS_ARE_PAGES_SINCE)


def _with_status(call: Call, sessions: list[Json]) -> list[Json]:
    """Those that have the status of the parameter, which has another word for success."""
    wanted = call.parameter("status")
    if wanted is None:
        return sessions
    status = _JOB_STATUSES.get(wanted.lower())
    if status is None:
        msg = f"The value '{wanted}' is not valid for status."
        raise ParameterError(msg)
    return [one for one in sessions if one["status"] == status]


def _get_job_session(api: Api, call: Call, found: re.Match[str]) -> Reply:
    one = _named(_job_sessions(api, call), found["id"], "Job session")
    return Reply(200, _of_version(one, call, _JOB_SESSION_SINCE))


def _between(call: Call, bodies: list[Json], field: str, earliest: str, latest: str) -> list[Json]:
    """Those whose time lies between the bounds, which are exclusive."""
    first, last = time_parameter(call, earliest), time_parameter(call, latest)
    if first is not None:
        # The server writes every time with the same number of digits: texts sort as times do.
        bodies = [body for body in bodies if field in body and str(body[field]) > to_text(first)]
    if last is not None:
        bodies = [body for body in bodies if field in body and str(body[field]) < to_text(last)]
    return bodies


def _restore_points(api: Api, call: Call) -> list[Json]:
    """What can be restored.

    Source: RESTRestorePoint, v6 to v8, 2026-11-27.
    """
    bodies: list[Json] = []
    for name, begin in _runs(api):
        key = _key("restore point", name, begin)
        bodies.append(
            {
                "id": key,
                "isDeleted": False,
                "repositoryId": _key("repository", 0),
                "backupTime": to_text(begin),
                "jobId": _key("job", name),
                "organizationId": organization_id(name),
                "isExchange": True,
                "isSharePoint": True,
                "isOneDrive": True,
                "isTeams": True,
                "isLongTermCopy": False,
                "isCopy": False,
                "isRetrieved": False,
                "eTag": 1,
                "_links": {
                    "self": api.links(call).href(f"RestorePoints/{key}"),
                    "job": api.links(call).href(f"Jobs/{_key('job', name)}"),
                },
            }
        )
    return bodies


def _list_restore_points(api: Api, call: Call, _found: re.Match[str]) -> Reply:
    kinds = ("isLongTermCopy", "isCopy", "isRetrieved")
    bodies = _matching(call, _restore_points(api, call), "organizationId", "jobId", "repositoryId", *kinds)
    bodies = _between(call, bodies, "backupTime", "from", "to")
    if (call.parameter("orderAsc") or "").lower() == "true":
        bodies.reverse()
    shown = [_of_version(one, call, _RESTORE_POINT_SINCE) for one in bodies]
    return api.listing(call, shown, "RestorePoints", pages_since=_RESTORE_POINTS_ARE_PAGES_SINCE)


def _get_restore_point(api: Api, call: Call, found: re.Match[str]) -> Reply:
    one = _named(_restore_points(api, call), found["id"], "Restore point")
    return Reply(200, _of_version(one, call, _RESTORE_POINT_SINCE))


def _proxies(api: Api, call: Call) -> list[Json]:
    key = _key("proxy", 0)
    proxy: Json = {
        "type": "Windows",
        "hostName": api.host_name,
        "port": 9193,
        "description": "Default proxy",
        "id": key,
        "isDefault": True,
        "threadsNumber": 64,
        "enableNetworkThrottling": False,
        "status": "Online",
        "_links": {
            "self": api.links(call).href(f"Proxies/{key}"),
            "repositories": api.links(call).href("BackupRepositories", [("proxyId", key)]),
        },
    }
    return [proxy]


def _repositories(api: Api, call: Call) -> list[Json]:
    key, proxy = _key("repository", 0), _key("proxy", 0)
    repository: Json = {
        "id": key,
        "name": "Default Backup Repository",
        "description": "Default backup repository",
        "hostName": api.host_name,
        "path": "C:\\VeeamRepository",
        "capacityBytes": 4_000_787_030_016,
        "freeSpaceBytes": 1_203_982_336_000,
        "isOutOfSync": False,
        "retentionType": "ItemLevel",
        "retentionPeriodType": "Yearly",
        "yearlyRetentionPeriod": "Years3",
        "retentionFrequencyType": "Daily",
        "dailyTime": "08:00:00",
        "dailyType": "Everyday",
        "proxyId": proxy,
        "_links": {
            "self": api.links(call).href(f"BackupRepositories/{key}"),
            "proxy": api.links(call).href(f"Proxies/{proxy}"),
        },
    }
    return _matching(call, [repository], "proxyId")


def _resource(path: str, kind: str, bodies: Callable[[Api, Call], list[Json]]) -> tuple[Route, Route]:
    """The routes of a list that became a page with v8, and of one of its items."""

    def listing(api: Api, call: Call, _found: re.Match[str]) -> Reply:
        return api.listing(call, bodies(api, call), path, pages_since=_V8)

    def one(api: Api, call: Call, found: re.Match[str]) -> Reply:
        return Reply(200, _named(bodies(api, call), found["id"], kind))

    pattern = path.lower()
    return (
        Route("GET", re.compile(pattern), 4, listing),
        Route("GET", re.compile(rf"{pattern}/(?P<id>[^/]+)"), 4, one),
    )


def _license(api: Api, _call: Call, _found: re.Match[str]) -> Reply:
    """The product's license: always valid for another year."""
    return Reply(
        200,
        {
            "licenseID": _key("license", api.host_name),
            "status": "Valid",
            "expirationDate": to_text(api.now_ticks + 365 * 24 * _HOUR),
            "type": "Subscription",
            "licensedTo": "TECH",
            "contactPerson": "Anna Berg",
            "email": "anna.berg@tech.local",
            "package": "Suite",
            "totalNumber": 500,
            "usedNumber": 312,
            "newNumber": 4,
        },
    )


def _health(api: Api, _call: Call, _found: re.Match[str]) -> Reply:
    """How the message server and the database are; 503 where one is not well.

    Source: RESTHealthReport, v8, 2026-11-27.
    """
    status = "Healthy" if api.is_healthy else "Unhealthy"
    how = "is established" if api.is_healthy else "is lost"
    entries: Json = {
        "nats": {"status": "Healthy", "description": "Connection to NATS server is established."},
        "database": {
            "status": status,
            "description": f"Connection to PostgreSQL configuration database {how}.",
        },
    }
    return Reply(200 if api.is_healthy else 503, {"status": status, "entries": entries})


_JOB = r"jobs/(?P<id>[^/]+)"
INFRASTRUCTURE_ROUTES = (
    Route("GET", re.compile("health"), 8, _health),
    Route("GET", re.compile("jobs"), 4, _list_jobs),
    Route("GET", re.compile(_JOB), 4, _get_job),
    Route("GET", re.compile(f"{_JOB}/jobsessions"), 4, _list_job_sessions),
    Route("GET", re.compile("jobsessions"), 4, _list_job_sessions),
    Route("GET", re.compile(r"jobsessions/(?P<id>[^/]+)"), 4, _get_job_session),
    Route("GET", re.compile("restorepoints"), 6, _list_restore_points),
    Route("GET", re.compile(r"restorepoints/(?P<id>[^/]+)"), 6, _get_restore_point),
    *_resource("Proxies", "Backup proxy", _proxies),
    *_resource("BackupRepositories", "Backup repository", _repositories),
    Route("GET", re.compile("license"), 4, _license),
)
"""The routes of jobs, backup infrastructure and license."""
