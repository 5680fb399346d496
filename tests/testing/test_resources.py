"""Events, actions, jobs and backup infrastructure, as a plain client sees them."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from aiovbo.testing import World

START = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)
ALL = ["v4", "v5", "v6", "v7", "v8"]


def frozen(sessions=1):
    return World(1, now=START, speed=0, sessions=sessions)


def path_of(link):
    return link["href"].removeprefix("https://abc.tech.local:4443")


def results(answer):
    assert answer.status == 200, answer
    return answer.body if isinstance(answer.body, list) else answer.body["results"]


@pytest.mark.parametrize("version", ALL)
async def test_an_event_has_links_and_is_read_by_its_id(connect, version):
    """`self` leads to the event, `restoreSession` to its session."""
    world = frozen()
    client = await connect(world, version=version)
    session = world.sessions[0]
    events = results(await client.get(f"/{version}/RestoreSessions/{session.id}/Events"))
    assert [event["order"] for event in events] == list(range(len(events)))
    for event in events:
        assert (await client.get(path_of(event["_links"]["self"]))).body == event
        assert (await client.get(path_of(event["_links"]["restoreSession"]))).body["id"] == str(session.id)
    unknown = await client.get(f"/{version}/RestoreSessions/{session.id}/Events/{session.id}")
    assert unknown.status == 404


@pytest.mark.parametrize("version", ALL)
async def test_the_first_event_is_the_start_of_the_session(connect, version):
    """It has type None; up to v5 its time carries an offset, later it is UTC."""
    world = frozen()
    client = await connect(world, version=version)
    session = world.sessions[0]
    first, *others = results(await client.get(f"/{version}/RestoreSessions/{session.id}/Events"))
    assert (first["type"], first["title"]) == ("None", "Restore session started")
    assert others
    assert all(event["type"] != "None" for event in others)
    ending = r"\.\d{7}\+03:00" if version in ("v4", "v5") else r"\.\d{7}Z"
    for event in (first, *others):
        assert re.search(ending + "$", event["startTime"])
        assert re.search(ending + "$", event["endTime"])
    begin = datetime.fromisoformat(re.sub(r"\d(?=[Z+])", "", first["startTime"], count=1))
    assert begin == session.creation_time


@pytest.mark.parametrize("version", ["v4", "v8"])
async def test_sessions_can_have_no_link_but_self(connect, version):
    """In lists and by themselves; the documented paths work all the same."""
    world = frozen()
    client = await connect(world, version=version, session_links="self")
    (listed,) = results(await client.get(f"/{version}/RestoreSessions"))
    assert listed["_links"].keys() == {"self"}
    path = f"/{version}/RestoreSessions/{listed['id']}"
    assert (await client.get(path)).body == listed
    assert (await client.get(f"{path}/organization")).body["name"] == listed["organization"]


async def test_a_malformed_action_of_v4_is_500(connect):
    """What is no JSON at all; JSON that is no action of v4 stays a 400."""
    world = frozen(0)
    session = world.add(end_time=None)
    client = await connect(world, version="v5")
    json = {"Content-Type": "application/json"}
    paths = [f"/v4/RestoreSessions/{session.id}/action", "/v4/Organization/action"]
    for path in paths:
        for data in (b'{"stop": nul', b""):
            headers = json | {"Authorization": f"Bearer {client.token}"}
            url = client.server.url + path
            async with client.http.post(url, data=data, headers=headers, ssl=client.tls) as response:
                body = await response.json()
                assert (response.status, body) == (500, {"message": "JSON is not well-formed"})
        assert (await client.ask("POST", path, json={"jump": None})).status == 400
    assert (await client.ask("POST", paths[0].replace("v4", "v5"), data=b"{")).status == 400
    assert (await client.ask("POST", paths[0], json={"stop": None})).status == 200


@pytest.mark.parametrize("version", ALL)
async def test_jobs_have_sessions_and_restore_points(connect, version):
    """Found by the job's own path, and by the parameter `jobId`; there is one job for each organization."""
    world = frozen()
    client = await connect(world, version=version)
    answer = await client.get(f"/{version}/Jobs")
    assert isinstance(answer.body, dict) == (version == "v8")
    jobs = results(answer)
    assert len(jobs) == len(world.organizations)
    job = jobs[1]
    assert (await client.get(path_of(job["_links"]["self"]))).body == job
    own = results(await client.get(f"/{version}/Jobs/{job['id']}/JobSessions"))
    assert len(own) == 8
    by_parameter = results(await client.get(f"/{version}/JobSessions", jobId=job["id"]))
    # Older versions ignore the parameter.
    assert (by_parameter == own) == (version >= "v7")
    assert (await client.get(path_of(own[0]["_links"]["self"]))).body == own[0]
    bound = own[3]["endTime"]
    late = results(await client.get(f"/{version}/Jobs/{job['id']}/JobSessions", endTimeLowerBound=bound))
    assert late == (own[:3] if version >= "v6" else own)
    early = results(await client.get(f"/{version}/Jobs/{job['id']}/JobSessions", endTimeUpperBound=bound))
    assert early == (own[4:] if version >= "v7" else own)
    assert (await client.get(f"/{version}/Jobs/{world.sessions[0].id}/JobSessions")).status == 404
    if version >= "v6":
        points = results(await client.get(f"/{version}/RestorePoints", jobId=job["id"]))
        assert [point["jobId"] for point in points] == [job["id"]] * 8
        upwards = await client.get(f"/{version}/RestorePoints", jobId=job["id"], orderAsc="true")
        assert results(upwards) == points[::-1]


