"""Responses of all kinds as scripts of a raw server: well-formed, odd, wrong, cut off.

Knows HTTP. Must not know the SDK.
"""

import asyncio
import gzip
import zlib

from harness.raw import Connection, Script, Step, fin, half_close, http, rst

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = http(body=b'{"good": 1}')
LIMIT = 100_000
"""Most bytes of a body for the client that reads these responses."""


def turns(number: int = 12) -> Step:
    """Let the client receive what was sent before."""

    async def step(_connection: Connection) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    return step


def _sized(body: bytes, *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _packets(*parts: bytes) -> list[Script]:
    """Each part in a packet of its own."""
    return [step for part in parts for step in (part, turns())]


WELL_FORMED: dict[str, Script] = {
    "a body with a length": GOOD,
    "an empty body": _sized(b""),
    "a body in single bytes": _packets(*[bytes([byte]) for byte in GOOD]),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "a body until the connection ends": [HEAD + b"\r\n{}", fin()],
    "HTTP/1.0 until the connection ends": [b"HTTP/1.0 200 OK\r\n\r\n{}", fin()],
    "HTTP/1.0 with a length": [b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", turns(), fin()],
    "HTTP/1.0 kept open": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    "Connection: close": [_sized(b"{}", b"Connection: close"), turns(), fin()],
    "Connection: close that stays open": _sized(b"{}", b"Connection: close"),
    "Connection: Keep-Alive": _sized(b"{}", b"Connection: Keep-Alive", b"Keep-Alive: timeout=5"),
    "chunks": CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "chunks in packets": _packets(CHUNKED, b"1\r\n", b"{\r", b"\n1\r\n}\r\n", b"0\r\n", b"\r\n"),
    "a chunk extension": CHUNKED + b"2;name=value\r\n{}\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "trailers in packets": _packets(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Trailer: 1\r\n", b"\r\n"),
    "chunk sizes in capitals": CHUNKED + b"A\r\n[1,2,3,4] \r\n0\r\n\r\n",
    "no chunk": CHUNKED + b"0\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    "early hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + GOOD,
    "fifty interim responses": b"HTTP/1.1 102 Processing\r\n\r\n" * 50 + GOOD,
    "an interim response in a packet of its own": _packets(b"HTTP/1.1 100 Continue\r\n\r\n", GOOD),
    "gzip": _sized(gzip.compress(b"{}"), b"Content-Encoding: gzip"),
    "deflate": _sized(zlib.compress(b"{}"), b"Content-Encoding: deflate"),
    "two cookies": _sized(b"{}", b"Set-Cookie: a=1", b"Set-Cookie: b=2"),
    "one header twice": _sized(b"{}", b"X-Part: 1", b"X-Part: 2"),
    "UTF-16": http(body='{"a": "\u00e9"}'.encode("utf-16"), content_type="application/json; charset=utf-16"),
    "a redirect": http(302, headers=[("Location", "/v4/elsewhere")]),
    "a redirect to another host": http(301, headers=[("Location", "http://127.0.0.1:1/v4/")]),
    **{str(status): http(status, b'{"message": "no"}') for status in (400, 401, 403, 404, 409, 500, 503)},
    "429 with Retry-After": http(429, b"{}", headers=[("Retry-After", "0")]),
    "an error until the connection ends": [b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>", fin()],
    "an error of 64 KiB and more": http(500, b"x" * 70_000),
    "an error that goes on": [
        b"HTTP/1.1 500 No\r\nContent-Length: 900000\r\n\r\n" + b"x" * 80_000,
        turns(400),
    ],
    "a body of the largest size": _sized(b"[" + b" " * (LIMIT - 2) + b"]"),
    "a larger length than is read": _sized(b" " * (LIMIT + 1)),
    "more chunks than are read": CHUNKED + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 4 + b"0\r\n\r\n",
    "127 headers": _sized(b"{}", *[b"X-%d: 1" % number for number in range(125)]),
    "a header of 8,000 bytes": _sized(b"{}", b"X-Long: " + b"x" * 8000),
}
"""Responses that HTTP permits."""

WRONG: dict[str, Script] = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "http in small letters": b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status 99": b"HTTP/1.1 99 Low\r\nContent-Length: 2\r\n\r\n{}",
    "status 999": b"HTTP/1.1 999 High\r\nContent-Length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}",
    "an unexpected upgrade": b"HTTP/1.1 101 Upgrade\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nbytes",
    "an upgrade without a protocol": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + GOOD,
    "line feeds only": GOOD.replace(b"\r\n", b"\n"),
    "a header without a colon": HEAD + b"X\r\nContent-Length: 2\r\n\r\n{}",
    "a zero byte in a header": HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "a length that is negative": HEAD + b"Content-Length: -2\r\n\r\n{}",
    "a length that is no number": HEAD + b"Content-Length: two\r\n\r\n{}",
    "a length with a sign": HEAD + b"Content-Length: +2\r\n\r\n{}",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: rot13\r\nContent-Length: 2\r\n\r\n{}",
    "a chunk size that is no number": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a chunk size of 40 digits": CHUNKED + b"f" * 40 + b"\r\n{}",
    "a header of 20,000 bytes": _sized(b"{}", b"X-Long: " + b"x" * 20_000),
    "300 headers": _sized(b"{}", *[b"X-%d: 1" % number for number in range(300)]),
    "a reason of 20,000 bytes": b"HTTP/1.1 200 " + b"x" * 20_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "gzip that is none": _sized(b"{}", b"Content-Encoding: gzip"),
    "gzip that is cut off": _sized(gzip.compress(b"{}" * 99)[:-9], b"Content-Encoding: gzip"),
    "a body after 204": b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}",
    "more than the length": GOOD + b"more",
    "a second response": GOOD + GOOD,
    "a second response later": [GOOD, turns(), GOOD],
    "a part of a second response": GOOD + b"HTTP/1.1 2",
    "a 408 behind the response": [GOOD, turns(), http(408, close=True), fin()],
    "408": [http(408, close=True), fin()],
}
"""Responses that HTTP does not permit, or that no request belongs to."""

_LONG = _sized(b"[1, 2, 3, 4]")
_PARTS = (0, 5, 12, 20, len(HEAD), len(_LONG) - 14, len(_LONG) - 12, len(_LONG) - 1, len(_LONG))

CUT_OFF: dict[str, Script] = {
    f"{name} after {count} of {len(_LONG)} bytes": [_LONG[:count], turns(), end()]
    for count in _PARTS
    for name, end in (("closed", fin), ("reset", rst), ("half closed", half_close))
} | {
    f"chunks that end with {name} after {count} bytes": [
        (CHUNKED + b"2\r\n{}\r\n0\r\n\r\n")[:-left],
        turns(),
        end(),
    ]
    for count, left in ((1, 11), (4, 8), (7, 5), (10, 2))
    for name, end in (("a close", fin), ("a reset", rst))
}
"""Connections that end in a response, or right behind it."""

CORPUS: dict[str, Script] = WELL_FORMED | WRONG | CUT_OFF
