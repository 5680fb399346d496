"""What every operation on a server is built from.

Deadlines, lazy queries, shared calls, bounded threads, status. May use `_settings` and `errors`;
must not know HTTP, JSON or resources.
"""
