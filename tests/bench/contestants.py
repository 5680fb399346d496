"""Everybody who can ask many servers for their restore sessions: aiovbo and the others, by name.

Each is set up as its manual has it, and as favourably as it allows: one TLS context, connections kept for
long, nothing taken from the environment. Knows nothing of measuring beyond how long each server took.
"""

import asyncio
import importlib.util
import json
import logging
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from attrs import field, frozen

USER, PASSWORD = "TECH\\bench", "bench"
FORM = {"grant_type": "password", "username": USER, "password": PASSWORD}
KEPT = 600.0
"""Seconds for which connections are kept: rounds of others lie between two of one's own."""

_THREADS = 64

BACK = timedelta(days=3650)
"""How far back everybody asks; the sessions of the stub are all within, or aiovbo would drop them."""


def bounds() -> dict[str, str]:
    """The parameters of that question, now."""
    now = datetime.now(UTC)
    return {
        "startTimeFrom": f"{now - BACK:%Y-%m-%dT%H:%M:%S.%fZ}",
        "startTimeTo": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}",
    }


@frozen
class Aims:
    """Whom to ask, and what to trust."""

    urls: list[str]
    ca: str
    version: str = "v4"
    deadline: float = 60.0
    """Seconds that aiovbo gives each server; the other limits of all who have any follow it."""

    def context(self) -> ssl.SSLContext:
        """Trust in the stub's authority."""
        return ssl.create_default_context(cafile=self.ca)


@frozen
class Share:
    """What one server brought: how long it took, from when it was asked, and its items."""

    seconds: float
    items: Sequence[Any] = field(repr=False)


class Contestant(ABC):
    """A client of many servers; tokens and connections are kept from one `ask` to the next."""

    def __init__(self, aims: Aims) -> None:
        self.aims = aims

    @abstractmethod
    async def open(self) -> None:
        """Make the client; nothing is sent."""

    @abstractmethod
    async def ask(self) -> list[Share]:
        """The sessions of every server, once."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""


class Aiovbo(Contestant):
    """The SDK, as its README says."""

    async def open(self) -> None:
        """One fleet."""
        from aiovbo import TLS, Fleet, Password, Server  # a process measures one of them

        # Where an application writes its log is not measured.
        logging.getLogger("aiovbo").addHandler(logging.NullHandler())
        login, tls = Password(USER, PASSWORD), TLS(ca_file=self.aims.ca)
        version: Any = self.aims.version
        servers = [
            Server(url, login, api_version=version, tls=tls, allow_http=url.startswith("http:"))
            for url in self.aims.urls
        ]
        limit = self.aims.deadline
        self.fleet = Fleet(servers, deadline=limit, connect_timeout=limit / 6, read_timeout=limit / 2)

    async def ask(self) -> list[Share]:
        """One query."""
        now = datetime.now(UTC)
        result = await self.fleet.restore_sessions(started_after=now - BACK, started_before=now)
        result.raise_for_failures()
        # What is rejected was read all the same.
        return [Share(answer.elapsed, answer.items + answer.rejected) for answer in result.answers.values()]

    async def close(self) -> None:
        """The fleet's own."""
        await self.fleet.aclose()


class Gathered(Contestant):
    """One coroutine for each server, all at once: a login where there is no token, then the list."""

    def prepare(self) -> None:
        """Forget every token."""
        self.tokens: list[str | None] = [None] * len(self.aims.urls)
        self.lists = [f"{url}/{self.aims.version}/RestoreSessions" for url in self.aims.urls]
        self.logins = [f"{url}/{self.aims.version}/token" for url in self.aims.urls]

    async def ask(self) -> list[Share]:
        """Gather."""
        self.bounds = bounds()
        return await asyncio.gather(*map(self._share, range(len(self.aims.urls))))

    async def _share(self, number: int) -> Share:
        began = perf_counter()
        if self.tokens[number] is None:
            self.tokens[number] = await self.log_in(number)
        items = await self.fetch(number)
        return Share(perf_counter() - began, items)

    @abstractmethod
    async def log_in(self, number: int) -> str:
        """A token of this server."""

    @abstractmethod
    async def fetch(self, number: int) -> Sequence[Any]:
        """The sessions of this server."""

    def bearer(self, number: int) -> dict[str, str]:
        """The headers of a request."""
        return {"Authorization": f"Bearer {self.tokens[number]}", "Accept": "application/json"}


