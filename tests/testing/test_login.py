"""Logging in: grants, rotation, expiry, revocation, lock-out, cookies."""

import pytest

from aiovbo.testing._login import Throttle

SESSIONS = "/{}/RestoreSessions"


def password_form(client, **changes):
    return {
        "grant_type": "password",
        "username": client.server.username,
        "password": client.server.password,
        "disable_antiforgery_token": "true",
    } | changes


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
@pytest.mark.parametrize("path", ["token", "Token"])
async def test_password_opens_every_version(connect, version, path):
    """The documented form gives a token pair that the API accepts."""
    client = await connect(version=version, log_in=False)
    answer = await client.grant(f"/{version}/{path}", **password_form(client))
    assert answer.status == 200
    assert answer.body.keys() == {
        "access_token",
        "refresh_token",
        "token_type",
        "expires_in",
        "userName",
        ".issued",
        ".expires",
    }
    assert (answer.body["token_type"], answer.body["expires_in"]) == ("bearer", 3600)
    token = answer.body["access_token"]
    assert (await client.get(f"/{version}/RestoreSessions", token=token)).status == 200
    assert client.server.logins == 1


async def test_name_is_taken_in_any_case_and_password_is_not(connect):
    """Windows accounts ignore case, passwords do not."""
    client = await connect(log_in=False)
    named = password_form(client, username=client.server.username.lower())
    shouted = password_form(client, password=client.server.password.upper())
    assert (await client.grant("/v8/token", **named)).status == 200
    assert (await client.grant("/v8/token", **shouted)).status == 401


async def test_odd_passwords_pass_form_encoding(connect):
    """Reserved characters, spaces and emoji arrive as they were meant."""
    client = await connect(username="ü@x.y", password="a&b+%20 \\ü🔑=")
    assert client.server.logins == 1


@pytest.mark.parametrize(
    ("version", "style", "status", "body"),
    [
        ("v4", None, 400, {"error", "error_description"}),
        ("v5", None, 400, {"error", "error_description"}),
        ("v6", None, 401, {"message"}),
        ("v7", None, 401, {"message", "errorCode"}),
        ("v8", None, 401, {"message", "errorCode", "stackTrace"}),
        ("v8", "oauth", 400, {"error", "error_description"}),
        ("v4", "vendor", 401, {"message"}),
    ],
)
async def test_wrong_password_is_refused_in_the_manner_of_the_version(connect, version, style, status, body):
    """OAuth's error with 400 up to v5, the vendor's with 401 later, or as chosen."""
    client = await connect(version=version, log_in=False, refused_login_answer=style)
    answer = await client.grant(f"/{version}/token", **password_form(client, password="no"))
    assert (answer.status, answer.body.keys()) == (status, body)
    assert (client.server.refused_logins, client.server.logins) == (1, 0)
    if status == 400:
        assert answer.body["error"] == "invalid_grant"


@pytest.mark.parametrize("grant_type", ["", "integration", "client_credentials"])
async def test_unknown_grant_is_refused_with_400(connect, grant_type):
    """What the server cannot do is not a wrong password."""
    client = await connect(log_in=False)
    answer = await client.grant("/v8/token", grant_type=grant_type)
    assert answer.status == 400
    assert client.server.refused_logins == 0


async def test_refresh_gives_a_new_pair_and_ends_only_the_old_refresh_token(connect):
    """Rotation: the old access token lives on, the old refresh token is good once."""
    client = await connect()
    old_token, form = (
        client.token,
        {
            "grant_type": "refresh_token",
            "refresh_token": client.refresh_token,
            "disable_antiforgery_token": "true",
        },
    )
    renewed = await client.grant("/v8/token", **form)
    assert renewed.status == 200
    assert renewed.body["refresh_token"] != client.refresh_token
    for token in (old_token, renewed.body["access_token"]):
        assert (await client.get("/v8/RestoreSessions", token=token)).status == 200
    assert (await client.grant("/v8/token", **form)).status == 401
    assert (client.server.refreshes, client.server.logins) == (1, 1)
    assert client.server.refused_logins == 0


