"""The documented v4 answer, byte for byte over TLS, from a server that knows nothing else."""

from datetime import UTC, datetime
from uuid import UUID

from harness.documents import V4_EXAMPLE
from harness.raw import RawServer, http, json_answer, vbo_routes

from aiovbo import (
    TLS,
    BackupOrganization,
    Fleet,
    Password,
    RestoreSessionResult,
    RestoreSessionState,
    RestoreSessionType,
    Server,
)
from aiovbo.testing import Authority

FIRST, SECOND = "0800471b-d0e2-422b-9d7c-35d15661c3fb", "9f786f0f-de9a-4a90-8118-093b6cb2c4fc"


async def test_the_documented_v4_answer_comes_out_right_in_every_field() -> None:
    """Two sessions; their links name an unknown host, and lead to the server that sent them."""
    organization = {"id": str(UUID(int=7)), "name": "abc.onmicrosoft.com", "_links": {}}
    with Authority() as authority:
        async with RawServer({}, ssl=authority.server_context) as raw:
            path = f"/v4/restoresessions/{FIRST}/organization"
            raw.script = {**vbo_routes(V4_EXAMPLE), ("GET", path): json_answer(organization)}
            server = Server(
                raw.url, Password("u", "p"), name="abc", api_version="v4", tls=TLS(ca_file=authority.ca_file)
            )
            async with Fleet([server]) as fleet:
                first, second = (await fleet.restore_sessions()).items
                assert first.id == UUID(FIRST)
                assert first.type is RestoreSessionType.VEX
                assert first.creation_time == datetime(2018, 6, 29, 7, 42, 21, 191694, UTC)
                assert first.end_time == datetime(2018, 6, 29, 8, 14, 58, 353283, UTC)
                assert first.state is RestoreSessionState.STOPPED
                assert first.result is RestoreSessionResult.SUCCESS
                assert second.id == UUID(SECOND)
                assert second.creation_time == datetime(2017, 6, 29, 8, 30, 5, 98397, UTC)
                assert second.end_time is None
                assert second.state is RestoreSessionState.WORKING
                assert second.result is RestoreSessionResult.SUCCESS
                for session in (first, second):
                    assert session.server == "abc"
                    assert session.name is session.organization is session.initiated_by is None
                    assert session.details is session.scope_name is session.client_host is None
                    assert session.reason is session.etag is None
                    assert dict(session.extra) == {}
                    assert set(session.links) == {"self", "organization"}
                assert first.links["organization"].href == f"https://abc.tech.local:4443{path}"
                assert str(first.links["organization"].url) == f"{raw.url}{path}"
                assert len(raw.requests) == 2
                found = await first.fetch_organization()
                assert isinstance(found, BackupOrganization)
                assert found.name == "abc.onmicrosoft.com"
                assert raw.requests[-1].target == path


async def test_the_question_is_the_documented_one() -> None:
    """Method, path, parameters and header, as the vendor's page has them."""
    async with RawServer(vbo_routes()) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")
        async with Fleet([server]) as fleet:
            await fleet.restore_sessions(
                started_after=datetime(2020, 5, 12, tzinfo=UTC),
                started_before=datetime(2020, 5, 12, 15, 55, 20, 855741, UTC),
            )
        login, listing = raw.requests
        assert (login.method, login.target) == ("POST", "/v4/token")
        assert login.headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert listing.method == "GET"
        assert listing.target == (
            "/v4/RestoreSessions?startTimeFrom=2020-05-12T00:00:00.000000Z"
            "&startTimeTo=2020-05-12T15:55:20.855741Z&limit=1000"
        )
        assert listing.headers["Authorization"] == "Bearer access-1"


async def test_a_body_in_an_unasked_shape_of_another_version_is_accepted() -> None:
    """Arrays where pages are documented, and pages where arrays are."""
    page = b'{"results": %s, "limit": 30, "offset": 0}' % V4_EXAMPLE
    for version, body in (("v4", page), ("v8", V4_EXAMPLE), ("v5", V4_EXAMPLE), ("v5", page)):
        async with RawServer(vbo_routes(sessions=http(body=body), version=version)) as raw:
            server = Server(raw.url, Password("u", "p"), allow_http=True, api_version=version)
            async with Fleet([server]) as fleet:
                (answer,) = (await fleet.restore_sessions()).answers.values()
                assert len(answer.items) == 2
                assert answer.complete