class Aiohttp(Gathered):
    """aiohttp by hand, as one writes it."""

    loads: Callable[[bytes], Any] = staticmethod(json.loads)

    async def open(self) -> None:
        """One session without a limit of connections."""
        import aiohttp

        self.prepare()
        connector = aiohttp.TCPConnector(limit=0, ssl=self.aims.context(), keepalive_timeout=KEPT)
        self.session = self.make_session(connector)

    def make_session(self, connector: Any) -> Any:  # aiohttp is not imported up here
        """The defaults of aiohttp."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self.aims.deadline * 5, sock_connect=self.aims.deadline / 2)
        return aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def log_in(self, number: int) -> str:
        """The password grant."""
        async with self.session.post(self.logins[number], data=FORM) as response:
            return str((await response.json())["access_token"])

    async def fetch(self, number: int) -> Sequence[Any]:
        """Dictionaries."""
        url, query = self.lists[number], self.query()
        async with self.session.get(url, params=query, headers=self.bearer(number)) as response:
            response.raise_for_status()
            found: list[Any] = self.loads(await response.read())
            return found

    def query(self) -> dict[str, str] | None:
        """Parameters beside the URL."""
        return self.bounds

    async def close(self) -> None:
        """The session."""
        await self.session.close()


class AiohttpOrjson(Aiohttp):
    """The same with a faster parser: what the targets are measured against."""

    async def open(self) -> None:
        """The same."""
        import orjson

        self.loads = orjson.loads
        await super().open()


class AiohttpMsgspec(Aiohttp):
    """The same with msgspec's own structs: times, UUIDs and enums, as a careful user writes it."""

    async def open(self) -> None:
        """The same."""
        from decoders import struct  # a process measures one of them

        self.loads = struct
        await super().open()


class AiohttpLean(Aiohttp):
    """aiohttp with everything off that can be: what a client made with it cannot go below."""

    def prepare(self) -> None:
        """URLs and headers once, not for each request."""
        from yarl import URL

        super().prepare()
        self.lists: list[Any] = [URL(url, encoded=True) for url in self.lists]

    def query(self) -> None:
        """None: the URL is asked as it was prepared."""

    def make_session(self, connector: Any) -> Any:  # aiohttp is not imported up here
        """No cookies, no timeouts."""
        import aiohttp

        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        )


class HttpxEach(Gathered):
    """httpx2 with a client for each server: its pool looks through all its connections for each request."""

    async def open(self) -> None:
        """As many clients as servers."""
        import httpx2

        self.prepare()
        context = self.aims.context()
        self.clients = [
            httpx2.AsyncClient(
                verify=context, timeout=60, trust_env=False, limits=httpx2.Limits(keepalive_expiry=KEPT)
            )
            for _ in range(self.pools())
        ]

    def pools(self) -> int:
        """How many clients there are."""
        return len(self.aims.urls)

    async def log_in(self, number: int) -> str:
        """The password grant."""
        client = self.clients[number % len(self.clients)]
        response = await client.post(self.logins[number], data=FORM)
        return str(response.json()["access_token"])

    async def fetch(self, number: int) -> Sequence[Any]:
        """Dictionaries."""
        client = self.clients[number % len(self.clients)]
        response = await client.get(self.lists[number], params=self.bounds, headers=self.bearer(number))
        found: list[Any] = response.raise_for_status().json()
        return found

    async def close(self) -> None:
        """Every client."""
        for client in self.clients:
            await client.aclose()


class HttpxOne(HttpxEach):
    """httpx2 with one client, as its manual advises."""

    async def open(self) -> None:
        """A pool without limits."""
        await super().open()
        import httpx2

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEPT)
        self.clients = [
            httpx2.AsyncClient(verify=self.aims.context(), timeout=60, trust_env=False, limits=limits)
        ]

    def pools(self) -> int:
        """None yet."""
        return 0


class Veeam365(Gathered):
    """The peer's async client, one for each server, as its manual says; it needs v6, which has pages."""

    async def open(self) -> None:
        """As many clients as servers, one TLS context."""
        import httpx  # its own dependency
        from veeam_365 import client as peer

        self.prepare()
        context = self.aims.context()
        version = "v6" if self.aims.version == "v4" else self.aims.version
        self.peers = [
            peer.VeeamClient(url, USER, PASSWORD, version, verify_ssl=context, timeout=60)
            for url in self.aims.urls
        ]
        for one in self.peers:
            one._httpx_args = {"limits": httpx.Limits(keepalive_expiry=KEPT)}
        self.operation = self.peers[0].api("restore_session.restore_session_get_page")

    async def log_in(self, number: int) -> str:
        """It logs in by itself."""
        return f"of {self.peers[number].host}"

    async def fetch(self, number: int) -> Sequence[Any]:
        """Its generated models."""
        query = {"start_time_from": self.bounds["startTimeFrom"], "start_time_to": self.bounds["startTimeTo"]}
        page = await self.peers[number].call(self.operation, **query)
        found: list[Any] = page.results
        return found

    async def close(self) -> None:
        """Every client."""
        for one in self.peers:
            await one.close()


