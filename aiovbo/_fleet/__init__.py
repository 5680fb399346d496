"""Many servers at once: the public `Fleet`, its queries, and one use of a query.

May use every package below it; must not know aiohttp, and must not be used by any other package than the command line and the integrations.
"""
