"""The limit on open sockets counts each until it is closed."""

import asyncio
import socket

import pytest

from aiovbo._transport.descriptors import CountedSocket, DescriptorLimit


async def request(limit: DescriptorLimit, made: list[CountedSocket]) -> None:
    """A request that ends before its socket is closed."""
    slot = await limit.acquire()
    one = CountedSocket(socket.AF_INET, socket.SOCK_STREAM)
    slot.hold(one)
    made.append(one)
    slot.drop()


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_next_request_begins_when_the_socket_of_the_last_is_closed() -> None:
    """Not when the response is there: a connection over TLS takes a moment to close."""
    limit, made = DescriptorLimit(1), list[CountedSocket]()
    await request(limit, made)
    following = asyncio.create_task(request(limit, made))
    await settle()
    assert len(made) == 1
    made[0].close()
    await following
    assert len(made) == 2
    made[1].close()


async def test_a_socket_that_is_closed_twice_frees_one_descriptor() -> None:
    """As event loops do."""
    limit, made = DescriptorLimit(1), list[CountedSocket]()
    await request(limit, made)
    made[0].close()
    made[0].close()
    await request(limit, made)
    following = asyncio.create_task(request(limit, made))
    await settle()
    assert len(made) == 2
    made[1].close()
    await following
    made[2].close()


async def test_a_request_without_a_socket_frees_its_descriptor() -> None:
    """Also one that is cancelled while it waits."""
    limit, made = DescriptorLimit(1), list[CountedSocket]()
    for _ in range(2):
        (await limit.acquire()).drop()
    slot = await limit.acquire()
    waiting = asyncio.create_task(request(limit, made))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    slot.drop()
    await request(limit, made)
    made[0].close()
