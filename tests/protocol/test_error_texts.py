"""Errors contain what a response states about its cause, and a hint that fits the cause."""

import json
from datetime import UTC, datetime
from html import escape

import pytest

from aiovbo import AuthenticationError, ResponseError, ServerFaultError
from aiovbo._protocol.error_responses import error_from_response, login_error, redact_secrets
from aiovbo._protocol.messages import Redacted, Reply

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)

STATED = {
    "Message, as .NET writes it": (b'{"Message": "An error has occurred."}', "An error has occurred."),
    "problem+json": (
        b'{"type": "about:blank", "title": "Invalid request", "detail": "limit is too large"}',
        "Invalid request: limit is too large",
    ),
    "a title alone": (b'{"title": "Invalid request", "status": 400}', "Invalid request"),
    "a detail alone": (b'{"detail": "limit is too large"}', "limit is too large"),
    "a page": (b"<html><head><title>Bad &amp; wrong</title></head></html>", "Bad & wrong"),
    "a page with a byte order mark": (b"\xef\xbb\xbf<TITLE lang='en'>No\n route</TITLE>", "No route"),
    "a JSON string": (b'"JSON is not well-formed"', "JSON is not well-formed"),
    "OAuth": (b'{"error": "x", "error_description": "The user name is unknown"}', "The user name is unknown"),
}


@pytest.mark.parametrize("form", STATED)
@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_error_contains_what_the_response_states(form: str, status: int) -> None:
    """As `message`, and in the text of the error."""
    body, words = STATED[form]
    error = error_from_response(Reply(status, {}, body), NOW)
    assert isinstance(error, ResponseError)
    assert error.message == words
    assert words.removesuffix(".") in str(error)


@pytest.mark.parametrize(
    "body",
    ['{"Message": "%s"}', '{"title": "%s"}', "<title>%s</title>", '"%s"', '{"error_description": "%s"}'],
)
def test_stated_words_are_one_printable_line_of_200_characters(body: str) -> None:
    """Whatever form they come in."""
    words = "red\\u001b[31m\\nline " if "title>" not in body else "red\x1b[31m\nline "
    error = error_from_response(Reply(500, {}, (body % (words + "x" * 500)).encode()), NOW)
    assert isinstance(error, ResponseError)
    assert error.message.startswith("red [31m line xxx")
    assert len(error.message) == 200
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        lambda secret: json.dumps({"Message": f"bad {secret}"}),
        lambda secret: json.dumps({"title": "bad", "detail": f"bad {secret}"}),
        lambda secret: json.dumps(f"bad {secret}"),
        lambda secret: json.dumps({"Message": "bad " + json.dumps({"password": secret})}),
        lambda secret: "\ufeff<title>bad " + escape(secret) + "</title>",
        lambda secret: "<title>bad " + "".join(f"&#{ord(one)};" for one in secret) + "</title>",
        lambda secret: (
            '{"Message": "bad ' + "".join(f"\\u{ord(one):04x}" for one in secret) + '", "a": [{"b": 1}]}'
        ),
        lambda secret: '"bad ' + "".join(f"\\u{ord(one):04x}" for one in secret) + '"',
        lambda secret: json.dumps(
            {"status": "Unhealthy", "entries": {"bad": {"status": "Unhealthy", "description": secret}}}
        ).replace("+", "\\u002b"),
    ],
)
def test_stated_words_never_contain_the_secret_that_was_sent(body: object) -> None:
    """However its characters are escaped."""
    secret = 's3cr<e>t+w&rd"ö'
    assert callable(body)
    reply = redact_secrets(Reply(503, {}, body(secret).encode()), Redacted({"password": secret}))
    error = error_from_response(reply, NOW)
    assert "s3cr" not in str(error)
    assert "***" in str(error)
    assert "bad" in str(error)