async def test_a_job_session_that_runs_has_no_end(connect):
    """Each job runs for the first ten minutes of an hour."""
    world = World(now=START - timedelta(minutes=25), speed=0, sessions=0)
    client = await connect(world)
    newest = results(await client.get("/v8/JobSessions", limit="6"))
    assert {(one["status"], one.get("endTime")) for one in newest} == {("Running", None)}
    world.advance(timedelta(minutes=10))
    newest = results(await client.get("/v8/JobSessions", limit="6"))
    assert {one["status"] for one in newest} <= {"Success", "Failed", "Warning"}
    assert not any(one.get("endTime") is None for one in newest)


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("path", ["Proxies", "BackupRepositories"])
async def test_lists_of_the_infrastructure_became_pages_with_v8(connect, version, path):
    """Each item is read by its own link, and what it links to is there."""
    client = await connect(version=version)
    answer = await client.get(f"/{version}/{path}")
    assert isinstance(answer.body, dict) == (version == "v8")
    (one,) = results(answer)
    assert (await client.get(path_of(one["_links"]["self"]))).body == one
    assert (await client.get(f"/{version}/{path}/x")).status == 404
    assert (await client.get(f"/{version}/License")).body["status"] == "Valid"


async def test_the_links_of_the_infrastructure_lead_somewhere(connect):
    """Those of jobs, proxies and repositories."""
    client = await connect()
    for path in ("Jobs", "Proxies", "BackupRepositories", "RestorePoints"):
        one = results(await client.get(f"/v8/{path}"))[0]
        for link in one["_links"].values():
            assert (await client.get(link["href"])).status == 200, link


@pytest.mark.parametrize(("unhealthy", "status"), [(False, 200), (True, 503)])
async def test_health_is_503_with_a_report_where_a_part_is_lost(connect, unhealthy, status):
    """It came with v8, and needs a token as all else does."""
    client = await connect(unhealthy=unhealthy)
    assert (await client.get("/v8/Health", token="")).status == 401
    answer = await client.get("/v8/Health")
    assert answer.status == status
    assert answer.body["status"] == answer.body["entries"]["database"]["status"]
    assert (await client.get("/v7/Health")).status == 404


