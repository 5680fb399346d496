"""Arguments to URLs, links to URLs, statuses to errors: all of it without sending anything."""

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiovbo import (
    ConfigError,
    ConflictError,
    ForbiddenError,
    LinkError,
    NotFoundError,
    PayloadError,
    RateLimitedError,
    ResponseError,
    ServerError,
    ServerFaultError,
)
from aiovbo._protocol.error_responses import error_from_response
from aiovbo._protocol.messages import Redacted, Reply
from aiovbo._protocol.session_filter import SessionFilter, TimeBound, resolve
from aiovbo._protocol.tokens import read_grant, token_form
from aiovbo._protocol.urls import resolve_link

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BASE = URL("https://10.0.0.7:4443")
PROXIED = URL("https://proxy.local:4443/vbo1")
ASKED = "/v8/RestoreSessions?limit=30"


@pytest.mark.parametrize("version", ["v4", "v5", "v6", "v7", "v8"])
def test_bounds_are_sent_in_utc_with_a_z(version: str) -> None:
    """A `+00:00` would arrive as a blank."""
    east = datetime(2026, 11, 23, 14, 0, 0, 5, timezone(timedelta(hours=2)))
    bounds = SessionFilter(started_after=timedelta(days=1), started_before=east).as_of(NOW)
    assert bounds.for_version(version)[0] == (  # type: ignore[arg-type]  # parametrised
        f"/{version}/RestoreSessions?startTimeFrom=2026-11-22T12:00:00.000000Z"
        "&startTimeTo=2026-11-23T12:00:00.000005Z&limit=1000"
    )


BOUNDS = ["started_after", "started_before", "ended_after", "ended_before"]


@pytest.mark.parametrize("names", [[name] for name in BOUNDS] + [BOUNDS], ids=",".join)
def test_every_bound_may_be_that_long_ago(names: list[str]) -> None:
    """Each by itself, and all of them together; what is no "ago" stays as it is."""
    given: dict[str, TimeBound] = dict.fromkeys(BOUNDS, NOW)
    given |= {name: timedelta(days=BOUNDS.index(name) + 1) for name in names}
    meant = {name: NOW - at if isinstance(at, timedelta) else at for name, at in given.items()}
    assert SessionFilter(**given).as_of(NOW) == SessionFilter(**meant)  # type: ignore[arg-type]  # bounds


@pytest.mark.parametrize(
    "moment",
    [
        timedelta(days=365_001),
        -timedelta(days=365_001),
        timedelta.max,
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_a_time_beyond_the_calendar_is_refused_at_the_call(moment: TimeBound) -> None:
    """Also one that only UTC cannot write; for the bounds of a listing, and the moment of a backup."""
    for make in (lambda: SessionFilter(started_after=moment), lambda: resolve(moment, NOW)):
        with pytest.raises(ConfigError, match="beyond the calendar"):
            make()


@pytest.mark.parametrize("moment", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_the_ends_of_the_calendar_are_times_like_any_other(moment: datetime) -> None:
    """As applications write "never" and "since ever"."""
    assert resolve(moment, NOW) == moment


def test_only_v8_is_asked_to_filter_by_the_end() -> None:
    """Older servers do not know these parameters."""
    bounds = SessionFilter(ended_after=NOW, ended_before=NOW, page_size=7).as_of(NOW)
    assert bounds.for_version("v7")[0] == "/v7/RestoreSessions?limit=7"
    assert "endTimeFrom=2026-11-23T12:00:00.000000Z&endTimeTo=" in bounds.for_version("v8")[0]


@pytest.mark.parametrize("name", BOUNDS)
def test_a_naive_time_is_refused_at_the_call(name: str) -> None:
    """It does not say which time zone it means."""
    with pytest.raises(ConfigError, match="time zone"):
        SessionFilter(**{name: datetime(2026, 1, 1)})  # type: ignore[arg-type]  # noqa: DTZ001  # the point


@pytest.mark.parametrize("size", [0, -1, 10_001, 1.5, "30"])
def test_a_page_size_that_the_api_refuses_is_refused_here(size: object) -> None:
    """Its most is 10,000."""
    with pytest.raises(ConfigError):
        SessionFilter(page_size=size)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    ("href", "target"),
    [
        ("https://abc.tech.local:4443/v8/restoresessions/1", "/v8/restoresessions/1"),
        ("HTTP://abc/v8/RestoreSessions?offset=30#x", "/v8/RestoreSessions?offset=30"),
        ("/v8/RestoreSessions/1/organization", "/v8/RestoreSessions/1/organization"),
        ("//evil.example/v8/x", "/v8/x"),
        ("https://good@evil.example/v8/x", "/v8/x"),
        ("http://2130706433/v8/x", "/v8/x"),
        ("https://[::1]:4443/v8/x", "/v8/x"),
        ("RestoreSessions?offset=30", "/v8/RestoreSessions?offset=30"),
        ("?offset=30", "/v8/RestoreSessions?offset=30"),
        ("?offset=2#x", "/v8/RestoreSessions?offset=2"),
        ("name", "/v8/name"),
        ("/V8/a%20b+c", "/V8/a%20b+c"),
    ],
)
def test_a_link_is_asked_at_the_configured_address(href: str, target: str) -> None:
    """Its path and query are kept byte for byte; its host is ignored."""
    assert str(resolve_link(BASE, "v8", href, ASKED)) == f"https://10.0.0.7:4443{target}"


@pytest.mark.parametrize("href", ["/v8/x", "/vbo1/v8/x", "https://abc:4443/v8/x", "x"])
def test_a_path_prefix_is_put_before_every_link(href: str) -> None:
    """A reverse proxy's prefix is unknown to the server, or known: both come out right."""
    assert str(resolve_link(PROXIED, "v8", href, ASKED)) == "https://proxy.local:4443/vbo1/v8/x"


@pytest.mark.parametrize(
    "href",
    ["", "#x", "/", "/v7/x", "/other", "https://abc", "https:evil", "ftp://abc/v8/x", "javascript:alert(1)",
     "file:///v8/x", "/v8/../v7/x", "/v8/%2e%2e/x", "/v8/%2E./x", "/v8//x", "/v8/a%2fb", "/v8/a%5cb", "/v8/.",
     "\\\\evil\\v8\\x", "/v8/\tx", "/v8/\nx", " /v8/x", "/v8/x y", "/v8/ü", "https://ev\u0456l/v8/x",
     "https://abc?/v8/x", "/v8/" + "x" * 9000],
)  # fmt: skip
def test_a_link_that_leads_elsewhere_is_not_followed(href: str) -> None:
    """What is not plainly under /v8/ is a LinkError."""
    with pytest.raises(LinkError):
        resolve_link(BASE, "v8", href, ASKED)


URLISH = st.text(alphabet="https:/\\@.%2eEvV8xX?#[]0123456789-_ \t\n\x00", max_size=40)


@given(URLISH)
def test_no_text_whatever_leads_to_another_host(href: str) -> None:
    """Whatever a link says, the answer is our own server under /v8/, or a LinkError."""
    for base in (BASE, PROXIED):
        try:
            url = resolve_link(base, "v8", href, ASKED)
        except LinkError:
            continue
        assert (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)
        assert url.raw_path.lower().startswith(f"{base.raw_path.rstrip('/')}/v8/")
        assert ".." not in URL(str(url)).path.split("/")


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, ResponseError, False),
        (403, ForbiddenError, False),
        (404, NotFoundError, False),
        (405, ResponseError, False),
        (409, ConflictError, False),
        (418, ResponseError, False),
        (429, RateLimitedError, True),
        (500, ServerFaultError, True),
        (501, ServerFaultError, False),
        (503, ServerFaultError, True),
        (600, ServerFaultError, False),
        (204, PayloadError, False),
        (206, PayloadError, False),
        (304, PayloadError, False),
        (307, PayloadError, False),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ServerError], *, retryable: bool) -> None:
    """And whether another try may help is known."""
    error = error_from_response(Reply(status, {}, b""), NOW)
    assert type(error) is kind
    assert error.retryable is retryable
    assert str(status) in str(error)


