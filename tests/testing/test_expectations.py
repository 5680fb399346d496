"""What a test can check of the requests that a server has received."""

import re
from pathlib import Path

import pytest

from aiovbo.testing import BackupServer


async def test_expect_counts_requests_by_method_and_path(connect):
    """Case does not matter, a star spans slashes, and without a method every one counts."""
    client = await connect()
    (session, *_) = (await client.get("/v8/RestoreSessions", limit="1")).body["results"]
    await client.get(f"/v7/RestoreSessions/{session['id']}/Events")
    expect = client.server.expect
    expect("GET RestoreSessions", times=1)
    expect("get restoresessions/*", times=1)
    expect("*", times=3)
    expect("POST token")
    expect("DELETE *", times=0)
    with pytest.raises(AssertionError, match=re.escape("expected 2 of 'GET RestoreSessions', received 1")):
        expect("GET RestoreSessions", times=2)
    with pytest.raises(AssertionError, match="expected at least 1 of 'GET Jobs', received 0") as caught:
        expect("GET Jobs")
    assert "200 GET /v8/RestoreSessions?limit=1" in str(caught.value)


async def test_an_expectation_of_no_request_says_that_there_was_none(connect):
    """On a server that nothing was sent to."""
    client = await connect(log_in=False)
    with pytest.raises(AssertionError, match="received 0:\n  no request"):
        client.server.expect("GET RestoreSessions")


async def test_a_further_login_is_an_assertion_error(connect):
    """One accepted login is none too many, renewing its token is no login, the next login is."""
    client = await connect(log_in=False)
    server = client.server
    server.assert_no_more_logins()
    await client.log_in()
    await client.grant("/v8/token", grant_type="refresh_token", refresh_token=client.refresh_token)
    server.assert_no_more_logins()
    server.requests.clear()
    await client.grant("/v8/token", grant_type="password", username="x", password="secret")
    with pytest.raises(AssertionError, match=r"no more logins, received 1:\n  401 POST /v8/token") as caught:
        server.assert_no_more_logins()
    assert "secret" not in str(caught.value)


async def test_logins_that_were_expected_are_none_too_many(connect):
    """Those that `expect` has counted; what follows them is."""
    client = await connect()
    await client.log_in()
    with pytest.raises(AssertionError):
        client.server.assert_no_more_logins()
    client.server.expect("POST token", times=2)
    client.server.assert_no_more_logins()
    await client.log_in()
    with pytest.raises(AssertionError):
        client.server.assert_no_more_logins()


async def test_the_ca_file_stays_while_a_server_is_stopped():
    """It goes with the end of the block, so that a restarting server can be trusted all the time."""
    async with BackupServer() as server:
        ca_file = Path(server.ca_file)
        before = ca_file.read_bytes()
        await server.stop()
        assert ca_file.read_bytes() == before
        await server.start()
        assert ca_file.read_bytes() == before
    assert not ca_file.exists()