@pytest.mark.parametrize("length", [1_000, 200_000])
@pytest.mark.parametrize("offset", [0, 1, 500])
def test_no_part_of_a_secret_is_kept_of_a_long_page(length: int, offset: int) -> None:
    """Of a page in place of JSON the beginning is kept, also where it is full of the secret."""
    secret = "s3cret-" * 100
    body = b"<html><title>Gateway</title>" + b"x" * offset + secret.encode() * (length // 700 + 1)
    reply = redact_secrets(Reply(200, {}, body), Redacted({"password": secret}))
    assert b"s3cr" not in reply.body
    assert len(reply.body) <= 64 * 1024
    whole = redact_secrets(Reply(200, {}, body), Redacted({"password": secret}), is_json=False)
    assert whole.body == body.replace(secret.encode(), b"***")


def test_what_is_kept_of_a_long_page_has_its_title() -> None:
    """The beginning, of 64 KiB."""
    body = b"<html><title>Gateway</title>" + b"<p>words</p>" * 100_000
    reply = redact_secrets(Reply(200, {}, body), Redacted({"password": "s3cret"}))
    assert reply.body == body[: 64 * 1024]


def test_an_oauth_code_is_shown_where_there_is_no_description() -> None:
    """It is all that the response states."""
    assert "invalid_scope" in str(error_from_response(Reply(400, {}, b'{"error": "invalid_scope"}'), NOW))


def test_a_rejected_login_shows_what_dotnet_states() -> None:
    """`Message` is the API's own word, in the case that .NET writes."""
    error = login_error(Reply(401, {}, b'{"Message": "The account is disabled"}'), NOW)
    assert isinstance(error, AuthenticationError)
    assert "The account is disabled" in str(error)


def test_a_login_answered_by_another_program_shows_what_that_states() -> None:
    """As problem+json of a gateway."""
    error = login_error(Reply(403, {}, b'{"title": "Blocked by policy", "code": 7}'), NOW)
    assert not isinstance(error, AuthenticationError)
    assert "Blocked by policy" in str(error)


def test_a_version_that_a_dotnet_router_does_not_have_is_questioned() -> None:
    """Its `Message` is not an answer of this version of the API."""
    body = b'{"Message": "No HTTP resource was found that matches the request URI", "MessageDetail": "x"}'
    assert "API v7" in error_from_response(Reply(404, {}, body), NOW, "v7").hint


NGINX = b"<html><head><title>%s</title></head><body><center>nginx</center></body></html>"
HINTS = {
    "certificate missing": (400, NGINX % b"400 No required SSL certificate was sent", "client_cert="),
    "certificate rejected": (400, NGINX % b"400 The SSL certificate error", "rejects the client certificate"),
    "invalid hostname": (
        400,
        b"<HTML><TITLE>Bad Request</TITLE><BODY><h2>Bad Request - Invalid Hostname</h2></BODY></HTML>",
        "host name",
    ),
    "too large": (413, NGINX % b"413 Request Entity Too Large", "limits the size"),
    "too large, without a body": (413, b"", "limits the size"),
}


@pytest.mark.parametrize("cause", HINTS)
@pytest.mark.parametrize("of_login", [False, True])
def test_each_cause_has_a_hint_of_its_own(cause: str, *, of_login: bool) -> None:
    """For a login and for any other request."""
    status, body, hint = HINTS[cause]
    make = login_error if of_login else error_from_response
    error = make(Reply(status, {}, body), NOW)
    assert not isinstance(error, AuthenticationError)
    assert hint in error.hint


def test_a_message_of_the_api_that_mentions_a_hostname_gets_no_hint_on_proxies() -> None:
    """The words of another cause are not mistaken for the page of HTTP.sys."""
    error = error_from_response(Reply(400, {}, b'{"message": "Invalid hostname of a proxy"}'), NOW)
    assert "web service" not in error.hint


def test_an_unhealthy_server_is_shown_with_its_report() -> None:
    """v8's `Health` answers 503 with the parts that do not work."""
    body = json.dumps(
        {
            "status": "Unhealthy",
            "entries": {
                "NATS": {"status": "Unhealthy", "description": "no connection"},
                "PostgreSQL": {"status": "Healthy", "description": None},
                "Queue": {"status": "Unhealthy"},
            },
        }
    )
    error = error_from_response(Reply(503, {}, body.encode()), NOW)
    assert isinstance(error, ServerFaultError)
    assert error.message == "Unhealthy: NATS (no connection), Queue"
    assert "report" in error.hint