async def test_tokens_expire_after_their_lifetime(connect):
    """A lifetime of no seconds gives a token that is over at once."""
    client = await connect(token_lifetime=0)
    assert (await client.get("/v8/RestoreSessions")).status == 401


async def test_expired_tokens_can_be_renewed_and_revoked_ones_cannot(connect):
    """`expire_tokens` leaves refresh tokens good, `revoke_tokens` leaves nothing."""
    client = await connect()
    client.server.expire_tokens()
    assert (await client.get("/v8/RestoreSessions")).status == 401
    form = {"grant_type": "refresh_token", "disable_antiforgery_token": "true"}
    renewed = await client.grant("/v8/token", refresh_token=client.refresh_token, **form)
    assert renewed.status == 200
    client.server.revoke_tokens()
    token = renewed.body["access_token"]
    assert (await client.get("/v8/RestoreSessions", token=token)).status == 401
    lost = await client.grant("/v8/token", refresh_token=renewed.body["refresh_token"], **form)
    assert lost.status == 401


@pytest.mark.parametrize("version", ["v7", "v8"])
async def test_logout_ends_the_pair(connect, version):
    """After a logout neither token is good, and other pairs still are."""
    client = await connect(version=version)
    other = (await client.grant(f"/{version}/token", **password_form(client))).body
    status = (await client.ask("POST", f"/{version}/token/logout")).status
    assert status == (204 if version == "v8" else 200)
    assert (await client.get(f"/{version}/RestoreSessions")).status == 401
    form = {"grant_type": "refresh_token", "refresh_token": client.refresh_token}
    assert (await client.grant(f"/{version}/token", **form)).status == 401
    token = other["access_token"]
    assert (await client.get(f"/{version}/RestoreSessions", token=token)).status == 200


JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@pytest.mark.parametrize("grant_type", [JWT_BEARER, "operator"])
async def test_an_assertion_opens_what_it_was_given_for(connect, grant_type):
    """Only that of the same client ID; a wrong one is a refused login."""
    client = await connect(log_in=False, assertions={"app": "signed"})
    waived = {"disable_antiforgery_token": "true"}
    form = {"grant_type": grant_type, "client_id": "app", "assertion": "signed"} | waived
    token = (await client.grant("/v8/token", **form)).body["access_token"]
    assert (await client.get("/v8/RestoreSessions", token=token)).status == 200
    for wrong in ({"assertion": "forged"}, {"client_id": "other"}, {"assertion": ""}):
        assert (await client.grant("/v8/token", **form | wrong)).status == 401
    assert (client.server.logins, client.server.refused_logins) == (1, 3)


async def test_a_server_for_operators_only_refuses_everybody_else(connect):
    """A password that is right, and an application; a refresh token is still taken."""
    client = await connect(log_in=False, assertions={"app": "signed"}, operators_only=True)
    form = {"client_id": "app", "assertion": "signed"}
    assert (await client.grant("/v8/token", **password_form(client))).status == 401
    assert (await client.grant("/v8/token", grant_type=JWT_BEARER, **form)).status == 401
    pair = (await client.grant("/v8/token", grant_type="operator", **form)).body
    refresh = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    assert (await client.grant("/v8/token", **refresh)).status == 200


async def test_logout_came_with_v7(connect):
    """v6 has no such path."""
    client = await connect(version="v6")
    assert (await client.ask("POST", "/v6/token/logout")).status == 404


@pytest.mark.parametrize(("version", "cookies"), [("v6", 0), ("v7", 1), ("v8", 1)])
async def test_antiforgery_cookie_is_needed_unless_waived(connect, version, cookies):
    """Without the waiver v7 and v8 set a cookie and want it back; others set none."""
    client = await connect(version=version, log_in=False)
    form = password_form(client)
    del form["disable_antiforgery_token"]
    answer = await client.grant(f"/{version}/token", **form)
    token = answer.body["access_token"]
    path = f"/{version}/RestoreSessions"
    set_cookies = answer.headers.getall("Set-Cookie", [])
    assert len(set_cookies) == cookies
    bare = await client.get(path, token=token)
    assert bare.status == (401 if cookies else 200)
    for cookie in set_cookies:
        name, _, value = cookie.partition(";")[0].partition("=")
        good = await client.ask("GET", path, token=token, cookies={name: value})
        bad = await client.ask("GET", path, token=token, cookies={name: value[1:]})
        assert (good.status, bad.status) == (200, 401)


