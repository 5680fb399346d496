"""Between aiohttp's requests and the API's calls.

Knows how a request is read, recorded, failed on purpose, and which response is sent. Must not know the API's
resources, nor how the server is started.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from functools import partial
from http.cookies import SimpleCookie
from typing import Protocol, cast
from urllib.parse import parse_qsl
from uuid import UUID

from aiohttp import web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE
from multidict import CIMultiDict
from yarl import URL

from aiovbo.testing._answers import error_body
from aiovbo.testing._clock import AnyClock, RealClock, SimClock
from aiovbo.testing._faults import Exchange, FaultScript
from aiovbo.testing._requests import ReceivedRequest, ReceivedRequests
from aiovbo.testing._routes import COOKIE, Api, Call, Reply

_LOOK_SECONDS = 0.05
"""How often a kept-back reply is looked at; a world changes in any thread, and by time alone."""

_PATH = re.compile(r"/v(?P<version>\d{1,3})(?:/(?P<resource>.*?))?/*", re.IGNORECASE | re.DOTALL)


class PlainRequest(Protocol):
    """A request that came by no connection."""

    @property
    def method(self) -> str:
        """GET or POST."""
        ...

    @property
    def url(self) -> URL:
        """The complete URL."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        ...

    @property
    def body(self) -> bytes | None:
        """The body."""
        ...


class Front:
    """Handles every request of one server."""

    def __init__(self, api: Api, faults: FaultScript, prefix: str, clock: AnyClock) -> None:
        self._clock = clock
        self._api = api
        self._faults = faults
        self._prefix = prefix.lower()
        self.received = ReceivedRequests()
        self.closing = asyncio.Event()
        """Set when the server stops; a new one for each start, because it belongs to a loop."""
        self._waiting: set[asyncio.Future[None]] = set()

    def wake(self, _key: UUID | None = None, _session: object = None) -> None:
        """Look at the replies that are kept back: something has happened."""
        for news in list(self._waiting):
            loop = news.get_loop()
            if asyncio._get_running_loop() is loop:  # noqa: SLF001  # documented; None in a thread without a loop
                _set(news)
            else:
                loop.call_soon_threadsafe(_set, news)

    @property
    def is_faultless(self) -> bool:
        """Whether no fault is planned: what comes gets its response without a connection."""
        return self._faults.is_empty

    async def respond(self, request: PlainRequest) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of the response to a request that came by no connection.

        They are what `handle` sends; faults do not take effect.
        """
        headers = CIMultiDict(request.headers)
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        form, document = _content(content_type, request.body or b"")
        received, call = self._parse(
            request.method,
            request.url,
            headers.get("Authorization", ""),
            form,
            document,
            {name: morsel.value for name, morsel in SimpleCookie(headers.get("Cookie", "")).items()},
        )
        self.received.add(received)
        response = _answer(await self._best(self._reply(call)))
        received.status = response.status
        content = response.body if isinstance(response.body, bytes) else b""
        sent = response.headers
        for cookie in response.cookies.values():
            sent.add("Set-Cookie", cookie.output(header="")[1:])
        sent.setdefault("Content-Length", str(len(content)))
        sent.setdefault("Date", rfc822_formatted_time())
        sent.setdefault("Server", SERVER_SOFTWARE)
        return response.status, sent, content

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request, or what goes wrong instead."""
        received, call = await self._read(request)
        self.received.add(received)
        fault = self._faults.next_for(received)
        if fault is None:
            response: web.StreamResponse = _answer(await self._best(self._reply(call)))
        else:
            # A fault strikes at once: a response that it spoils is never kept back.
            answer = partial(self._answer_now, call)
            refuse = partial(_refusal, 0 if call is None else call.version)
            response = await fault.act(Exchange(request, answer, refuse, self.closing, self._clock))
        if request.transport is not None and not request.transport.is_closing():
            received.status = response.status
        return response

    async def _read(self, request: web.BaseRequest) -> tuple[ReceivedRequest, Call | None]:
        form, document = _content(request.content_type, await request.read())
        authorization = request.headers.get("Authorization", "")
        return self._parse(request.method, request.rel_url, authorization, form, document, request.cookies)

    def _parse(
        self,
        method: str,
        url: URL,
        authorization: str,
        form: dict[str, str],
        document: object,
        cookies: Mapping[str, str],
    ) -> tuple[ReceivedRequest, Call | None]:
        path = url.path
        below = path[len(self._prefix) :] if path.lower().startswith(self._prefix) else ""
        found = _PATH.fullmatch(below)
        resource = (found["resource"] or "") if found else path
        scheme, _, token = authorization.partition(" ")
        if resource.lower() == "token" and isinstance(document, dict):
            # A login as JSON is a form too; no secret of it stays in the record.
            form, document = _form(cast("dict[str, object]", document)), None
        received = ReceivedRequest(
            method=method,
            path=url.raw_path,
            query=url.raw_query_string,
            version=f"v{found['version']}" if found else "",
            resource=resource,
            scheme=scheme,
            token=token,
            form=tuple(form),
            grant_type=form.get("grant_type", ""),
            document=document,
            at=self._clock.monotonic(),
        )
        if found is None:
            return received, None
        call = Call(
            method=method,
            version=int(found["version"]),
            path=resource.lower(),
            query=tuple(url.query.items()),
            form=form,
            token=token if scheme.lower() == "bearer" else None,
            cookies=cookies,
            document=document,
        )
        return received, call

    def _reply(self, call: Call | None) -> Reply:
        return Reply(404) if call is None else self._api.answer(call)

    def _answer_now(self, call: Call | None) -> web.Response:
        return _answer(self._reply(call))

    async def _best(self, reply: Reply) -> Reply:
        """The reply, kept back for as long as it states; at most until the server stops."""
        clock, closing = self._clock, self.closing
        begun = clock.monotonic()
        while reply.wait is not None and not closing.is_set():
            left = begun + reply.wait.seconds - clock.monotonic()
            if left <= 0:
                break
            if isinstance(clock, RealClock):
                await clock.wait(closing, min(left, _LOOK_SECONDS))
            else:
                await self._wait_for_news(clock, min(left, self._api.world.seconds_to_next))
            reply = reply.wait.again()
        return reply

    async def _wait_for_news(self, clock: SimClock, seconds: float) -> None:
        """Wait until something happens: in virtual time, a look costs as much as hours without one."""
        news = asyncio.get_running_loop().create_future()
        self._waiting.add(news)
        try:
            await clock.wait_for(news, seconds)
        finally:
            self._waiting.discard(news)


