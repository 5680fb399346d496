"""Addresses at which no server answers.

Knows the kernel's side of TCP; there is no server here to know.
"""

import socket
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager

_HOST = "127.0.0.1"
_MORE_THAN_FIT = 4


@contextmanager
def closed_port() -> Generator[int, None, None]:
    """A port that refuses connections, and that the system gives to no other process meanwhile."""
    with closing(socket.socket()) as taken:
        taken.bind((_HOST, 0))
        yield taken.getsockname()[1]


@contextmanager
def black_hole() -> Generator[int, None, None]:
    """A port to which a connection attempt never ends, as behind a firewall that drops packets.

    Its queue of connections that wait to be accepted is full, and Linux drops what does not fit.
    """
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.create_server((_HOST, 0), backlog=0)))
        port: int = listening.getsockname()[1]
        for _ in range(_MORE_THAN_FIT):
            filler = stack.enter_context(closing(socket.socket()))
            filler.setblocking(False)  # noqa: FBT003  # has no name
            filler.connect_ex((_HOST, port))
        yield port
