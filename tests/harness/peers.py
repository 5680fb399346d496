"""Plain connections to the servers and proxies of the tests."""

import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def talking(server, **options):
    """A plain connection to a server or proxy."""
    reader, writer = await asyncio.open_connection(server.host, server.port, **options)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
