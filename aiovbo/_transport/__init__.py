"""One request and its response over aiohttp.

The session, connections, TLS, timeouts, and errors in place of aiohttp's. May use `_protocol` and below;
must not know tokens, retries or resources. No aiohttp exception leaves it.
"""