def _set(news: "asyncio.Future[None]") -> None:
    if not news.done():
        news.set_result(None)


def _content(content_type: str, body: bytes) -> tuple[dict[str, str], object]:
    """Form and JSON document of a body, which is one of them or neither."""
    if content_type == "application/x-www-form-urlencoded":
        return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True)), None
    return {}, _json(body) if content_type == "application/json" else None


def _json(body: bytes) -> object:
    try:
        return json.loads(body or b"null")
    except ValueError:
        return None


def _form(document: dict[str, object]) -> dict[str, str]:
    texts = {name: value for name, value in document.items() if isinstance(value, str)}
    booleans = {name: str(value) for name, value in document.items() if isinstance(value, bool)}
    return texts | booleans


def _answer(reply: Reply) -> web.Response:
    response = _response(reply)
    response.headers.update(reply.headers)
    if reply.cookie is not None:
        response.set_cookie(COOKIE, reply.cookie, httponly=True, samesite="Strict")
    return response


def _response(reply: Reply) -> web.Response:
    headers = {} if reply.retry_after is None else {"Retry-After": str(reply.retry_after)}
    if reply.body is None:
        return web.Response(status=reply.status, headers=headers)
    if reply.headers.get("Content-Type") == "text/html":
        return web.Response(status=reply.status, text=str(reply.body))
    text = json.dumps(reply.body, separators=(",", ":"))
    return web.Response(status=reply.status, text=text, content_type="application/json", headers=headers)


def _refusal(version: int, status: int) -> web.Response:
    return _response(Reply(status, error_body(version, f"The request failed ({status}).")))
