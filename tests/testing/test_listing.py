"""DecodedPage restore sessions, and asking for one: shapes, filters, pages, links, versions."""

from datetime import UTC, datetime, timedelta

import pytest

from aiovbo.testing import World
from aiovbo.testing._times import to_text

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = ["v4", "v5", "v6", "v7", "v8"]

V4 = {"id", "type", "creationTime", "endTime", "state", "result", "_links"}
V4 |= {"name", "organization", "initiatedBy", "details"}
V6 = V4 | {"scopeName", "clientHost", "reason"}
FIELDS = {"v4": V4, "v5": V4, "v6": V6, "v7": V6, "v8": V6 | {"eTag"}}


def frozen(sessions=40):
    return World(1, now=START, speed=0, sessions=sessions)


def items(answer):
    assert answer.status == 200, answer
    return answer.body if isinstance(answer.body, list) else answer.body["results"]


@pytest.mark.parametrize("version", ALL)
async def test_fields_are_those_of_the_version(connect, version):
    """An ended session has all of them; a working one lacks its end."""
    world = frozen(0)
    working, ended = world.add(end_time=None), world.add(state="Stopped")
    client = await connect(world, version=version)
    bodies = {one["id"]: one for one in items(await client.get(f"/{version}/RestoreSessions"))}
    assert bodies[str(ended.id)].keys() == FIELDS[version]
    if version in {"v4", "v5"}:
        assert bodies[str(working.id)].keys() == FIELDS[version] - {"endTime"}
    else:
        assert bodies[str(working.id)]["endTime"] is None
    assert bodies[str(ended.id)]["endTime"] == to_text(ended.end_ticks)


@pytest.mark.parametrize("version", ALL)
async def test_times_have_seven_digits(connect, version):
    """100 ns are written out, zeros too."""
    world = frozen(0)
    times = ["2020-05-12T15:55:20.8557416Z", "2020-05-12T15:55:20.0000000Z"]
    for time in times:
        world.add(creation_time=time)
    client = await connect(world, version=version)
    listing = items(await client.get(f"/{version}/RestoreSessions"))
    assert [one["creationTime"] for one in listing] == times


@pytest.mark.parametrize("version", ALL)
async def test_links_are_in_the_manner_of_the_version(connect, version):
    """Absolute, lower-case and with the server's own name up to v5, relative later."""
    client = await connect(version=version, path_prefix="proxy/vbo")
    (session, *_) = items(await client.get(f"/{version}/RestoreSessions"))
    links = {name: link["href"] for name, link in session["_links"].items()}
    old = version in {"v4", "v5"}
    path = f"/{version}/RestoreSessions/{session['id']}"
    base = f"https://abc.tech.local:4443{path.lower()}" if old else path
    expected = {"self": base, "organization": f"{base}/organization"}
    if version != "v4":
        expected["restoreSessionEvents"] = f"{base}/events"
    assert links == expected


@pytest.mark.parametrize("version", ["v4", "v8"])
async def test_a_list_as_a_bare_array_is_whole_unless_limited(connect, version):
    """`limit` and `offset` cut the array."""
    world = frozen(45)
    client = await connect(world, version=version, list_shape="array")
    ids = [str(one.id) for one in world.sessions]
    whole = await client.get(f"/{version}/RestoreSessions")
    assert [one["id"] for one in whole.body] == ids
    part = await client.get(f"/{version}/RestoreSessions", limit="3", offset="4")
    assert [one["id"] for one in part.body] == ids[4:7]


@pytest.mark.parametrize("version", ALL)
async def test_links_lead_through_all_pages_to_the_end(connect, version):
    """Following `next` gives every session once, in order; the last page has no `next`."""
    world = frozen(65)
    client = await connect(world, version=version)
    path, seen, pages = f"/{version}/RestoreSessions", [], []
    while path:
        page = (await client.get(path)).body
        seen += [one["id"] for one in page["results"]]
        pages.append(page)
        link = page["_links"].get("next")
        path = link["href"].removeprefix("https://abc.tech.local:4443") if link else None
    assert seen == [str(one.id) for one in world.sessions]
    assert [page["offset"] for page in pages] == [0, 30, 60]
    assert {page["limit"] for page in pages} == {30}
    assert [sorted(page["_links"]) for page in pages] == [
        ["first", "next", "self"],
        ["first", "next", "prev", "self"],
        ["first", "prev", "self"],
    ]
    assert all(page.get("totalCount") == (None if version == "v8" else 65) for page in pages)
    assert ("totalCount" in pages[0]) == (version != "v8")
    assert all(page["setId"] for page in pages)


async def test_page_links_keep_the_filters(connect):
    """The next page is one of the same question."""
    world = frozen(40)
    client = await connect(world)
    bound = to_text(world.sessions[19].creation_ticks)
    first = (await client.get("/v8/RestoreSessions", startTimeFrom=bound, orderAsc="true", limit="10")).body
    assert len(first["results"]) == 10
    second = (await client.get(first["_links"]["next"]["href"])).body
    assert len(second["results"]) == 9
    assert "next" not in second["_links"]
    rest = (await client.get(second["_links"]["prev"]["href"])).body
    assert rest["results"] == first["results"]


