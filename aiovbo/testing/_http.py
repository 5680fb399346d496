"""Between aiohttp's requests and the API's calls.

Knows how a request is read, recorded, failed on purpose and answered. Must not know the API's
resources, nor how the server is started.
"""

import asyncio
import json
import re
from functools import partial
from typing import cast

from aiohttp import web

from aiovbo.testing._answers import error_body
from aiovbo.testing._clock import AnyClock, RealClock
from aiovbo.testing._faults import Exchange, FaultScript
from aiovbo.testing._requests import ReceivedRequest, ReceivedRequests
from aiovbo.testing._routes import COOKIE, Api, Call, Reply

_LOOK_SECONDS = 0.05
"""How often a kept-back reply is looked at; a world changes in any thread, and by mere time."""

_VIRTUAL_LOOK_SECONDS = 0.5
"""The same in virtual time, in which each look costs as much as a second of silence."""

_PATH = re.compile(r"/v(?P<version>\d{1,3})(?:/(?P<resource>.*?))?/*", re.IGNORECASE | re.DOTALL)


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

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to a request, or what goes wrong instead."""
        received, call = await self._read(request)
        self.received.add(received)
        fault = self._faults.next_for(received)
        if fault is None:
            response: web.StreamResponse = _answer(await self._best(self._reply(call)))
        else:
            # A fault strikes at once: an answer that it spoils is never kept back.
            answer = partial(self._answer_now, call)
            refuse = partial(_refusal, 0 if call is None else call.version)
            response = await fault.act(Exchange(request, answer, refuse, self.closing, self._clock))
        if request.transport is not None and not request.transport.is_closing():
            received.status = response.status
        return response

    async def _read(self, request: web.BaseRequest) -> tuple[ReceivedRequest, Call | None]:
        path = request.path
        below = path[len(self._prefix) :] if path.lower().startswith(self._prefix) else ""
        found = _PATH.fullmatch(below)
        resource = (found["resource"] or "") if found else path
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        fields = await request.post()
        form = {name: value for name, value in fields.items() if isinstance(value, str)}
        document = await _document(request)
        if resource.lower() == "token" and isinstance(document, dict):
            # A login as JSON is a form too; no secret of it stays in the record.
            form, document = _form(cast("dict[str, object]", document)), None
        received = ReceivedRequest(
            method=request.method,
            path=request.rel_url.raw_path,
            query=request.rel_url.raw_query_string,
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
            method=request.method,
            version=int(found["version"]),
            path=resource.lower(),
            query=tuple(request.query.items()),
            form=form,
            token=token if scheme.lower() == "bearer" else None,
            cookies=request.cookies,
            document=document,
        )
        return received, call

    def _reply(self, call: Call | None) -> Reply:
        return Reply(404) if call is None else self._api.answer(call)

    def _answer_now(self, call: Call | None) -> web.Response:
        return _answer(self._reply(call))

    async def _best(self, reply: Reply) -> Reply:
        """The reply, kept back for as long as it asks for; at most until the server stops."""
        clock, closing = self._clock, self.closing
        begun = clock.monotonic()
        while reply.wait is not None and not closing.is_set():
            left = begun + reply.wait.seconds - clock.monotonic()
            if left <= 0:
                break
            look = _LOOK_SECONDS if isinstance(clock, RealClock) else _VIRTUAL_LOOK_SECONDS
            await clock.wait(closing, min(left, look))
            reply = reply.wait.again()
        return reply


async def _document(request: web.BaseRequest) -> object:
    if request.content_type != "application/json":
        return None
    try:
        return json.loads(await request.read() or b"null")
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
