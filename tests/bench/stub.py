"""Many backup servers in one process, each a port of its own, answering prepared bytes as fast as Python can.

Run as a program, it prints where it listens, serves until its standard input ends, and answers a line with
the number of connections that it has accepted. Knows three routes and no state; its own cost is not measured.
"""

import argparse
import asyncio
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trustme
from bodies import array, page, v4_sessions, v8_sessions
from limits import raise_file_limit

TOKEN = "stub-token"
_GRANT = {
    "access_token": TOKEN,
    "refresh_token": "stub-refresh",
    "token_type": "bearer",
    "expires_in": 3600,
    "userName": "TECH\\bench",
    ".issued": "2026-11-24T00:00:00Z",
    ".expires": "2026-11-24T01:00:00Z",
}


def _response(status: str, content: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_ENDS = tuple(f"2026-11-02T00:00:{second}.0000000Z" for second in range(11, 18))
"""When sessions of a changing listing ended, in turn: seven, so that 30 and 200 servers get another one."""

VARIANTS = ("nothing changed", "one of 30 changed", "one rejected row", "all changed")
"""How the listings of v4 differ from one request to the next."""

BROKEN = ("error, JSON", "error, a page", "a page", "cut short", "not UTF-8", "escapes, cut short")
"""Responses of 4 MB that are errors, or not the JSON that was requested."""


def _variants(sessions: list[dict[str, Any]], kind: str) -> list[list[dict[str, Any]]]:
    """The listings that are sent in turn."""
    match kind:
        case "one of 30 changed":
            return [[{**sessions[0], "endTime": ended}, *sessions[1:]] for ended in _ENDS]
        case "all changed":
            return [[{**session, "endTime": ended} for session in sessions] for ended in _ENDS]
        case "one rejected row":
            return [[{name: value for name, value in sessions[0].items() if name != "id"}, *sessions[1:]]]
        case _:
            return []


_LARGE = 4_000_000


def _broken(kind: str, listing: bytes) -> bytes:
    """The response in place of a listing."""
    page = b"<html><title>Gateway</title>" + b"<p>words</p>" * (_LARGE // 12)
    rows = listing[:-1] + b"," + b",".join([listing[1:-1]] * (_LARGE // len(listing))) + b"]"
    match kind:
        case "error, JSON":
            return _response("503 Service Unavailable", b'{"message":"%b"}' % (b"words " * (_LARGE // 6)))
        case "error, a page":
            return _response("503 Service Unavailable", page)
        case "a page":
            return _response("200 OK", page)
        case "cut short":
            return _response("200 OK", rows[:-20])
        case "not UTF-8":
            return _response("200 OK", rows[: _LARGE // 2] + b"\xff" + rows[_LARGE // 2 :])
        case _:
            return _response("200 OK", b'[{"id":"' + b"\\n" * (_LARGE // 2))


_NUMBER = b"ffffffff-"


def _numbered(sessions: list[dict[str, Any]]) -> bytes:
    """A page of these sessions, whose ids begin with what stands for the page's number."""
    for session in sessions:
        session["id"] = _NUMBER.decode() + session["id"].partition("-")[2]
        for name, link in session["_links"].items():
            below = "" if name == "self" else "/organization" if name == "organization" else "/Events"
            link["href"] = f"/v8/RestoreSessions/{session['id']}{below}"
    return page(sessions)


class Answers:
    """Whole responses by path, in lower case; made once."""

    def __init__(self, items: int, pages: int = 0, variant: str = "", broken: str = "") -> None:
        old, new = v4_sessions(items), v8_sessions(items)
        self._variants = [_response("200 OK", array(listing)) for listing in _variants(old, variant)]
        if broken:
            self._variants = [_broken(broken, array(old))]
        self._turn = 0
        self.listings = {
            b"/v4/restoresessions": _response("200 OK", array(old)),
            # The peer begins with v6: it gets the very items that a v4 server sends, as a page.
            b"/v6/restoresessions": _response("200 OK", page(old, path="/v6/RestoreSessions")),
            b"/v8/restoresessions": _response("200 OK", page(new)),
        }
        self.empty = _response("200 OK", page([]))
        self.grant = _response("200 OK", json.dumps(_GRANT).encode())
        self.denied = _response("401 Unauthorized", b"")
        self.unknown = _response("404 Not Found", b"")
        self.accepted = 0
        self._items = items
        self._pages = pages
        """Pages that v8 listings have; 0: the one."""
        self._pattern = _numbered(new) if pages else b""

    def to(self, head: bytes) -> bytes:
        """The response to a request of which `head` is everything before its body."""
        target = head[head.index(b" ") + 1 : head.index(b" HTTP/")]
        path, _, query = target.lower().partition(b"?")
        if head.startswith(b"POST ") and path.endswith(b"/token"):
            return self.grant
        if b"uthorization: Bearer " not in head and b"uthorization: bearer " not in head:
            return self.denied
        if path == b"/v8/restoresessions" and self._pages:
            found = re.search(rb"offset=(\d+)", query)
            return self._page(int(found[1]) // self._items if found else 0)
        if b"offset=" in query and b"offset=0" not in query:
            return self.empty
        if self._variants and path == b"/v4/restoresessions":
            self._turn += 1
            return self._variants[self._turn % len(self._variants)]
        return self.listings.get(path, self.unknown)

    def _page(self, number: int) -> bytes:
        """The same sessions on each page, under other ids; nothing after the last one."""
        if number >= self._pages:
            return self.empty
        content = self._pattern.replace(_NUMBER, b"%08x-" % number)
        if number + 1 < self._pages:
            following = f"/v8/RestoreSessions?offset={(number + 1) * self._items}&limit={self._items}"
            content = content[:-2] + b',"next":{"href":"%b"}}}' % following.encode()
        return _response("200 OK", content)


class Connection(asyncio.Protocol):
    """One connection, kept alive; answers after `delay` seconds, and never where that is None."""

    def __init__(self, answers: Answers, delay: float | None) -> None:
        self._answers = answers
        self._delay = delay
        self._pending = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to write to."""
        self._answers.accepted += 1
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if self._delay is None:
            return
        data = self._pending + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head, end = data[: end + 2], end + 4
            if data.startswith(b"POST "):
                end += _length(head)
                if len(data) < end:
                    break
            self._answer(self._answers.to(head))
            data = data[end:]
        self._pending = data

    def _answer(self, response: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, response)
        else:
            self._transport.write(response)


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return 0 if start < 0 else int(lowered[start + 15 : lowered.index(b"\r\n", start)])


async def _listen(
    answers: Answers, count: int, delay: float | None, context: ssl.SSLContext | None, stack: ExitStack
) -> list[int]:
    loop = asyncio.get_running_loop()
    ports: list[int] = []
    for _ in range(count):
        sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        # A client that is counted by valgrind takes its time.
        patience = None if context is None else 1800
        server = await loop.create_server(
            lambda: Connection(answers, delay), sock=sock, ssl=context, ssl_handshake_timeout=patience
        )
        stack.callback(server.close)
        ports.append(sock.getsockname()[1])
    return ports


async def _serve(options: argparse.Namespace, folder: Path) -> None:
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    answers = Answers(options.items, options.pages, options.variant, options.broken)
    with ExitStack() as stack:
        facts = {
            "ca": str(ca_file),
            "plain": await _listen(answers, options.plain, options.delay, None, stack),
            "tls": await _listen(answers, options.tls, options.delay, context, stack),
            # They accept, and that is all: not even a handshake.
            "silent": await _listen(answers, options.silent, None, None, stack),
        }
        print(json.dumps(facts), flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(answers.accepted, flush=True)


class Stub:
    """The program above as a context: a process that is there while it is needed."""

    def __init__(
        self,
        *,
        plain: int = 0,
        tls: int = 0,
        silent: int = 0,
        items: int = 30,
        pages: int = 0,
        delay: float = 0.0,
        variant: str = "",
        broken: str = "",
    ) -> None:
        """As many of each kind; `variant` and `broken` say what is sent in place of a v4 listing."""
        wanted = {
            "plain": plain,
            "tls": tls,
            "silent": silent,
            "items": items,
            "pages": pages,
            "delay": delay,
            "variant": variant,
            "broken": broken,
        }
        self._arguments = [f"--{name}={value}" for name, value in wanted.items()]
        self.items = items
        """Sessions that each server has."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        facts = json.loads(self._line())
        self.ca: str = facts["ca"]
        """The file of the authority to trust."""
        self.plain = [f"http://127.0.0.1:{port}" for port in facts["plain"]]
        self.tls = [f"https://127.0.0.1:{port}" for port in facts["tls"]]
        self.silent = [f"https://127.0.0.1:{port}" for port in facts["silent"]]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def accepted(self) -> int:
        """How many connections were accepted so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    for name in ("plain", "tls", "silent", "items", "pages"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("variant", "broken"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--delay", type=float, default=0)
    options = parser.parse_args()
    raise_file_limit()
    factory = None
    with suppress(ImportError):
        # Cheaper, and a connection takes a third of the memory.
        import uvloop

        factory = uvloop.new_event_loop
    with tempfile.TemporaryDirectory() as name, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(options, Path(name)))


if __name__ == "__main__":
    main()
