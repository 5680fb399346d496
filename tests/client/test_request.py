"""`client.request`: any operation of the API, by the rules of all other requests."""

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from harness.raw import ANY, RawServer, Script, fin, http, in_turn, json_answer, vbo_routes

from aiovbo import Client, ConfigError, ConflictError, LinkError, Password, Response, Server, ServerError


@asynccontextmanager
async def serving(*answers: Script, method: str = "POST") -> AsyncIterator[tuple[Client, RawServer]]:
    """A client of a server that answers requests for jobs so, in turn."""
    routes = {**vbo_routes(version="v8"), (method, "/v8/Jobs/7/start"): in_turn(*answers)}
    async with RawServer(routes) as raw:
        server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v8")
        async with Client(server, retries=2) as client:
            yield client, raw


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_every_success_is_a_result_with_or_without_a_body(method: str, status: int) -> None:
    """Nothing but a GET is sent again for an empty one, and no login follows."""
    body = b"" if status == 204 else b'{"id": 7}'
    async with serving(http(status, body), method=method) as (client, raw):
        response = await client.request(method.lower(), "Jobs/7/start", json={"a": 1})
        assert (response.status, response.body) == (status, body)
        assert response.document == ({"id": 7} if body else None)
        (sent,) = raw.asked(method, "/v8/Jobs/7/start")
        assert sent.body == b'{"a": 1}'
        assert sent.headers["Authorization"] == "Bearer access-1"
        assert sent.headers["Content-Type"] == "application/json"
        assert len(raw.asked("POST", "/v8/token")) == 1


async def test_an_empty_success_of_a_get_costs_one_login_and_one_resend() -> None:
    """Servers answer a rejected token like that; where it stays empty, that is the result."""
    async with serving(http(204), http(200, b"[1]"), http(200), http(202), method="GET") as (client, raw):
        assert (await client.request("GET", "Jobs/7/start")).document == [1]
        again = await client.request("GET", "Jobs/7/start")
        assert (again.status, again.document) == (202, None)
        assert len(raw.asked("GET", ANY)) == 4
        assert len(raw.asked("POST", "/v8/token")) == 3


async def test_parameters_are_added_to_the_query() -> None:
    """Encoded; a list repeats the name, None leaves it out, a time is sent in UTC."""
    parameters: dict[str, Any] = {
        "a b": "c&d",
        "flag": True,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "ids": [1, 2],
        "none": None,
    }
    async with serving(json_answer([]), method="GET") as (client, raw):
        await client.request("GET", "Jobs/7/start?x=1", parameters=parameters)
        (sent,) = raw.asked("GET", ANY)
    assert sent.target == (
        "/v8/Jobs/7/start?x=1&a%20b=c%26d&flag=true&at=2026-01-02T00:00:00.000000Z&ids=1&ids=2"
    )


@pytest.mark.parametrize(
    ("method", "repeatable", "sent"), [("GET", False, 2), ("POST", False, 1), ("POST", True, 2)]
)
async def test_only_what_is_safe_to_repeat_is_sent_again_once_it_may_have_arrived(
    method: str,
    repeatable: bool,  # noqa: FBT001  # a parameter of the test
    sent: int,
) -> None:
    """A GET, or what the caller declares repeatable."""
    async with serving(
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", fin()], json_answer({}), method=method
    ) as (client, raw):
        if sent == 1:
            with pytest.raises(ServerError) as caught:
                await client.request(method, "Jobs/7/start", repeatable=repeatable)
            assert caught.value.attempts == 1
        else:
            assert (await client.request(method, "Jobs/7/start", repeatable=repeatable)).document == {}
        assert len(raw.asked(method, "/v8/Jobs/7/start")) == sent


async def test_other_statuses_raise_the_usual_errors() -> None:
    """With the server's message."""
    async with serving(json_answer({"message": "is running", "errorCode": None}, 409)) as (client, _):
        with pytest.raises(ConflictError, match="is running"):
            await client.request("POST", "Jobs/7/start")


async def test_what_cannot_be_sent_is_refused_before_anything_is() -> None:
    """Arguments at once, and a path that leads out of the API."""
    async with serving(json_answer({})) as (client, raw):
        refused: list[dict[str, Any]] = [
            {"method": "FETCH"},
            {"json": object()},
            {"json": float("nan")},
            {"json": datetime(2026, 1, 1)},  # noqa: DTZ001  # naive, to be refused
            {"parameters": {"a": object()}},
            {"parameters": "a=1"},
            {"path_or_href": 7},
        ]
        for arguments in refused:
            with pytest.raises(ConfigError):
                await client.request(**{"method": "POST", "path_or_href": "Jobs/7/start", **arguments})
        for path in ("../token", "/v7/Jobs", "https://evil.example/x"):
            with pytest.raises(LinkError):
                await client.request("POST", path)
        assert raw.received == 0


async def test_a_response_can_be_pickled_and_finds_headers_in_any_case() -> None:
    """Its repr shows neither headers nor body."""
    async with serving(http(200, b"text", headers=[("X-Thing", "secret")])) as (client, _):
        response = await client.request("POST", "Jobs/7/start")
    copy = pickle.loads(pickle.dumps(response))
    assert copy == response
    assert copy.headers["x-thing"] == "secret"
    assert (copy.body, copy.document) == (b"text", None)
    assert repr(copy) == "Response(status=200)"
    assert isinstance(copy, Response)