async def test_a_server_for_operators_only_closes_what_they_do_not_need(connect):
    """403 with and without a token; restore sessions and the operators' exploration stay open."""
    client = await connect(log_in=False, assertions={"app": "signed"}, operators_only=True)
    form = {"client_id": "app", "assertion": "signed", "disable_antiforgery_token": "true"}
    token = (await client.grant("/v8/token", grant_type="operator", **form)).body["access_token"]
    for path in ("ServiceInstance", "Jobs", "Organizations", "Events", "Health", "License"):
        for used in (token, ""):
            answer = await client.get(f"/v8/{path}", token=used)
            assert (answer.status, answer.body["errorCode"]) == (403, "ResourceAccessDenied"), path
    assert (await client.ask("POST", "/v8/Organization/Explore", token=token, json={})).status == 403
    assert (await client.ask("POST", "/v8/Organization/OperatorExplore", token=token, json={})).status == 201
    assert (await client.get("/v8/RestoreSessions", token=token)).status == 200
    assert (await client.get("/v8/RestoreSessions", token="")).status == 401


async def test_a_login_may_be_json(connect):
    """It counts like a form, and its secrets are not recorded."""
    client = await connect(log_in=False)
    server = client.server
    form = {"grant_type": "password", "username": server.username, "password": server.password}
    good = await client.ask("POST", "/v8/token", json=form | {"disable_antiforgery_token": True})
    assert good.body["access_token"]
    assert "Set-Cookie" not in good.headers
    assert (await client.ask("POST", "/v8/token", json=form | {"password": "x"})).status == 401
    assert (server.logins, server.refused_logins) == (1, 1)
    first = server.requests[0]
    assert (first.grant_type, set(first.form)) == ("password", {*form, "disable_antiforgery_token"})
    assert first.document is None


async def test_job_sessions_are_filtered_by_status_in_v8_only(connect):
    """Success has another name in the parameter; what is none of its values is refused."""
    client = await connect(frozen())
    every = results(await client.get("/v8/JobSessions", limit="1000"))
    for word, status in (("failed", "Failed"), ("Warning", "Warning"), ("Succeeded", "Success")):
        found = results(await client.get("/v8/JobSessions", limit="1000", status=word))
        assert found == [one for one in every if one["status"] == status]
        assert found
    assert (await client.get("/v8/JobSessions", status="Success")).status == 400
    assert len(results(await client.get("/v7/JobSessions", limit="1000", status="failed"))) == len(every)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "application/xml", "x"])
async def test_a_body_of_another_type_is_no_form(connect, content_type):
    """A multipart body without a boundary is a 400 too, and a login with it is refused."""
    client = await connect(log_in=False)
    url, sent = f"{client.server.url}/v8/token", {"Content-Type": content_type}
    async with client.http.post(url, data=b"grant_type=password", headers=sent, ssl=client.tls) as response:
        assert response.status == 400
        assert set(await response.json()) == {"message", "errorCode", "stackTrace"}


@pytest.mark.parametrize(
    "query", ["jobId=x", "organizationId=1", "orderAsc=2", "isCopy=no", "limit=4294967296"]
)
async def test_a_parameter_of_another_type_is_refused(connect, query):
    """The refusal names value and parameter; an empty value is none."""
    client = await connect()
    answer = await client.get(f"/v8/RestorePoints?{query}")
    name, _, value = query.partition("=")
    assert answer.status == 400
    assert name in answer.body["message"]
    assert value in answer.body["message"]
    assert (await client.get(f"/v8/RestorePoints?{name}=")).status == 200


async def test_options_to_explore_of_another_type_are_refused(connect):
    """A null is no option."""
    client = await connect()
    for options in ({"showDeleted": {}}, {"reason": 5}, {"scope": "all"}, {"showAllVersions": "true"}):
        answer = await client.ask("POST", "/v8/Organization/OperatorExplore", json=options)
        assert answer.status == 400
    options = dict.fromkeys(("showDeleted", "reason", "scope"))
    assert (await client.ask("POST", "/v8/Organization/OperatorExplore", json=options)).status == 201
