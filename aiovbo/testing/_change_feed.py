"""The change feed of v8: what happened since a token, at once or as soon as something does.

Knows change tokens, how long events are remembered, and which events there are beside those of
restore sessions. Must not know sockets, nor how a reply is kept back.
"""

import re
import secrets
from functools import lru_cache, partial
from hashlib import blake2b
from random import Random
from uuid import NAMESPACE_DNS, UUID, uuid4, uuid5

from aiovbo.testing._answers import Json, error_body
from aiovbo.testing._quirks import FeedQuirk
from aiovbo.testing._routes import (
    Api,
    Call,
    OutdatedError,
    ParameterError,
    Reply,
    Route,
    Wait,
    integer,
)
from aiovbo.testing._world import CHANGES_KEPT, WorldChange

_V8 = 8
_RESPONSES: dict[FeedQuirk | None, Reply] = {
    "4xx": Reply(400, error_body(_V8, "The change feed is not available.")),
    "5xx": Reply(500, error_body(_V8, "The change feed failed.")),
    "empty": Reply(200),
    "html": Reply(200, "<html><title>Sign in</title></html>", headers={"Content-Type": "text/html"}),
}
"""What a feed that does not work responds with."""
_ROUND = 5
"""Each so many events one is of another kind than restore sessions'; a client has to skip it."""
_PLACE_BYTES = 8
_MARK_BYTES = 4


class ChangeFeed:
    """What happened in one server's world, reported from token to token.

    An event's place in the feed follows from its change's place in the world's history, so that
    nothing has to be kept here.

    - `name`: the server's; another server's tokens are as good as garbled.
    - `kept`: how many of the last events are remembered.
    """

    def __init__(self, name: str, kept: int) -> None:
        if not 0 <= kept <= CHANGES_KEPT:
            msg = f"a server keeps between 0 and {CHANGES_KEPT} events"
            raise ValueError(msg)
        self._name = name
        self._kept = kept
        self._era = secrets.token_hex()
        self.route = Route("GET", re.compile("events"), _V8, self._answer)
        """Where clients request it."""

    def forget(self) -> None:
        """Let every token that was given so far be outdated."""
        self._era = secrets.token_hex()

    def _answer(self, api: Api, call: Call, _found: re.Match[str]) -> Reply:
        """Events since a token, or the promise to look again.

        Source: Events_Get and Events_GetResponse, v8, 2026-11-23. No default of `timeoutSeconds` is
        documented: without it the response comes at once.
        """
        feed = api.oddities.quirks.feed
        if feed in _RESPONSES:
            api.oddities.effects["feed"] += 1
            return _RESPONSES[feed]
        token = call.parameter("from")
        if token is None:
            raise ParameterError("The parameter from is required.")
        seconds = integer(call, "timeoutSeconds", at_least=0) or 0
        limit = api.limit(call)
        if feed == "immediate":
            api.oddities.note("feed", seconds > 0)
            seconds = 0
        if token.lower() != "latest" and api.oddities.quirks.expired_tokens:
            api.oddities.effects["expired_tokens"] += 1
            raise OutdatedError("The change token is outdated.")
        if token.lower() == "latest":
            now = api.world.changes()
            token = self._token(now.era, _events_until(now.total))
        return self._look(api, call, token, limit, seconds)

    def _look(self, api: Api, call: Call, token: str, limit: int, seconds: int) -> Reply:
        feed = api.oddities.quirks.feed
        era, events, place = self._since(api, token, limit, feed)
        body: Json = {
            "nextChangeToken": self._token(era, place),
            "limit": limit,
            "setId": str(uuid4()),
            "results": events,
            "_links": {"self": api.links(call).href("Events")},
        }
        if events:
            return Reply(200, body)
        look = partial(self._look, api, call, token, limit, seconds)
        return Reply(200, body, wait=Wait(seconds, partial(api.attempt, call, look)))

    def _since(
        self, api: Api, token: str, limit: int, feed: FeedQuirk | None
    ) -> tuple[UUID, list[Json], int]:
        """Of which history they are, the next events, and the place after the last of them."""
        era, place = self._read(token)
        news = api.world.changes(place - place // _ROUND)
        total = _events_until(news.total)
        oldest = max(_events_until(news.first), total - self._kept)
        if era != self._mark(str(news.era), self._era) or not oldest <= place <= total:
            raise OutdatedError("The change token is outdated.")
        changes = iter(news.changes)
        # A feed that delays reports an event when the next one has happened.
        end = min(place + limit, total - 1 if feed == "delays" else total)
        events = [
            _other_event(number) if number % _ROUND == _ROUND - 1 else _event(next(changes))
            for number in range(place, end)
        ]
        if feed == "skips":
            events = [event for number, event in enumerate(events, place) if number % 2]
        elif feed == "repeats":
            events = [event for event in events for _ in range(2)]
        is_delayed = feed == "delays" and place < total == end + 1
        api.oddities.note("feed", is_delayed or len(events) != max(0, end - place))
        return news.era, events, max(place, end)

    def _token(self, era: UUID, place: int) -> str:
        core = self._mark(str(era), self._era) + place.to_bytes(_PLACE_BYTES, "big")
        return str(UUID(bytes=core + self._mark(core.hex())))

    def _read(self, token: str) -> tuple[bytes, int]:
        """The mark of a token's history, and its place in it."""
        try:
            data = UUID(token).bytes
        except ValueError:
            data = b""
        core = data[:-_MARK_BYTES]
        if data[-_MARK_BYTES:] != self._mark(core.hex()):
            msg = f"The value '{token}' is not valid for from."
            raise ParameterError(msg)
        return core[:_MARK_BYTES], int.from_bytes(core[_MARK_BYTES:], "big")

    def _mark(self, *words: str) -> bytes:
        return _mark_of(self._name, *words)


@lru_cache(1024)
def _mark_of(*words: str) -> bytes:
    return blake2b(repr(words).encode(), digest_size=_MARK_BYTES).digest()


def _events_until(changes: int) -> int:
    """How many events that many changes make, together with those of other kinds between them."""
    return changes + changes // (_ROUND - 1)


def _event(change: WorldChange) -> Json:
    if change.etag is None:
        return {"eventType": "RestoreSessionDelete", "id": str(change.id)}
    return {"eventType": "RestoreSessionUpdate", "id": str(change.id), "eTag": change.etag}


def _other_event(number: int) -> Json:
    """An event that has nothing to do with restore sessions, the same for the same number.

    Source: RESTJobSessionUpdateEvent, RESTRestorePointUpdateEvent, RESTJobDeleteEvent and
            RESTOrganizationUserDeleteEvent, v8, 2026-11-23.
    """
    rng = Random(f"event {number}")  # plausible, no secret
    key, job, organization = (str(uuid5(NAMESPACE_DNS, f"{one} {number}")) for one in ("id", "job", "of"))
    kinds: tuple[Json, ...] = (
        {
            "eventType": "JobSessionUpdate",
            "id": key,
            "eTag": rng.randint(1, 9),
            "jobId": job,
            "status": rng.choice(("Running", "Success", "Warning", "Failed")),
            "jobType": "Backup",
        },
        {"eventType": "RestorePointUpdate", "id": key, "eTag": rng.randint(1, 9)},
        {"eventType": "JobDelete", "id": key, "jobType": "Copy"},
        {"eventType": "OrganizationUserDelete", "id": key, "organizationId": organization},
    )
    return kinds[number // _ROUND % len(kinds)]
