"""Changes that were not acknowledged: after a crash they are delivered again, and then corrected."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from harness.scene import Scene

from aiovbo import (
    Added,
    AnyChange,
    Changed,
    CheckpointEntry,
    CheckpointError,
    Client,
    Finished,
    Heartbeat,
    MemoryCheckpoint,
    Recovered,
    Rejected,
    Removed,
    RestoreSession,
    RowRejected,
    SessionRecord,
    TlsError,
    Unreachable,
)
from aiovbo._watch.changes import POLLED_KEY
from aiovbo._watch.pending import PendingChange
from aiovbo.testing import Fault, SimClock

DOCUMENT = {
    "id": str(UUID(int=5)),
    "creationTime": "2026-11-23T10:00:00Z",
    "type": "Vex",
    "novel": {"deep": ["ü", 1]},
    "_links": {"organization": {"href": "/v6/Organizations/1"}},
}


def kinds(changes: list[AnyChange]) -> list[str]:
    return [type(change).__name__ for change in changes]


async def test_what_was_not_acknowledged_is_delivered_again_and_then_corrected() -> None:
    """While the watch was down one session was removed, and another is again as it had been acknowledged."""
    scene = Scene()
    lost = scene.world.add(creation_time=scene.clock.now(), end_time=None)
    kept = scene.world.add(creation_time=scene.clock.now(), end_time=None, initiated_by="anna")
    async with scene.watching() as changes:
        for change in await scene.take(changes):
            if not isinstance(change, Heartbeat) and f"{kept.id}" in change.id:
                changes.ack(change)
        scene.world.change(kept.id, initiated_by="other")
        assert kinds(await scene.take(changes)) == ["Changed"]
    scene.world.change(kept.id, initiated_by="anna")
    scene.world.remove(lost.id)
    async with scene.watching() as changes:
        found = await scene.take(changes)
    assert kinds(found) == ["Added", "Changed", "Changed", "Removed"]
    assert isinstance(last := found[2], Changed)
    assert last.session.initiated_by == "anna"


async def test_pending_changes_are_delivered_although_the_server_is_down() -> None:
    """They come from the checkpoint, with the links of the client and the labels that the server has now."""
    scene = Scene()
    scene.world.add(creation_time=scene.clock.now(), end_time=scene.clock.now())
    async with scene.watching() as changes:
        first = await scene.take(changes)
    del scene.servers["vbo.test"]
    async with scene.watching() as changes:
        again = await scene.take(changes)
    assert kinds(again) == ["Added", "Finished", "Unreachable"]
    assert again[:2] == first
    assert isinstance(again[0], Added)
    assert isinstance(again[0].session.links["self"].fetcher, Client)


@pytest.mark.parametrize("down", [True, False])
async def test_an_unreachable_that_was_not_acknowledged_is_followed_by_recovered(*, down: bool) -> None:
    """And a recovery by the next failure: what was stored last is how the server is."""
    scene = Scene()
    del scene.servers["vbo.test"]
    async with scene.watching() as changes:
        found = await scene.take(changes)
        if down:
            changes.ack(found[0])
            scene.servers["vbo.test"] = scene.backup
            found = await scene.take(changes)
            del scene.servers["vbo.test"]
        else:
            scene.servers["vbo.test"] = scene.backup
    async with scene.watching() as changes:
        again = await scene.take(changes)
    assert kinds(again) == (["Recovered", "Unreachable"] if down else ["Unreachable", "Recovered"])
    assert again[0].id == found[0].id
    assert again[1].id != found[0].id


async def test_a_rejected_row_that_is_saved_before_the_first_list_does_not_make_the_history_new() -> None:
    """The process ends between the two saves; without `since`, only what happens from now on is reported."""
    scene = Scene()
    scene.world.add(creation_time=scene.clock.now(), end_time=scene.clock.now())

    def with_an_invalid_row(document: Any) -> Any:
        return {**document, "results": [{"id": "x"}, *document["results"]]}

    scene.backup.fail(Fault.edit(with_an_invalid_row), on="RestoreSessions", times=None)

    class Interrupted(MemoryCheckpoint):
        async def save(self, server: str, steps: Sequence[CheckpointEntry], *rest: Any) -> None:
            if any(step.session_id == POLLED_KEY for step in steps):
                raise CheckpointError("the power fails")
            await super().save(server, steps, *rest)

    scene.store = Interrupted()
    with pytest.raises(CheckpointError, match="power"):
        async with scene.watching(since=None) as changes:
            changes.ack(await anext(changes))
            await scene.take(changes)
    places = scene.store._places
    scene.store = MemoryCheckpoint()
    scene.store._places = places
    async with scene.watching(since=None) as changes:
        assert kinds(await scene.take(changes)) in ([], ["RowRejected"])


async def test_every_change_is_saved_before_it_is_delivered_in_a_few_transactions() -> None:
    """A hundred sessions of one poll are one transaction; the deletions of what is acknowledged, another."""
    scene = Scene()
    for _ in range(100):
        scene.world.add(creation_time=scene.clock.now(), end_time=scene.clock.now())
    pending: set[str] = set()
    saves: list[int] = []

    class Counting(MemoryCheckpoint):
        async def save(self, server: str, steps: Sequence[CheckpointEntry], *rest: Any) -> None:
            saves.append(len(steps))
            found = [step.known for step in steps if step.known and step.known.kind == "pending"]
            pending.update(json.loads(one.marks)["id"] for one in found)
            await super().save(server, steps, *rest)

    scene.store = Counting()
    async with scene.watching() as changes:
        found = await scene.take(changes)
        assert len(found) == 200
        assert {change.id for change in found} <= pending
        for change in found:
            changes.ack(change)
        assert await scene.take(changes) == []
    assert len(saves) < 10
    assert not [one for one in scene.store._places["vbo"].known.values() if one.kind == "pending"]


def test_a_saved_change_is_equal_to_the_one_that_was_found() -> None:
    """Of every kind, unknown members and the attributes of errors included."""
    session = RestoreSession.from_dict(DOCUMENT, server="vbo")
    error = TlsError("expired", reason="expired", server="vbo")
    error.problems = ("one", "two")  # type: ignore[attr-defined]  # as another error has
    every: list[AnyChange] = [
        *(kind(server="vbo", id="a/1", session=session) for kind in (Added, Changed, Finished)),
        Removed(server="vbo", id="a/1", session_id=session.id, reset=True),
        RowRejected(server="vbo", id="a/1", row=Rejected(3, "$.id", "missing", '{"id": "\udcff"}')),
        Recovered(server="vbo", id="a/1", gap=timedelta(seconds=1.5)),
    ]
    client: Any = object()

    def saved(change: AnyChange) -> tuple[AnyChange, SessionRecord]:
        entry = PendingChange(change, session.id, 7, SimClock().now()).entry()
        assert entry.known is not None
        return PendingChange.from_record(entry.known, "vbo", client).change, entry.known

    for change in every:
        assert saved(change)[0] == change
    again, record = saved(Unreachable(server="vbo", id="a/2", error=error))
    assert isinstance(again, Unreachable)
    assert type(again.error) is TlsError
    assert vars(again.error) == vars(error)
    for damaged in (b"", b"[]", b'{"change": "Added"}', record.marks.replace(b"TlsError", b"SystemExit")):
        with pytest.raises(CheckpointError, match="damaged"):
            PendingChange.from_record(evolve(record, marks=damaged), "vbo", client)