def test_the_servers_words_are_cut_and_its_stack_trace_is_not_shown() -> None:
    """The message is one line of at most 200 characters; the stack is of no use to the reader."""
    body = b'{"message": "out\\nof\\u001b[31m order %s", "errorCode": "HttpError", "stackTrace": "at X"}'
    error = error_from_response(Reply(500, {}, body % (b"x" * 500)), NOW)
    assert isinstance(error, ServerFaultError)
    assert error.error_code == "HttpError"
    assert error.message.startswith("out of [31m order xxx")
    assert len(error.message) == 200
    assert "at X" not in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (format_datetime(NOW + timedelta(seconds=90)), 90.0),
        (format_datetime(NOW - timedelta(days=1)), 0.0),
        ("Mon, 23 Nov 2026 12:01:30", 90.0),
        ("Mon, 23 Nov 2026 11:58:30 -0000", 0.0),
        ("Mon, 23 Nov 2026 14:01:30 +0200", 90.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Mon, 23 Nov 2026 12:00:00 +99999999999999999999", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    """Junk counts as not having said anything."""
    headers = {} if header is None else {"Retry-After": header}
    error = error_from_response(Reply(429, headers, b""), NOW)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [("3600", 3600), (3600, 3600), (0, 5), (-1, 5), (10**12, 30 * 86400), (None, 3600), ("x", 3600),
     (True, 3600)],
)  # fmt: skip
def test_a_tokens_lifetime_is_kept_within_reason(expires_in: object, lifetime: float) -> None:
    """A server that says 0 must not make us log in with every request."""
    body = b'{"access_token": "abc", "token_type": "Bearer", "expires_in": %s}'
    grant = read_grant(Reply(200, {}, body % json.dumps(expires_in).encode()))
    assert grant.lifetime == lifetime


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"access_token": null}', b'{"access_token": 5}', b'{"access_token": ""}',
     b'{"access_token": "a\\r\\nb"}', b'{"access_token": "a b"}',
     b'{"access_token": "a", "token_type": "mac"}',
     b'{"access_token": "' + b"x" * 65537 + b'"}'],
)  # fmt: skip
def test_a_login_answered_without_a_usable_token_is_a_payload_error(body: bytes) -> None:
    """It says nothing of the credentials, and no header is ever built from it."""
    with pytest.raises(PayloadError):
        read_grant(Reply(200, {}, body))


def test_the_login_form_survives_every_character() -> None:
    """What a password holds arrives as it is."""
    secret = "& + % \\ ü \U0001f511 =;"
    fields = Redacted({"grant_type": "password", "password": secret})
    assert secret not in repr(fields)
    assert parse_qs(token_form(fields, "v8").content.decode()) == {
        "grant_type": ["password"],
        "password": [secret],
        "disable_antiforgery_token": ["true"],
    }