async def test_exact_multiple_of_the_page_size_has_no_empty_last_page(connect):
    """With 40 sessions in pages of 20 the second has no `next`."""
    client = await connect(frozen(40))
    page = (await client.get("/v8/RestoreSessions", limit="20", offset="20")).body
    assert len(page["results"]) == 20
    assert "next" not in page["_links"]


async def test_offset_beyond_the_end_gives_an_empty_page(connect):
    """No session, no `next`."""
    page = (await (await connect(frozen(4))).get("/v8/RestoreSessions", offset="99")).body
    assert page["results"] == []
    assert "next" not in page["_links"]


async def test_page_size_has_a_maximum(connect):
    """More than the maximum gives the maximum; the page says so."""
    client = await connect(frozen(12), page_limit_max=5)
    for params in ({"limit": "100"}, {}):
        page = (await client.get("/v8/RestoreSessions", **params)).body
        assert (page["limit"], len(page["results"])) == (5, 5)


@pytest.mark.parametrize("version", ALL)
async def test_start_bounds_are_exclusive(connect, version):
    """A session at the bound is outside, 100 ns beside it inside."""
    world = frozen(0)
    session = world.add(creation_time="2026-11-20T10:00:00.1234567Z")
    client = await connect(world, version=version)

    async def count(**bounds):
        return len(items(await client.get(f"/{version}/restoresessions", **bounds)))

    at, before, behind = (to_text(session.creation_ticks + step) for step in (0, -1, 1))
    assert await count(startTimeFrom=at) == 0
    assert await count(startTimeFrom=before) == 1
    assert await count(startTimeTo=at) == 0
    assert await count(startTimeTo=behind) == 1
    assert await count(STARTTIMEFROM=before, starttimeto=behind) == 1


async def test_end_bounds_came_with_v8(connect):
    """Exclusive too, and nothing that works has ended; older versions do not look at them."""
    world = frozen(0)
    session = world.add(creation_time="2026-11-20T10:00:00Z", end_time="2026-11-20T11:00:00.1234567Z")
    world.add(end_time=None)
    client = await connect(world)
    at, before, behind = (to_text(session.end_ticks + step) for step in (0, -1, 1))

    async def count(version="v8", **bounds):
        return len(items(await client.get(f"/{version}/RestoreSessions", **bounds)))

    assert await count(endTimeFrom=at) == 0
    assert await count(endTimeFrom=before) == 1
    assert await count(endTimeTo=at) == 0
    assert await count(endTimeTo=behind) == 1
    assert await count("v7", endTimeFrom=at) == 2


async def test_v8_orders_as_asked(connect):
    """By creation or end, up or down; newest first if not asked."""
    world = frozen(30)
    client = await connect(world)
    ended = [one for one in world.sessions if one.end_ticks]

    async def order(**params):
        return [one["id"] for one in items(await client.get("/v8/RestoreSessions", **params))]

    newest = [str(one.id) for one in world.sessions]
    assert await order() == await order(orderBy="CreationTime", orderAsc="false") == newest
    assert await order(orderAsc="true") == newest[::-1]
    by_end = [str(one.id) for one in sorted(ended, key=lambda one: one.end_ticks)]
    assert (await order(orderBy="endtime", orderAsc="True"))[: len(ended)] == by_end


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "x"},
        {"limit": "0"},
        {"limit": "-1"},
        {"offset": "-1"},
        {"offset": "1.5"},
        {"startTimeFrom": "yesterday"},
        {"startTimeTo": "2026-13-01T00:00:00Z"},
        {"endTimeFrom": "x"},
        {"orderBy": "name"},
        {"orderAsc": "1"},
    ],
)
async def test_malformed_parameters_are_400(connect, params):
    """With the vendor's body, and in v8 its error code."""
    answer = await (await connect()).get("/v8/RestoreSessions", **params)
    assert answer.status == 400
    assert answer.body["errorCode"] == "ParameterValidationFailure"
    assert next(iter(params)).lower()[:5] in answer.body["message"].lower()


@pytest.mark.parametrize("version", ALL)
async def test_one_session_is_as_in_the_listing(connect, version):
    """Asked by its own link it says the same."""
    client = await connect(frozen(), version=version)
    (listed, *_) = items(await client.get(f"/{version}/RestoreSessions"))
    path = listed["_links"]["self"]["href"].removeprefix("https://abc.tech.local:4443")
    assert (await client.get(path)).body == listed
    assert (await client.get(path.upper())).body == listed


