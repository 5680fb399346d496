"""How much of one response is read: a limit for resources, and the beginning of errors."""

import json
from typing import Any

import pytest
from harness.raw import RawServer, http, json_answer, vbo_routes

from aiovbo import Client, Password, PayloadError, Server, ServerFaultError
from aiovbo._protocol.documents import completed

MIB = 1024 * 1024
PATH = ("GET", "/v4/Organizations/1")


def client_of(raw: RawServer, **options: Any) -> Client:
    """A client of a v4 server, without retries."""
    server = Server(raw.url, Password("u", "p"), allow_http=True, api_version="v4")
    return Client(server, retries=0, **options)


@pytest.mark.parametrize(
    "filler", ["x", "\ud800", '\\"', "{[,"], ids=["text", "surrogates", "escapes", "brackets"]
)
@pytest.mark.parametrize("first", [True, False])
async def test_of_an_error_response_only_the_beginning_is_read(filler: str, first: bool) -> None:  # noqa: FBT001  # a parameter of pytest
    """The message of the API is reported, whatever else the response has, and in whatever order."""
    said = {"message": "The disk is full.", "errorCode": "DiskFull"}
    filled = {"stackTrace": filler * (4 * MIB // len(filler))}
    body = json.dumps(said | filled if first else said | {"links": [1, {"a": 2}]} | filled).encode()
    async with RawServer(vbo_routes() | {PATH: http(500, body)}) as raw, client_of(raw) as client:
        with pytest.raises(ServerFaultError, match=r"HTTP 500, The disk is full\.") as caught:
            await client.fetch("Organizations/1")
        assert caught.value.error_code == "DiskFull"
        # The rest is not read: the connection cannot be used again.
        assert await client.restore_sessions() == []
        assert len(raw.connections) == 2


async def test_a_message_that_is_longer_than_what_is_read_is_reported_in_part() -> None:
    """The first 200 characters, as of every message."""
    body = json.dumps({"message": "full " * MIB}).encode()
    async with RawServer(vbo_routes() | {PATH: http(500, body)}) as raw, client_of(raw) as client:
        with pytest.raises(ServerFaultError) as caught:
            await client.fetch("Organizations/1")
    assert caught.value.message.startswith("full full full")


@pytest.mark.parametrize(
    ("begun", "whole"),
    [
        (b'{"a": "b', {"a": "b"}),
        (b'{"a": "b\\', {"a": "b"}),
        (b'{"a": "b\\u00', {"a": "b"}),
        (b'{"a": 1, "b": [1, {"c": "d', {"a": 1, "b": [1, {"c": "d"}]}),
        (b'{"a": 1, "b', {"a": 1}),
        (b'{"a": 1, "b":', {"a": 1}),
        (b'{"a": 1, "b": tru', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1,', {"a": 1}),
    ],
)
def test_the_beginning_of_an_object_is_an_object(begun: bytes, whole: object) -> None:
    """With the members that it has so far."""
    assert json.loads(completed(begun)) == whole


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1, 2", b"{", b'{"a', b"{]}]", b"}"])
def test_what_cannot_be_completed_is_returned_as_it_is(body: bytes) -> None:
    """It is no error object."""
    assert completed(body) == body


async def test_a_resource_above_its_limit_is_a_payload_error() -> None:
    """By default 1 MiB, whether its length is declared or not; a listing has `max_body`."""
    large = json_answer({"id": "1", "_links": {f"l{n}": {"href": "x" * 100} for n in range(10_000)}})
    listing = json.dumps([{"id": str(n), "text": "x" * 1000} for n in range(1200)]).encode()
    routes = vbo_routes() | {PATH: large, ("GET", "/v4/Organizations"): http(200, listing)}
    async with RawServer(routes) as raw:
        async with client_of(raw) as client:
            with pytest.raises(
                PayloadError, match=r"larger than 1,048,576 bytes.*raise max_resource"
            ) as caught:
                await client.fetch("Organizations/1")
            assert not caught.value.retryable
            assert len(await client.query("Organizations")) == 1200
        async with client_of(raw, max_resource=4 * MIB) as client:
            assert (await client.fetch("Organizations/1"))["id"] == "1"