class Niquests(Gathered):
    """niquests' asynchronous session."""

    async def open(self) -> None:
        """One session with a pool for each server."""
        import niquests

        self.prepare()
        count = len(self.aims.urls)
        self.session = niquests.AsyncSession(pool_connections=count, pool_maxsize=count)
        self.session.trust_env = False
        self.session.verify = self.aims.ca

    async def log_in(self, number: int) -> str:
        """The password grant."""
        response = await self.session.post(self.logins[number], data=FORM)
        return str(response.json()["access_token"])

    async def fetch(self, number: int) -> Sequence[Any]:
        """Dictionaries."""
        url, query = self.lists[number], self.bounds
        response = await self.session.get(url, params=query, headers=self.bearer(number))
        found: list[Any] = response.raise_for_status().json()
        return found

    async def close(self) -> None:
        """The session."""
        await self.session.close()


class Pyreqwest(Gathered):
    """reqwest, in Rust, with orjson."""

    async def open(self) -> None:
        """One client."""
        import orjson
        from pyreqwest.client import ClientBuilder

        self.prepare()
        self.loads = orjson.loads
        authority = Path(self.aims.ca).read_bytes()
        builder = ClientBuilder().add_root_certificate_pem(authority)
        builder = builder.pool_idle_timeout(timedelta(seconds=KEPT))
        self.client = builder.http1_only().no_proxy().error_for_status(enable=True).build()

    async def log_in(self, number: int) -> str:
        """The password grant."""
        response = await self.client.post(self.logins[number]).form(FORM).build().send()
        return str((await response.json())["access_token"])

    async def fetch(self, number: int) -> Sequence[Any]:
        """Dictionaries."""
        request = self.client.get(self.lists[number]).query(self.bounds).headers(self.bearer(number))
        response = await request.build().send()
        found: list[Any] = self.loads(memoryview(await response.bytes()))
        return found

    async def close(self) -> None:
        """The client."""
        await self.client.close()


class RequestsThreads(Gathered):
    """requests with a pool of threads, the usual way without asyncio."""

    async def open(self) -> None:
        """One session, 64 threads."""
        import requests
        from requests.adapters import HTTPAdapter

        self.prepare()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = self.aims.ca
        adapter = HTTPAdapter(pool_connections=len(self.aims.urls), pool_maxsize=_THREADS)
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)
        self.threads = ThreadPoolExecutor(_THREADS)

    async def ask(self) -> list[Share]:
        """Map."""
        self.bounds = bounds()
        return list(self.threads.map(self._blocking, range(len(self.aims.urls))))

    def _blocking(self, number: int) -> Share:
        began = perf_counter()
        if self.tokens[number] is None:
            answer = self.session.post(self.logins[number], data=FORM)
            self.tokens[number] = str(answer.json()["access_token"])
        url, query = self.lists[number], self.bounds
        response = self.session.get(url, params=query, headers=self.bearer(number))
        response.raise_for_status()
        return Share(perf_counter() - began, response.json())

    async def log_in(self, number: int) -> str:
        """Done in the threads."""
        raise NotImplementedError

    async def fetch(self, number: int) -> Sequence[Any]:
        """Done in the threads."""
        raise NotImplementedError

    async def close(self) -> None:
        """Session and threads."""
        self.session.close()
        self.threads.shutdown()


@frozen
class Entry:
    """One line of the tables."""

    cls: type[Contestant]
    needs: str
    """The distribution without which it does not take part."""
    uvloop: bool = False
    most: int = 10**6
    """Servers above which it is left out, since a round of it would take minutes."""


ENTRIES = {
    "aiovbo": Entry(Aiovbo, "aiovbo"),
    "aiovbo, uvloop": Entry(Aiovbo, "uvloop", uvloop=True),
    "aiohttp lean + json (floor)": Entry(AiohttpLean, "aiohttp"),
    "aiohttp + orjson": Entry(AiohttpOrjson, "orjson"),
    "aiohttp + msgspec, typed": Entry(AiohttpMsgspec, "msgspec"),
    "aiohttp + orjson, uvloop": Entry(AiohttpOrjson, "uvloop", uvloop=True),
    "pyreqwest + orjson": Entry(Pyreqwest, "pyreqwest"),
    "requests, 64 threads": Entry(RequestsThreads, "requests"),
    "niquests async": Entry(Niquests, "niquests"),
    "veeam-365": Entry(Veeam365, "veeam_365"),
    "httpx2, a client each": Entry(HttpxEach, "httpx2"),
    "httpx2, one client": Entry(HttpxOne, "httpx2", most=100),
}


def present(servers: int) -> list[str]:
    """The contestants that are installed and fast enough for this measurement."""
    found: list[str] = []
    for name, entry in ENTRIES.items():
        if importlib.util.find_spec(entry.needs) is None:
            print(f"left out, not installed: {name}", file=sys.stderr)
        elif servers <= entry.most:
            found.append(name)
    return found
