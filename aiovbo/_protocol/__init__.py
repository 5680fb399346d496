"""The API's protocol without I/O.

Requests, tokens, URLs, filters, JSON documents and error responses of every API version. May use `models` and
below; must not use aiohttp, asyncio or a clock.
"""
