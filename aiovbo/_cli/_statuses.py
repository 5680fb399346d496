"""The exit statuses of all commands.

Imports nothing, so that help and completion stay fast.
"""

OK = 0
BUG = 1
"""A bug in aiovbo."""
USAGE = 2
"""An invalid command line or inventory, or output that cannot be written."""
SOME_FAILED = 3
"""Some servers failed."""
ALL_FAILED = 4
"""All servers failed."""
INTERRUPTED = 130
"""Ctrl-C."""
BROKEN_PIPE = 141
"""The reader of the output closed the pipe."""
TERMINATED = 143
"""SIGTERM or SIGHUP."""


def status_of(failed: int, asked: int) -> int:
    """The exit status where `failed` of the `asked` servers failed."""
    if failed == 0:
        return OK
    return ALL_FAILED if failed == asked else SOME_FAILED
