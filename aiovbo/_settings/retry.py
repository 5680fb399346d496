"""When a failed request is sent again, and how long to wait first."""

from collections.abc import Callable

from attrs import field, frozen

from aiovbo._settings.events import is_plain_function
from aiovbo._settings.numbers import check_count, check_seconds
from aiovbo.errors import ConfigError, ServerError

RETRIES = 2
"""Retries by default."""

_DOUBLINGS = 64
"""The wait is at its longest long before, and a thousand more would be beyond what a float holds."""


@frozen(kw_only=True)
class Retry:
    """How often a failed request is sent again, and how long to wait first: `retries=Retry(attempts=5)`.

    Only requests that are safe to repeat are sent again, while time is left, and as far as the retry budget
    of the server allows.
    """

    attempts: int = RETRIES + 1
    """Maximum number of attempts, the first one included; 1 disables retries."""
    base: float = 0.25
    """Seconds of the longest wait before the first retry; each further one doubles it. The wait is random
    between 0 and that."""
    cap: float = 8.0
    """Seconds that no wait exceeds, unless the server names a longer one (`Retry-After`)."""
    decide: Callable[[ServerError], bool] | None = field(default=None)
    """A plain function that gets the error, with `attempts` so far, before each retry; False forbids it.

    It is not called where a retry is not allowed anyway.
    """

    def __attrs_post_init__(self) -> None:
        check_count("attempts", self.attempts, 1)
        check_seconds("base", self.base, may_be_zero=True)
        check_seconds("cap", self.cap, may_be_zero=True)
        if self.decide is not None and not is_plain_function(self.decide):
            message = f"decide is a plain function that takes an error, not {self.decide!r}"
            raise ConfigError(message)

    @classmethod
    def of(cls, retries: "int | Retry") -> "Retry":
        """The policy that a number of retries stands for."""
        return retries if isinstance(retries, Retry) else cls(attempts=retries + 1)

    def delay(self, retries: int, random: float) -> float:
        """Seconds to wait before a further retry, after so many."""
        return min(self.cap, self.base * 2.0 ** min(retries, _DOUBLINGS)) * random