async def test_lockout_refuses_even_the_right_password(connect):
    """After so many wrong passwords the account is locked; one right in between resets."""
    client = await connect(log_in=False, lockout_after=2)
    statuses = [
        (await client.grant("/v8/token", **password_form(client, **change))).status
        for change in ({"password": "x"}, {}, {"password": "x"}, {"password": "y"}, {}, {})
    ]
    assert statuses == [401, 200, 401, 401, 401, 401]
    assert (client.server.logins, client.server.refused_logins) == (1, 5)


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
async def test_missing_or_bad_token_is_401(connect, version):
    """The vendor's error body says so."""
    client = await connect(version=version, log_in=False)
    for token in ("", "nonsense"):
        answer = await client.get(SESSIONS.format(version), token=token)
        assert answer.status == 401
        assert "message" in answer.body


async def test_rejected_token_can_be_answered_with_an_empty_200(connect):
    """As real servers were seen to do; without any token it is 401 all the same."""
    client = await connect(rejected_token_answer="empty")
    assert (await client.get("/v8/RestoreSessions")).body["results"]
    rejected = await client.get("/v8/RestoreSessions", token="nonsense")
    assert (rejected.status, rejected.body) == (200, b"")
    assert (await client.get("/v8/RestoreSessions", token="")).status == 401


async def test_secrets_are_not_recorded(connect):
    """A record knows the fields of a login but not the password, and shows no token."""
    client = await connect()
    await client.get("/v8/RestoreSessions", limit="3")
    login, listing = client.server.requests
    assert (login.method, login.path, login.grant_type) == ("POST", "/v8/token", "password")
    assert set(login.form) == {"grant_type", "username", "password", "disable_antiforgery_token"}
    assert (listing.version, listing.resource, listing.query) == (
        "v8",
        "RestoreSessions",
        "limit=3",
    )
    assert (listing.scheme, listing.token, listing.status) == ("Bearer", client.token, 200)
    assert listing.at >= login.at
    shown = repr(client.server.requests) + repr(client.server)
    assert client.server.password not in shown
    assert client.token not in shown


async def test_the_token_endpoint_is_throttled_as_documented(connect):
    """Per minute: 429, Retry-After in seconds and a JSON string; rejected requests do not count."""
    client = await connect(log_in=False, token_limit=2)
    form = password_form(client)
    for _ in range(2):
        assert (await client.grant("/v8/token", **form)).status == 200
    for _ in range(3):
        answer = await client.grant("/v8/token", **form)
        assert answer.status == 429
        assert answer.body == "API calls quota exceeded! maximum admitted 2 per Minute."
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert client.server.logins == 2


def test_a_throttle_admits_again_after_a_minute():
    """Counted from the first request of the minute."""
    now = 100.0
    throttle = Throttle(2, lambda: now)
    assert [throttle.seconds_to_wait() for _ in range(3)] == [0, 0, 60]
    now = 130.5
    assert throttle.seconds_to_wait() == 30
    now = 160.0
    assert throttle.seconds_to_wait() == 0


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
async def test_an_integration_token_logs_in_to_v6_and_v7_only(connect, version):
    """Elsewhere the grant is not known."""
    client = await connect(version=version, log_in=False, integration_token="an-integration-token")
    form = {"grant_type": "integration", "integration_token": "an-integration-token"}
    form["disable_antiforgery_token"] = "true"
    answer = await client.grant(f"/{version}/token", **form)
    assert (answer.status == 200) is (version in {"v6", "v7"})
    wrong = await client.grant(f"/{version}/token", **(form | {"integration_token": "wrong"}))
    assert wrong.status in {400, 401}
