"""Faults that the watch once had, put back one at a time: the random histories must find each of them.

A program, not a test: `python tests/watch_faults.py --seeds 200`. Each fault is a few replacements in a copy
of the package; `tests/seeds.py` runs on that copy until a seed fails. It prints how many seeds that took. Its
status is 1 if a fault was not found. Where a text to replace no longer exists exactly once, it fails: then
state the fault anew for the code as it is.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "aiovbo"
TRACKER, POLLER, FEED = "_watch/tracker.py", "_watch/poller.py", "_watch/feed.py"
DELIVERY, NAMES = "_watch/delivery.py", "_watch/former_names.py"


@frozen
class Edit:
    """One replacement."""

    file: str
    old: str
    new: str

    def apply(self, package: Path) -> None:
        """Replace it in a copy of the package.

        Raises: LookupError where the text is not there exactly once.
        """
        path = package / self.file
        text = path.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            msg = f"{self.file} has {text.count(self.old)} times, not once:\n{self.old}"
            raise LookupError(msg)
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


_FUTURE = Edit(TRACKER, 'if entry.kind == "session" and entry.created <= now', 'if entry.kind == "session"')
_NOT_OPEN = Edit(TRACKER, "if before is None and is_old and has_ended:", "if before is None and is_old:")

FAULTS: dict[str, tuple[Edit, ...]] = {
    "the horizon follows the newest time, and does not recover": (
        _FUTURE,
        _NOT_OPEN,
        Edit(
            TRACKER,
            "if self.horizon is None or self.horizon <= now:",
            "if now or self.horizon is None:",
        ),
        Edit(
            TRACKER,
            "        self._next_horizon = None if newest is None else newest - self._remember\n",
            "        limit = None if newest is None else newest - self._remember\n"
            "        self._next_horizon = self.horizon = limit\n",
        ),
        Edit(
            POLLER,
            "start = tracker.horizon if newest is None else newest - self._options.overlap",
            "start = max(filter(None, (tracker.horizon, newest and newest - self._options.overlap)), "
            "default=None)",
        ),
    ),
    "rows of the future count as the newest": (_FUTURE,),
    "open sessions before the horizon are not followed": (
        _NOT_OPEN,
        Edit(
            POLLER,
            "        if tracker.horizon is not None:\n            seen",
            "        if False:\n            seen",
        ),
        Edit(
            POLLER,
            "unfinished = [] if start is None else tracker.open_before(start)",
            "unfinished: list[UUID] = []",
        ),
    ),
    "a failure of the feed counts as nothing new": (
        Edit(
            FEED,
            "            else:\n                self._fail(error)\n            return None\n",
            "            elif error.retryable or self._following is None:\n"
            "                return {}\n            return {}\n",
        ),
    ),
    "a failure of the feed counts as a failure of the server": (
        Edit(
            FEED,
            "                raise\n            if seconds and _is_cut_off(error):",
            "                raise\n            if error:\n                raise\n"
            "            if seconds and _is_cut_off(error):",
        ),
        Edit(
            FEED,
            "                raise\n            self._fail(error)\n        return self",
            "                raise\n            raise\n        return self",
        ),
    ),
    "no full poll after an outdated change token": (
        Edit(
            POLLER,
            "                # As if nothing had been looked at yet.\n"
            '                self._full_look_at = float("-inf")\n'
            "                return await self._look()\n",
            "                await feed.start()\n                return None\n",
        ),
    ),
    "a session that is not found after an update is not requested again": (
        Edit(POLLER, "_REQUESTED_AGAIN = 10", "_REQUESTED_AGAIN = 0"),
    ),
    "no overlap between polls": (
        Edit(POLLER, "else newest - self._options.overlap\n        unf", "else newest\n        unf"),
    ),
    "changes are delivered before they are saved": (
        Edit(
            POLLER,
            "        if entries:\n            await self.save(entries)\n        if pending:\n"
            "            await self._delivery.put(self._client.name, pending)\n",
            "        if pending:\n            await self._delivery.put(self._client.name, pending)\n"
            "        if entries:\n            await self.save(entries)\n",
        ),
    ),
    "an acknowledgement counts for all changes before": (
        Edit(
            DELIVERY,
            "        for found in self._delivered.pop(change.id, []):\n"
            "            self._acknowledge(found)\n",
            "        self.acknowledge_all()\n",
        ),
    ),
    "what a truncated list leaves out counts as removed": (
        Edit(
            POLLER,
            "            if not await self._fetch_one(key):\n                gone.append(key)\n",
            "            if key:\n                gone.append(key)\n",
        ),
    ),
    "the same sessions are requested first at every poll": (
        Edit(POLLER, "            self._still_there.add(key)\n", ""),
    ),
    "the etag is compared": (
        Edit(
            TRACKER,
            '    "scope_name", "client_host", "reason",\n',
            '    "scope_name", "client_host", "reason", "etag",\n',
        ),
    ),
    "a member that became absent counts as changed": (
        Edit(TRACKER, "one != other and _ABSENT not in (one, other)", "one != other and one != _ABSENT"),
    ),
    "what an upgrade adds counts as changed": (
        Edit(TRACKER, "one != other and _ABSENT not in (one, other)", "one != other and other != _ABSENT"),
    ),
    "a server that is removed and added again is reported twice": (
        Edit(POLLER, "held = self._delivery.held(self._client.name)", "held = set[UUID]()"),
        Edit(DELIVERY, "is not its or key in its.held:", "is not its:"),
    ),
    "names that were swapped are not recognized": (
        Edit(POLLER, "        if tracker.is_first or is_another:\n", "        if tracker.is_first:\n"),
    ),
    "whether a server is unreachable is not known after a restart": (
        Edit(TRACKER, "self.outage = records.get(SERVER_KEY)", "self.outage: SessionRecord | None = None"),
    ),
    "the next worker does not deliver what was saved and not acknowledged": (
        Edit(
            POLLER,
            "        if not pending:\n            return\n        pending.sort",
            "        if pending or not pending:\n            return\n        pending.sort",
        ),
    ),
    "the next worker begins with what is there": (
        Edit(
            POLLER,
            "        self.tracker = self._track(place)\n        try:",
            "        self.tracker = self._track(None)\n        try:",
        ),
        Edit(TRACKER, "if session.has_ended and not is_news and", "if session.has_ended and"),
    ),
    "removed sessions are forgotten": (
        Edit(
            TRACKER,
            'if not entry.is_open and entry.kind == "session" and entry.created < limit',
            "if not entry.is_open and entry.created < limit",
        ),
    ),
}
"""Each with its replacements."""

STATEMENTS, LEASES, STORE = "_watch/postgres_statements.py", "_watch/leases.py", "postgres.py"
_CHECKED = """
WHERE "group" = %(group)s AND server = ANY(%(servers)s) AND NOT EXISTS (
    SELECT 1 FROM {schema}.aiovbo_processes AS process
    WHERE process."group" = lease."group" AND id = owner AND expires > clock_timestamp()
)
RETURNING server, epoch
"""
_UNCHECKED = """
WHERE "group" = %(group)s AND server = ANY(%(servers)s)
RETURNING server, epoch
"""
_RENEWED = "AND id = %(id)s AND expires > clock_timestamp() RETURNING 1"
LEASE_FAULTS: dict[str, tuple[Edit, ...]] = {
    "a renewal goes by the time at which its transaction began": (
        Edit(STATEMENTS, _RENEWED, "AND id = %(id)s AND expires > now() RETURNING 1"),
    ),
    "who is alive goes by the time at which the transaction began": (
        Edit(
            STATEMENTS,
            """WHERE "group" = %(group)s AND expires > clock_timestamp()
)
SELECT server, epoch""",
            """WHERE "group" = %(group)s AND expires > now()
)
SELECT server, epoch""",
        ),
    ),
    "a claim is not checked again once its rows are locked": (Edit(STATEMENTS, _CHECKED, _UNCHECKED),),
    "a process renews leases that have ended": (Edit(STATEMENTS, _RENEWED, "AND id = %(id)s RETURNING 1"),),
    "a save does not check its leases": (
        Edit(
            STORE,
            "        if lost := epochs.keys() - {name for (name,) in rows}:\n            raise",
            "        if lost := [name for (name,) in rows if name not in epochs]:\n            raise",
        ),
    ),
    "a save does not lock its leases": (
        Edit(STATEMENTS, "ORDER BY server FOR SHARE OF aiovbo_leases", "ORDER BY server"),
    ),
    "a server is released before its changes are delivered": (
        Edit(
            LEASES,
            "            if not self._is_delivered(name):\n                self._draining[name] = now\n"
            "            elif",
            "            if",
        ),
        Edit(LEASES, "now - since > _ACK_RENEWALS * self._store.renew_every:", "now >= since:"),
    ),
    "a process delivers until the end of its lease": (
        Edit(
            STORE,
            "valid_until = began + seconds - seconds / _MARGIN",
            "valid_until = time.monotonic() + seconds",
        ),
    ),
    "changes are delivered after the lease": (
        Edit(LEASES, "return time.monotonic() < self._valid_until", "return bool(time)"),
    ),
    "a process keeps its lease row locked while it renews": (
        Edit(
            STATEMENTS,
            _RENEWED,
            "AND id = %(id)s AND expires > clock_timestamp() AND (SELECT count(*) FROM "
            "(SELECT 1 FROM {schema}.aiovbo_leases WHERE owner = %(id)s FOR UPDATE) AS its) >= 0 RETURNING 1",
        ),
    ),
    "a claim does not begin an epoch": (
        Edit(STATEMENTS, "owner = %(id)s, epoch = epoch + 1", "owner = %(id)s, epoch = epoch"),
    ),
    "a process claims more than its share": (
        Edit(STORE, "missing = share - len(epochs.keys() & members)", "missing = len(members)"),
    ),
    "the end of the lease of another process is not awaited": (
        Edit(LEASES, "leases.next_end + _CLAIM_DELAY", 'float("inf")'),
    ),
    "a process keeps what is above its share": (Edit(STORE, "surplus=max(0, -missing)", "surplus=0"),),
    "the next process does not deliver what was saved and not acknowledged": FAULTS[
        "the next worker does not deliver what was saved and not acknowledged"
    ],
    "the next process begins with what is there": FAULTS["the next worker begins with what is there"],
}
"""Those of processes that share a watch; `tests/shared_watches.py` is to find them."""


def put_back(name: str, folder: Path) -> None:
    """Make a copy of the package with a fault."""
    package = folder / "aiovbo"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in (FAULTS | LEASE_FAULTS)[name]:
        edit.apply(package)


def find(name: str, seeds: int, first: int) -> tuple[int | None, str]:
    """After how many seeds a fault was found, and by what; None where it was not."""
    with tempfile.TemporaryDirectory() as folder:
        put_back(name, Path(folder))
        program = "tests/shared_watches.py" if name in LEASE_FAULTS else "tests/seeds.py"
        command = [sys.executable, str(ROOT / program), "--until-failure"]
        command += ["--seeds", str(seeds), "--first", str(first)]
        command += ["--processes", "0"] if name in LEASE_FAULTS else []
        environment = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'tests'}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
    if found := re.search(r"^seed (\d+)(?:: .*\n\s*| \(Thread\): )(.*)", done.stdout, re.MULTILINE):
        return int(found[1]) - first + 1, found[2]
    if done.returncode:
        return None, f"ended with {done.stderr[-300:]}"
    return None, ""


def main() -> None:
    """Put back each fault, and print which seed found it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=200, help="for each fault, at most")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--postgres", action="store_true", help="those of processes that share a watch")
    options = parser.parse_args()
    missed = 0
    for name in LEASE_FAULTS if options.postgres else FAULTS:
        if options.only in name:
            seeds, by = find(name, options.seeds, options.first)
            missed += seeds is None
            print(f"{'none' if seeds is None else seeds:>5}  {name}: {by[:90]}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
