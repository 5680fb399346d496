"""What every operation on a server is built from: its deadline, lazy queries, shared calls, bounded threads, the recorded status.

May use `_settings` and `errors`; must not know HTTP, JSON or resources.
"""
