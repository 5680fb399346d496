"""Many servers at once: the public `Fleet`, its queries, and one use of a query.

May use every package below it. Must not parse responses or send requests itself.
"""