@pytest.mark.parametrize("version", ALL)
async def test_organization_link_leads_to_the_backed_up_organization(connect, version):
    """It is named like the session's, and links to what can be restored."""
    world = frozen(1)
    client = await connect(world, version=version)
    (listed,) = items(await client.get(f"/{version}/RestoreSessions"))
    path = listed["_links"]["organization"]["href"].removeprefix("https://abc.tech.local:4443")
    organization = (await client.get(path)).body
    assert organization["name"] == world.sessions[0].organization
    assert organization["type"] == "Office365"
    contents = {"self", "mailboxes", "oneDrives", "sites"}
    assert organization["_links"].keys() - contents == (set() if version == "v4" else {"teams"})
    assert organization["_links"]["self"] == listed["_links"]["organization"]


async def test_sessions_of_one_organization_link_to_the_same_one(connect):
    """Its ID is that of the organization, not of the session."""
    world = World(1, sessions=5, organizations=["a", "b"])
    client = await connect(world)
    ids = {}
    for session in world.sessions:
        body = (await client.get(f"/v8/RestoreSessions/{session.id}/organization")).body
        ids.setdefault(body["name"], set()).add(body["id"])
    assert all(len(each) == 1 for each in ids.values())


@pytest.mark.parametrize(
    ("version", "code"),
    [("v4", "absent"), ("v6", "absent"), ("v7", None), ("v8", "ResourceNotFound")],
)
@pytest.mark.parametrize("below", ["", "/organization"])
@pytest.mark.parametrize("unknown", ["00000000-0000-4000-8000-000000000000", "nonsense"])
async def test_unknown_session_is_404(connect, version, code, below, unknown):
    """With the vendor's error body."""
    client = await connect(version=version)
    answer = await client.get(f"/{version}/RestoreSessions/{unknown}{below}")
    assert answer.status == 404
    assert unknown in answer.body["message"]
    assert answer.body.get("errorCode", "absent") == code


@pytest.mark.parametrize(
    ("version", "served"),
    [
        ("v8", {"v5", "v6", "v7", "v8"}),
        ("v7", {"v4", "v5", "v6", "v7"}),
        ("v6", {"v4", "v5", "v6"}),
        ("v5", {"v4", "v5"}),
        ("v4", {"v4"}),
    ],
)
async def test_served_versions_are_listed_without_a_token(connect, version, served):
    """401 where a version is served, 404 below every other; ServiceInstance came with v6."""
    client = await connect(version=version, log_in=False)
    for asked in ("v1", "v3", *ALL, "v9", "v10"):
        listing = await client.get(f"/{asked}/RestoreSessions")
        assert listing.status == (401 if asked in served else 404)
        instance = await client.get(f"/{asked}/ServiceInstance")
        documented = asked in served and asked >= "v6"
        assert instance.status == (401 if documented else 404)
        anything = await client.get(f"/{asked}/Nothing")
        assert anything.status == 404
        login = await client.grant(f"/{asked}/token", grant_type="none")
        assert login.status == (400 if asked in served else 404)
    assert set(client.server.versions) == served


async def test_versions_can_be_chosen(connect):
    """Only those chosen are served."""
    client = await connect(versions=["v8", "v4"])
    assert client.server.versions == ("v4", "v8")
    statuses = [(await client.get(f"/{one}/RestoreSessions")).status for one in ALL]
    assert statuses == [200, 404, 404, 404, 200]


async def test_service_instance_names_build_and_installation(connect):
    """The installation stays the same for one server, and differs between two."""
    one, two = await connect(version="v7"), await connect(version="v7", name="other")
    first, again = await one.get("/v7/ServiceInstance"), await one.get("/V6/serviceinstance/")
    assert first.body == again.body
    assert first.body["version"].startswith("7.")
    assert (await two.get("/v7/ServiceInstance")).body["installationId"] != first.body["installationId"]


async def test_path_prefix_is_needed(connect):
    """Behind a prefix the API is nowhere else."""
    client = await connect(path_prefix="/proxy/vbo/", log_in=False)
    assert client.server.url.endswith("/proxy/vbo")
    assert (await client.get("/v8/RestoreSessions")).status == 401
    bare = client.server.url.removesuffix("/proxy/vbo")
    async with client.http.get(f"{bare}/v8/RestoreSessions", ssl=client.tls) as response:
        assert response.status == 404
    async with client.http.get(f"{bare}/", ssl=client.tls) as response:
        assert response.status == 404


async def test_other_methods_are_405(connect):
    """A path that exists refuses what it was not made for."""
    client = await connect()
    for method, path, allowed in (("DELETE", "RestoreSessions", "GET"), ("GET", "token", "POST")):
        answer = await client.ask(method, f"/v8/{path}")
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)


async def test_world_goes_on_between_requests(connect):
    """What begins, ends, is added or removed is in the next answer."""
    world = frozen(20)
    client = await connect(world)
    before = items(await client.get("/v8/RestoreSessions"))
    world.advance(timedelta(days=2))
    added = world.add()
    world.remove(world.sessions[-1].id)
    after = items(await client.get("/v8/RestoreSessions"))
    assert after[0]["id"] == str(added.id)
    assert len(after) > len(before)
