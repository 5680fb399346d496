"""Whether the changes that a consumer was given match the history of simulated servers.

Knows worlds, quirks and the attributes of changes. Must not know the SDK: a change's kind is the name of its
class.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from aiovbo.testing._answers import added_in
from aiovbo.testing._server import BackupServer
from aiovbo.testing._world import WorldSession

_MEMBERS = {
    "type": "type",
    "state": "state",
    "result": "result",
    "creation_time": "creationTime",
    "end_time": "endTime",
    "name": "name",
    "organization": "organization",
    "initiated_by": "initiatedBy",
    "details": "details",
    "scope_name": "scopeName",
    "client_host": "clientHost",
    "reason": "reason",
}
"""The documented members of a session without ID and etag, each with its name in the API."""
_OF_SESSIONS = ("Added", "Changed", "Finished")
_REMEMBER = timedelta(days=30)

View = dict[str, object]
"""What is shown of a session, by the names of its members."""


@attrs.frozen
class WatchReport:
    """What a `WatchOracle` found, in one sentence each."""

    lost: tuple[str, ...]
    """What happened on a server, and the consumer does not know it."""
    wrong: tuple[str, ...]
    """What was delivered, and did not happen, or not in this order."""
    duplicated: tuple[str, ...]
    """What was delivered twice, without a restart, or a reset of the server, in between that explains it."""
    unreachable: tuple[str, ...]
    """The servers that the consumer takes for unreachable."""

    def __str__(self) -> str:
        parts = {"lost": self.lost, "wrong": self.wrong, "duplicated": self.duplicated}
        return "\n".join(f"{name}: {one}" for name, found in parts.items() for one in found)


@attrs.define
class _Session:
    """One session: its history on the server, and what the consumer knows of it."""

    history: list[WorldSession | None] = attrs.field(factory=list["WorldSession | None"])
    """As it was after each change; None where it was removed."""
    is_unannounced: bool = False
    """Whether it had ended before the watch began: it is not delivered before it changes."""
    stored: View | None = None
    """As it was delivered last; None where the consumer does not have it."""
    seen: int = 0
    """Up to where in the history it was delivered."""
    stored_at: int = 0
    """Where in the history it was as it was delivered last, also before a restart."""
    was_added: bool = False
    """Whether it was ever delivered: after a restart, its changes may be delivered again from any one on."""
    has_finished: bool = False
    """Whether its end was delivered, since it was last added."""
    ends: set[object] = attrs.field(factory=set[object])
    """All end times that were delivered as its end."""
    is_announced: bool = False
    """Whether it was delivered since the last restart, or is known from before for certain."""


@attrs.define
class _Server:
    """One server, and the sessions that it ever had."""

    backup: BackupServer
    sessions: dict[UUID, _Session] = attrs.field(factory=dict[UUID, _Session])
    is_unreachable: bool = False
    is_outage_announced: bool = False
    """Whether that was delivered since the last restart."""

    def note(self, key: UUID, session: WorldSession | None) -> None:
        self.sessions.setdefault(key, _Session()).history.append(session)


class WatchOracle:
    """Compares the changes that a consumer was given with what happened on simulated servers.

    Make it before anything happens, call `deliver` with each change that your consumer has processed, and
    `check` once the watch has seen all. It checks a consumer that stores each session as it was delivered
    last, and removes those that were removed: what it has must be what the servers have.

    - `servers`: the servers by the names that changes have for them. Each keeps its `world`.
    - `since`: that of the watch, aware: sessions created later are reported although they had ended before.
    - `remember`: that of the watch: of sessions that ended, older ones than the newest by this are not
          compared.
    """

    def __init__(
        self,
        servers: Mapping[str, BackupServer],
        *,
        since: datetime | None = None,
        remember: timedelta = _REMEMBER,
    ) -> None:
        self._remember = remember
        self._servers = {name: _Server(backup) for name, backup in servers.items()}
        self._delivered: dict[str, str] = {}
        self._ever_delivered: set[str] = set()
        self._acknowledged: set[str] = set()
        self._final: set[str] = set()
        self._wrong: list[str] = []
        self._duplicated: list[str] = []
        for server in self._servers.values():
            world = server.backup.world
            world.listen(server.note)
            for session in world.sessions:
                is_news = since is not None and session.creation_time > since
                was_ended = session.end_ticks is not None and not is_news
                server.sessions[session.id] = _Session(
                    [session], is_unannounced=was_ended, has_finished=was_ended
                )

    # --------------------------------------------------------------------------- what is delivered

    def deliver(self, change: Any) -> None:  # any change of the SDK's
        """Note a change that the consumer has processed."""
        kind, name = type(change).__name__, change.server
        if kind == "Heartbeat":
            return
        server = self._servers.get(name)
        if server is None:
            self._wrong.append(f"{change.id}: there is no server {name!r}")
            return
        if change.id in self._delivered or change.id in self._final:
            self._duplicated.append(change.id)
        is_new = change.id not in self._ever_delivered
        self._delivered[change.id] = name
        self._ever_delivered.add(change.id)
        if kind in _OF_SESSIONS:
            self._deliver_session(server, change, kind, is_new=is_new)
        elif kind == "Removed":
            self._deliver_removal(server, change)
        elif kind in ("Unreachable", "Recovered"):
            is_unreachable = kind == "Unreachable"
            if server.is_outage_announced and server.is_unreachable is is_unreachable:
                self._duplicated.append(f"{change.id}: that was delivered before")
            server.is_unreachable, server.is_outage_announced = is_unreachable, True

    def acknowledge(self, change: Any) -> None:  # as above
        """Note that the consumer has acknowledged a change: after a clean restart it does not come again."""
        self._acknowledged.add(change.id)

    def restart(self, *, crashed: bool = False) -> None:
        """Note that the consumer's process ended: from here on, changes may be delivered again.

        - `crashed`: True where it was not closed in good order: what was acknowledged may not be saved yet.
        """
        if not crashed:
            self._final |= self._acknowledged & self._delivered.keys()
        self._delivered = {}
        for server in self._servers.values():
            server.is_outage_announced = False
            for its in server.sessions.values():
                its.is_announced, its.seen = False, 0

    def _note_reset(self, server: _Server, name: str) -> None:
        """What was forgotten before the reset may be delivered again."""
        self._delivered = {key: its for key, its in self._delivered.items() if its != name}
        for its in server.sessions.values():
            its.is_announced = its.is_announced and its.stored is None

    def _deliver_session(self, server: _Server, change: Any, kind: str, *, is_new: bool) -> None:
        session = change.session
        its = server.sessions.get(session.id)
        shown: View = {name: getattr(session, name) for name in _MEMBERS}
        place = None if its is None else _place(server.backup, its.history, shown, its.seen)
        if its is None or place is None:
            was_before = its is not None and _place(server.backup, its.history, shown, 0) is not None
            what = (
                "it is older than what was delivered before" if was_before else "the server never had it so"
            )
            self._wrong.append(f"{change.id}: {what}: {shown}")
            if its is None:
                return
        has_ended = bool(session.has_ended)
        # What differs may be a member that the server did not send before.
        has_changed = place is not None and place > its.stored_at
        if problem := _problem(its, kind, shown, has_ended=has_ended, is_new=is_new, has_changed=has_changed):
            self._wrong.append(f"{change.id}: {problem}")
        its.seen = its.stored_at = its.seen if place is None else place
        if kind == "Finished":
            its.has_finished = has_ended
            its.ends.add(shown["end_time"])
        elif kind == "Added" or not has_ended:
            its.has_finished = False
        its.stored, its.was_added, its.is_announced = shown, True, True

    def _deliver_removal(self, server: _Server, change: Any) -> None:
        its = server.sessions.get(change.session_id)
        if its is None or None not in its.history[its.seen :]:
            self._wrong.append(f"{change.id}: the server has not removed the session")
            return
        if its.is_announced and its.stored is None:
            self._duplicated.append(f"{change.id}: the session was removed before")
        its.stored, its.has_finished, its.is_unannounced, its.is_announced = None, False, False, True
        its.seen = its.history.index(None, its.seen)
        if getattr(change, "reset", False):
            self._note_reset(server, change.server)

    # ------------------------------------------------------------------------------- what is found

    def report(self) -> WatchReport:
        """What was lost, wrong or duplicated until now; what is not delivered yet counts as lost."""
        return WatchReport(
            tuple(one for name, server in self._servers.items() for one in self._lost(name, server)),
            tuple(self._wrong),
            tuple(self._duplicated),
            tuple(name for name, server in self._servers.items() if server.is_unreachable),
        )

    def check(self) -> None:
        """Check that nothing was lost, wrong or duplicated.

        Raises: AssertionError with all that was.
        """
        if text := str(self.report()):
            raise AssertionError(text)

    def _lost(self, name: str, server: _Server) -> list[str]:
        world = server.backup.world
        listed, there = {one.id: one for one in server.backup.listed}, {one.id for one in world.sessions}
        # A session that is dated in the future makes nothing old.
        times = [one.creation_time for one in world.sessions if one.creation_time <= world.now]
        limit = max(times, default=world.now) - self._remember
        lost: list[str] = []
        for key, its in server.sessions.items():
            session, stored = listed.get(key), its.stored
            if session is None:
                is_old = stored is not None and its.has_finished and _creation(stored) < limit
                if stored is not None and key not in there and not is_old:
                    lost.append(f"{name}: session {key} was removed")
                continue
            is_ended = session.end_ticks is not None
            is_known_to_end = stored is None or its.has_finished
            is_old = session.creation_time < limit and is_ended and is_known_to_end
            if is_old or (its.is_unannounced and stored is None and len(its.history) == 1):
                continue
            if stored is None:
                lost.append(f"{name}: session {key} exists: {_view(session)}")
            elif not _matches(server.backup, session, stored):
                changed = [one for one in _MEMBERS if getattr(session, one) != stored[one]]
                now = {one: getattr(session, one) for one in changed}
                before = {one: stored[one] for one in changed}
                lost.append(f"{name}: session {key} has {now}, and was delivered with {before}")
            elif is_ended and not its.has_finished and stored["end_time"] not in its.ends:
                lost.append(f"{name}: session {key} has ended, and there was no Finished")
        return lost


def _problem(
    its: _Session, kind: str, shown: View, *, has_ended: bool, is_new: bool, has_changed: bool
) -> str:
    """Why a change of a session does not follow what was delivered before; empty where it does."""
    before = its.stored
    if kind == "Finished" and not has_ended:
        return "the session has not ended"
    is_known = before is not None or its.is_unannounced or (its.was_added and not its.is_announced)
    if kind != "Added" and not is_known:
        return "the session was not added"
    is_same = before is not None and _equal(before, shown) and not has_changed
    if kind == "Changed" and is_same and (is_new or its.is_announced):
        return "nothing has changed"
    if not its.is_announced:
        # It may be delivered again.
        return ""
    if kind == "Added" and before is not None:
        return "the session was added before"
    if kind == "Finished" and its.has_finished:
        return "its end was delivered before"
    if kind == "Changed" and has_ended and not its.has_finished:
        return "its end is a Finished, not a Changed"
    return ""


def _creation(shown: View) -> datetime:
    created = shown["creation_time"]
    assert isinstance(created, datetime)
    return created


def _view(session: WorldSession) -> View:
    return {name: getattr(session, name) for name in _MEMBERS}


def _place(backup: BackupServer, history: list[WorldSession | None], shown: View, start: int) -> int | None:
    """Where in its history, from a place on, a session was as it was delivered."""
    for place in range(start, len(history)):
        session = history[place]
        if session is not None and _matches(backup, backup.show(session), shown):
            return place
    return None


def _matches(backup: BackupServer, session: WorldSession, shown: View) -> bool:
    """Whether a server that has this session shows this of it."""
    fields = backup.quirks.fields
    oldest, is_downgraded = int(backup.versions[0][1:]), backup.quirks.downgraded_after is not None
    for name, api_name in _MEMBERS.items():
        quirk = fields.get(api_name)
        expected, found = getattr(session, name), shown[name]
        if found == expected:
            continue
        # After a downgrade, what an older version does not send is as it was before.
        is_newer = added_in(api_name) > oldest and (found is None or is_downgraded)
        if is_newer or (found is None and quirk in ("null", "absent", "type")):
            continue
        if quirk == "case" and str(found).lower() == str(expected).lower():
            continue
        return False
    return True


def _equal(before: View, after: View) -> bool:
    """Whether no member differs that is there on both sides."""
    pairs: list[tuple[object, object]] = [(before[name], after[name]) for name in _MEMBERS]
    return all(one == other or one is None or other is None for one, other in pairs)
