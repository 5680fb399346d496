"""A plain aiohttp client, and running servers for it to ask."""

import json
import logging
import ssl
from contextlib import AsyncExitStack

import aiohttp
import attrs
import pytest

from aiovbo.testing import BackupServer


@attrs.define
class Answer:
    """What came back: status, headers and the decoded body."""

    status: int
    headers: object
    body: object


@attrs.define
class Client:
    """A logged-on user of one server, with nothing of the SDK."""

    server: BackupServer
    http: aiohttp.ClientSession
    tls: object
    token: str = ""
    refresh_token: str = ""

    async def ask(self, method, path, *, token=None, **options):
        """One request, its answer read to the end."""
        token = self.token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self.server.url + path
        async with self.http.request(
            method, url, headers=headers, ssl=self.tls, allow_redirects=False, **options
        ) as response:
            data = await response.read()
            is_json = response.content_type == "application/json" and data
            return Answer(response.status, response.headers, json.loads(data) if is_json else data)

    async def get(self, path, *, token=None, **params):
        """One GET."""
        return await self.ask("GET", path, token=token, params=params)

    async def grant(self, path, **form):
        """One login, whatever comes of it."""
        return await self.ask("POST", path, token="", data=form)

    async def log_in(self, version=None, **form):
        """A password login that must succeed; the token is kept."""
        version = version or self.server.version
        form = {"disable_antiforgery_token": "true"} | form
        answer = await self.grant(
            f"/{version}/token",
            grant_type="password",
            username=self.server.username,
            password=self.server.password,
            **form,
        )
        assert answer.status == 200, answer
        self.token = answer.body["access_token"]
        self.refresh_token = answer.body["refresh_token"]
        return answer


@pytest.fixture
async def stack():
    """Whatever is entered is left at the end of the test, last first."""
    async with AsyncExitStack() as entered:
        yield entered


@pytest.fixture
async def client_of(stack):
    """Makes a client of a running server that is not logged in."""

    async def make(server):
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        tls = True
        if server.authority is not None:
            tls = ssl.create_default_context(cafile=server.ca_file)
        return Client(server, http, tls)

    return make


@pytest.fixture
async def connect(stack, client_of):
    """Starts a server with these options, and logs in."""

    async def make(world=None, *, log_in=True, **options):
        server = await stack.enter_async_context(BackupServer(world, **options))
        client = await client_of(server)
        if log_in:
            await client.log_in()
        return client

    return make


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Nothing that a server does on purpose is logged as a warning or an error."""
    yield
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    # In asyncio's debug mode, slow machines report every step that took long.
    assert not [text for text in warnings if not text.startswith("Executing ")]
