"""Changes of restore sessions, delivered at least once: polling, the change feed, tracking, checkpoints.

May use `_client` and below; must not know fleets.
"""
