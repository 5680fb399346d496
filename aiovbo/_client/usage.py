"""What is in progress on one server, so that it can be removed from a fleet without harm.

Counts operations. Must not know what they request.
"""

from collections.abc import Callable

from aiovbo._core.deadline import Operation
from aiovbo.errors import ClosedError


class Usage:
    """Counts the requests and listings in progress, and refuses new ones once the server is removed."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._count = 0
        self._when_idle: Callable[[], None] | None = None
        self.is_removed: bool = False
        """Whether its fleet has removed the server: no further operation begins."""

    def begin(self) -> None:
        """Note that a request or a listing is in progress, which needs the token; followed by `end`."""
        self._count += 1

    def end(self, *_: object) -> None:
        """Note that it has ended."""
        self._count -= 1
        if not self._count and self._when_idle is not None:
            self._when_idle()

    # A block during which a request or a listing is in progress.
    __enter__, __exit__ = begin, end

    @property
    def is_active(self) -> bool:
        """Whether a request or a listing is in progress."""
        return self._count > 0

    def retire(self, when_idle: Callable[[], None]) -> None:
        """Begin no operation any more, and call `when_idle` each time when nothing is left in progress."""
        self.is_removed, self._when_idle = True, when_idle
        if not self._count:
            when_idle()

    def check(self, operation: Operation | None = None) -> None:
        """Return where an operation may go on: one that had begun before the server was removed may.

        Raises: ClosedError otherwise.
        """
        if self.is_removed and (operation is None or not operation.is_entered):
            message = (
                f"the server {self._server!r} was removed from its fleet: use the client that "
                "fleet.add(...) returns"
            )
            raise ClosedError(message)
