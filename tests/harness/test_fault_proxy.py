"""The proxy of the tests that delays, cuts and resets connections."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from harness import (
    Bandwidth,
    FaultProxy,
    Latency,
    LimitData,
    RawServer,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    fin,
    half_close,
    request,
    sleep,
    stall,
)
from harness.peers import talking

# ----------------------------------------------------------------------------------- fault proxy


@asynccontextmanager
async def proxied(script, *, seed=0):
    """A raw server and a proxy in front of it."""
    async with RawServer(script) as raw, FaultProxy(raw.port, seed=seed) as proxy:
        yield raw, proxy


async def test_without_toxics_bytes_and_ends_pass():
    """A proxy alone changes nothing."""
    async with proxied([b"hello", half_close(), stall()]) as (raw, proxy):
        async with talking(proxy) as (reader, writer):
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read() == b"hello"
        await raw.until(lambda: raw.connections[0].closed)
        assert raw.connections[0].data == b"question"


async def test_latency_delays_every_byte_once():
    """Two pieces sent at once arrive together, late by the latency and no more than the jitter."""
    async with proxied([b"a", sleep(0.02), b"b", stall()]) as (_, proxy):
        proxy.add(Latency(0.3, jitter=0.02))
        began = time.monotonic()
        async with talking(proxy) as (reader, _):
            assert await reader.readexactly(2) == b"ab"
        assert time.monotonic() - began >= 0.28


async def test_latency_upstream_leaves_downstream_alone():
    """A toxic works in its own direction."""
    async with proxied([b"banner", stall()]) as (raw, proxy):
        proxy.add(Latency(30), "upstream")
        async with talking(proxy) as (reader, writer):
            writer.write(b"slow")
            assert await reader.readexactly(6) == b"banner"
            assert raw.received == 0


async def test_bandwidth_stretches_the_transfer():
    """A thousand bytes at five thousand per second take a fifth of a second."""
    async with proxied([b"x" * 1000, stall()]) as (_, proxy):
        proxy.add(Bandwidth(5000))
        began = time.monotonic()
        async with talking(proxy) as (reader, _):
            await reader.readexactly(1000)
        assert time.monotonic() - began >= 0.18


async def test_slow_close_delays_the_end_but_not_the_data():
    """The end of the stream comes late."""
    async with proxied([b"bye", fin()]) as (_, proxy):
        proxy.add(SlowClose(0.1))
        async with talking(proxy) as (reader, _):
            assert await reader.readexactly(3) == b"bye"
            began = time.monotonic()
            assert await reader.read() == b""
        assert time.monotonic() - began >= 0.08


async def test_timeout_drops_the_data_and_closes():
    """Nothing arrives but the end."""
    async with proxied([b"lost", stall()]) as (_, proxy):
        proxy.add(Timeout(0.05))
        async with talking(proxy) as (reader, _):
            assert await reader.read() == b""


async def test_timeout_of_zero_lasts_until_it_is_removed():
    """Data is dropped, the connection stays, and recovers."""
    async with proxied([request(), b"lost", request(), b"found", stall()]) as (raw, proxy):
        name = proxy.add(Timeout())
        async with talking(proxy) as (reader, writer):
            writer.write(b"GET /1 HTTP/1.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await reader.read(1)
            assert len(raw.requests) == 1
            proxy.remove(name)
            writer.write(b"GET /2 HTTP/1.1\r\n\r\n")
            assert await reader.readexactly(5) == b"found"


@pytest.mark.parametrize("after", [0.0, 0.05])
async def test_reset_peer_resets_both_ends(after):
    """The client gets a reset instead of an end, and the server does too."""
    async with proxied([b"lost", stall()]) as (raw, proxy):
        proxy.add(ResetPeer(after))
        async with talking(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        if after:
            await raw.until(lambda: raw.connections[0].closed)


async def test_slicer_cuts_into_small_pieces():
    """Every read gets little, and all of it comes."""
    async with proxied([b"0123456789" * 3, fin()]) as (_, proxy):
        proxy.add(Slicer(5, size_variation=2, delay=0.005))
        pieces = []
        async with talking(proxy) as (reader, _):
            while piece := await reader.read(100):
                pieces.append(piece)
        assert b"".join(pieces) == b"0123456789" * 3
        assert len(pieces) >= 4
        assert max(map(len, pieces)) <= 14


async def test_limit_data_closes_after_so_many_bytes():
    """Seven bytes pass, then the connection is closed at both ends."""
    async with proxied([b"0123456789", stall()]) as (raw, proxy):
        proxy.add(LimitData(7))
        async with talking(proxy) as (reader, _):
            assert await reader.read() == b"0123456"
        await raw.until(lambda: raw.connections[0].closed)


async def test_removing_a_toxic_relieves_what_it_holds():
    """An open connection that was to wait for half a minute goes on at once."""
    async with proxied([b"held", stall()]) as (raw, proxy):
        name = proxy.add(Latency(30))
        async with talking(proxy) as (reader, _):
            await raw.until(lambda: len(raw.connections) == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await reader.read(1)
            proxy.remove(name)
            assert await reader.readexactly(4) == b"held"


async def test_toxicity_spares_some_connections_and_repeats_itself():
    """Half of the connections are hit, the same ones for the same seed."""
    hit = []
    for _ in range(2):
        async with proxied([b"1", fin()], seed=5) as (_, proxy):
            proxy.add(Timeout(0.01), toxicity=0.5)
            answers = []
            for _ in range(12):
                async with talking(proxy) as (reader, _):
                    answers.append(await reader.read())
            assert proxy.accepted == 12
            hit.append(answers)
    assert hit[0] == hit[1]
    assert set(hit[0]) == {b"", b"1"}


async def test_down_refuses_and_cuts_until_up():
    """The port is closed, open connections end, and later it is the same port again."""
    async with proxied([b"1", stall()]) as (_, proxy):
        async with talking(proxy) as (reader, _):
            assert await reader.read(1) == b"1"
            await proxy.down()
            assert await reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(proxy.host, proxy.port)
        await proxy.up()
        async with talking(proxy) as (reader, _):
            assert await reader.read(1) == b"1"


async def test_a_dead_server_ends_the_clients_connection():
    """Where no server listens behind the proxy, the client's connection is closed."""
    async with RawServer({}) as raw:
        port = raw.port
    async with FaultProxy(port) as proxy, talking(proxy) as (reader, _):
        assert await reader.read() == b""
