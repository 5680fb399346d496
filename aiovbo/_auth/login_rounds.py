"""How often a secret may be sent: rounds of tries, each ended by a cool-down.

Counts and times only: knows neither servers' responses nor secrets.
"""

from collections.abc import Callable
from typing import Any, Self

from attrs import frozen

NEVER, OPEN = float("-inf"), float("inf")

HOUR = 3600.0
"""Seconds of the second cool-down and of all later ones."""

_POSTS = 10
"""Most POSTs of one secret in each of the first two rounds, whatever the responses are."""

_REJECTIONS = 6
"""Most rejections in the first two rounds together: with one an hour after them, they stay below 30 a day."""

HOURLY = 2
"""The round from which on one server an hour is tried."""


@frozen
class LoginLimits:
    """How often a secret may be sent, and how long the cool-downs are."""

    _servers: int
    cooldown: float

    def limit(self, stage: int) -> int:
        """Most servers that may reject a secret in a round."""
        first = min(self._servers, _REJECTIONS - 1)
        return (first, min(first, _REJECTIONS - first), 1)[min(stage, HOURLY)]

    def posts(self, stage: int) -> int:
        """Most POSTs of a secret in a round, whatever the responses are."""
        return 1 if stage >= HOURLY else _POSTS

    def cooldown_of(self, stage: int) -> float:
        """Seconds of the cool-down that ends a round."""
        return self.cooldown if stage == 0 else max(self.cooldown, HOUR)


class LoginRounds:
    """Rounds of tries of one secret, each ended by a cool-down; the cool-downs get longer."""

    def __init__(self, limits: LoginLimits) -> None:
        self._limits = limits
        self._pending = self._reserved = 0
        self.restart(0)

    def restart(self, stage: int) -> None:
        """Begin a round in which nothing was sent so far."""
        self.stage: int = stage
        self.rejections: int = 0
        self.posts: int = 0
        self.ends: float = OPEN
        """When the cool-down after the newest failure ends."""
        self.last_rejection: str = ""
        self.yielded: set[str] = set()
        """Servers that let others be tried before them, which each does once in a round."""

    def copy_from(self, other: "LoginRounds") -> None:
        """Take over what another process knows; tries in progress are this process's own."""
        self.stage, self.rejections, self.posts = other.stage, other.rejections, other.posts
        self.ends, self.last_rejection = other.ends, other.last_rejection
        self.yielded = other.yielded

    def relax(self, other: "LoginRounds") -> None:
        """Allow tries again, also of servers that failed in `other`; cool-downs do not get shorter by it."""
        stage = min(HOURLY - 1, max(self.stage, other.stage))
        ends = [rounds.ends for rounds in (self, other) if rounds.ends < OPEN]
        self.restart(stage)
        self.ends = max(ends, default=OPEN)

    def advance(self, now: float) -> None:
        """Begin the next round if the cool-down has ended."""
        if now >= self.ends:
            self.restart(self.stage + 1)

    @property
    def is_full(self) -> bool:
        """Whether no further server may be tried in this round."""
        return self.rejections >= self._limits.limit(self.stage) or self.posts >= self._limits.posts(
            self.stage
        )

    @property
    def free(self) -> int:
        """How many servers may be tried now, if those that have not responded yet all reject."""
        return min(self._limits.limit(self.stage) - self.rejections - self._pending, self._free_posts)

    @property
    def _free_posts(self) -> int:
        return self._limits.posts(self.stage) - self.posts - self._reserved

    def reserve(self) -> int:
        """Begin a try; return how many POSTs it may take, 2 if one may be repeated on a new connection."""
        posts = min(2, self._free_posts)
        self._pending += 1
        self._reserved += posts
        return posts

    def release(self, posts: int) -> None:
        """End a try that had reserved so many POSTs."""
        self._pending -= 1
        self._reserved -= posts

    def fail(self, posts: int, now: float) -> None:
        """Note a try that was not accepted."""
        self.posts += posts
        self.ends = now + self._limits.cooldown_of(self.stage)

    def reject(self, said: str) -> None:
        """Note that a server rejected the secret, as it said."""
        self.rejections += 1
        self.last_rejection = said

    def dump(self, to_wall: Callable[[float], float | None]) -> dict[str, object]:
        """What another process may know of it, with times that `to_wall` makes comparable."""
        return {
            "stage": self.stage,
            "rejections": self.rejections,
            "posts": self.posts,
            "ends": to_wall(self.ends),
            "last_rejection": self.last_rejection,
            "yielded": sorted(self.yielded),
        }

    @classmethod
    def restored(
        cls, found: dict[str, Any], limits: LoginLimits, from_wall: Callable[[float | None], float]
    ) -> Self:
        """What another process has dumped."""
        rounds = cls(limits)
        rounds.restart(int(found["stage"]))
        rounds.rejections, rounds.posts = int(found["rejections"]), int(found["posts"])
        rounds.ends = from_wall(found["ends"])
        rounds.last_rejection, rounds.yielded = str(found["last_rejection"]), set(found["yielded"])
        return rounds
