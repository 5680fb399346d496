"""Response bytes to models: whole listings by msgspec, invalid items one by one.

May use `_protocol`, `models` and below; must not use aiohttp or asyncio, and must not know servers.
"""
