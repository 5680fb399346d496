"""Chaos: 50 servers behind fault proxies, random faults, clients that come and go; and what must hold then.

A program, not a test: `python tests/chaos.py --seconds 60 --seed 1`. It prints its seed, a line every few
seconds and what broke, and ends with status 1 if anything did. Knows the SDK and the harness.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import attrs
from harness import FaultProxy
from harness import proxy as toxics

from aiovbo import TLS, ClosedError, Fleet, FleetError, Password, Server
from aiovbo.testing import Authority, BackupServer, Fault, World

SERVERS, SESSIONS = 50, 30
WARM_UP = 0.25
"""Share of the time after which memory has no reason to grow any more."""


@attrs.define
class Member:
    """One server, the way to it, and what it may be asked with."""

    backup: BackupServer
    proxy: FaultProxy
    server: Server
    ids: frozenset[object]


@attrs.define
class Findings:
    """What was asked, and what was wrong with it."""

    asked: Counter[str] = attrs.field(factory=Counter)
    broken: list[str] = attrs.field(factory=list)

    def check(self, what: object, text: str) -> None:
        """Note what should have been true and is not."""
        if not what:
            self.broken.append(text)


FAULTS = [
    Fault.status(500), Fault.status(503), Fault.status(429, headers={"Retry-After": "1"}), Fault.status(403),
    Fault.empty(), Fault.body(b"<html>", "text/html"), Fault.body(b"[{"), Fault.drop(),
    Fault.drop(reset=True),
    Fault.cut(20), Fault.cut(200, reset=True), Fault.stall(), Fault.stall(50), Fault.delay(0.3),
    Fault.trickle(0.02, 50), Fault.redirect("https://127.0.0.1:1/v8/RestoreSessions"),
]  # fmt: skip
TOXICS = [
    toxics.Latency(0.05, 0.05), toxics.Bandwidth(20_000), toxics.Timeout(), toxics.Timeout(0.3),
    toxics.ResetPeer(0.1), toxics.Slicer(100, 50, 0.001), toxics.LimitData(3000), toxics.SlowClose(0.3),
]  # fmt: skip


async def harm(members: list[Member], random: Random, ends: float) -> None:
    """One thing after the other goes wrong, and is well again a little later."""
    while time.monotonic() < ends:
        await asyncio.sleep(0.01)
        member = random.choice(members)
        kind = random.randrange(6)
        if kind <= 1:
            member.backup.fail(random.choice(FAULTS), times=random.randint(1, 4))
        elif kind == 2:
            member.backup.heal()
            random.choice((member.backup.expire_tokens, member.backup.revoke_tokens))()
        elif kind == 3:
            await member.proxy.down()
            await asyncio.sleep(0.05)
            await member.proxy.up()
        else:
            name = None
            with contextlib.suppress(AssertionError):  # that toxic is in force already
                name = member.proxy.add(random.choice(TOXICS), toxicity=0.7)
            if name is not None:
                asyncio.get_running_loop().call_later(random.uniform(0.1, 1.0), member.proxy.remove, name)


async def client(members: list[Member], random: Random, ends: float, findings: Findings) -> None:
    """Opens a fleet, asks a few times in one way or another, perhaps leaves early, closes it; and again."""
    names = {member.server.name: member for member in members}
    while time.monotonic() < ends:
        limits = {"deadline": 2.0, "connect_timeout": 0.5, "read_timeout": 0.5}
        async with Fleet([m.server for m in members], retries=random.randint(0, 2), **limits) as fleet:
            for _ in range(random.randint(1, 4)):
                way = random.choice(("await", "stream", "leave", "cancel", "map"))
                findings.asked[way] += 1
                if way == "await":
                    await whole(fleet, names, findings)
                elif way == "stream":
                    await streamed(fleet, names, findings)
                elif way == "leave":
                    # By chance it reads to the end, where servers that failed are named.
                    with contextlib.suppress(FleetError):
                        async with fleet.restore_sessions(page_size=7) as query:
                            async for _ in query:
                                if random.random() < 0.01:
                                    break
                else:
                    await cut_short(fleet, random, mapped=way == "map")


def waited_for_processor() -> float:
    """Seconds for which this thread could have run, and other programs had the processor; Linux only."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except OSError:
        return 0.0


async def whole(fleet: Fleet, names: dict[str, Member], findings: Findings) -> None:
    """Each server's answer is whole, or has an error."""
    started, waited = time.monotonic(), waited_for_processor()
    result = await fleet.restore_sessions(page_size=7)
    # On a busy machine, this process may not run for seconds.
    lasted = time.monotonic() - started - (waited_for_processor() - waited)
    findings.check(lasted < 4.0, "a question did not end by its deadline")
    findings.check(set(result.answers) == set(names), "a server is missing from the result")
    for name, answer in result.answers.items():
        ids = [session.id for session in answer.items]
        findings.check(len(ids) == len(set(ids)), f"{name}: a session came twice")
        findings.check(set(ids) <= names[name].ids, f"{name}: a session that is not its own")
        findings.asked["answers" if answer.error is None else "errors"] += 1
        if answer.error is None:
            findings.check(set(ids) == names[name].ids, f"{name}: {len(ids)} sessions and no error")
            findings.check(answer.complete, f"{name}: all is there, and it says that it is not")
        else:
            findings.check(answer.error.server == name, f"{name}: an error of {answer.error.server}")
            findings.check(not answer.complete, f"{name}: failed, and says it is complete")


async def streamed(fleet: Fleet, names: dict[str, Member], findings: Findings) -> None:
    """Each session once, or its server in the error at the end."""
    seen: Counter[tuple[str, object]] = Counter()
    failed: set[str] = set()
    try:
        async for session in fleet.restore_sessions(page_size=7):
            seen[session.server or "", session.id] += 1
    except FleetError as error:
        failed = {getattr(one, "server", "?") for one in error.exceptions}
    findings.check(all(count == 1 for count in seen.values()), "a session came twice in a stream")
    for name, member in names.items():
        if name not in failed:
            came = {key for server, key in seen if server == name}
            findings.check(came == member.ids, f"{name}: {len(came)} sessions in a stream and no error")


async def cut_short(fleet: Fleet, random: Random, *, mapped: bool) -> None:
    """A question that is cancelled in its midst."""

    async def ask() -> None:
        query = fleet.map(lambda c: c.organizations()) if mapped else fleet.restore_sessions(page_size=7)
        async for _ in query.answers():
            pass

    task = asyncio.create_task(ask())
    await asyncio.sleep(random.uniform(0, 0.3))
    task.cancel()
    await asyncio.wait([task])
    with contextlib.suppress(asyncio.CancelledError, ClosedError):
        task.result()


def seen_by_others(members: list[Member], findings: Findings, owners: dict[str, str]) -> None:
    """No token was seen by two servers, and no password by any but its own."""
    for member in members:
        name = member.server.name
        for request in member.backup.requests:
            if request.token:
                owner = owners.setdefault(request.token, name)
                findings.check(owner == name, f"{name} saw a token of {owner}")
        member.backup.requests.clear()
        findings.check(member.backup.refused_logins == 0, f"{name} was given a password of another")


def chance(seed: int, number: int) -> Random:
    """A source of chance of one's own, the same for the same seed."""
    return Random(seed * 1000 + number)  # noqa: S311  # it is to be repeatable


def resident() -> int:
    """Memory in use, in MB; what is only kept for later use is given back to the system before."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000


def open_files() -> int:
    """How many files, sockets among them, are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def left_over(tasks: int, files: int) -> tuple[int, int]:
    """How many more there are than that; the servers' own connections end a moment later than ours."""
    until = time.monotonic() + 5
    while time.monotonic() < until and (len(asyncio.all_tasks()) > tasks or open_files() > files):
        await asyncio.sleep(0.05)
    return len(asyncio.all_tasks()) - tasks, open_files() - files


async def run(seconds: float, seed: int) -> Findings:
    """The whole of it."""
    findings, owners = Findings(), dict[str, str]()

    def complain(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = context.get("future") or context.get("handle") or context.get("transport")
        findings.broken.append(f"asyncio: {context['message']}: {context.get('exception')!r} of {what!r}")

    asyncio.get_running_loop().set_exception_handler(complain)
    authority = Authority("127.0.0.1")
    async with contextlib.AsyncExitStack() as stack:
        members: list[Member] = []
        for number in range(SERVERS):
            world = World(sessions=SESSIONS, seed=number, speed=0)
            password = f"secret of {number}"
            backup = BackupServer(world, password=password, name=f"vbo{number}", authority=authority)
            await stack.enter_async_context(backup)
            proxy = await stack.enter_async_context(FaultProxy(backup.port, seed=seed + number))
            trust = TLS(ca_file=backup.ca_file)
            url = f"https://127.0.0.1:{proxy.port}"
            server = Server(url, Password(backup.username, password), name=backup.name, tls=trust)
            members.append(Member(backup, proxy, server, frozenset(one.id for one in world.sessions)))
        tasks_before, files_before = len(asyncio.all_tasks()), open_files()
        began, ends = time.monotonic(), time.monotonic() + seconds
        harms = [asyncio.create_task(harm(members, chance(seed, 1), ends))]
        groups = [members[:30], members[20:], members[::2]]
        harms += [
            asyncio.create_task(client(group, chance(seed, 2 + n), ends, findings))
            for n, group in enumerate(groups)
        ]
        warm: int | None = None
        while time.monotonic() < ends:
            await asyncio.sleep(min(5.0, seconds / 8))
            seen_by_others(members, findings, owners)
            memory = resident()
            passed = time.monotonic() - began
            print(f"{passed:5.0f} s  {memory} MB  {open_files()} files  {dict(findings.asked)}", flush=True)
            if warm is None and passed > seconds * WARM_UP:
                warm = memory
        await asyncio.gather(*harms)
        await asyncio.sleep(1.2)
        seen_by_others(members, findings, owners)
        for member in members:
            member.backup.heal()
        async with Fleet([member.server for member in members]) as fleet:
            result = await fleet.restore_sessions()
            for answer in result.failed:
                findings.check(False, f"{answer.server}: all is well again, and yet: {answer.error}")  # noqa: FBT003
        tasks, files = await left_over(tasks_before, files_before)
        memory = resident()
        print(f"end: {memory} MB, {tasks:+d} tasks, {files:+d} files")
        findings.check(tasks <= 0, f"{tasks} tasks are left")
        findings.check(files <= 0, f"{files} files are left open")
        flat = warm is None or memory <= warm * 1.1 + 10
        findings.check(flat, f"memory grew from {warm} to {memory} MB")
    return findings


def main() -> None:
    """Run it, and say what broke."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    findings = asyncio.run(run(options.seconds, options.seed))
    for text, count in Counter(findings.broken).most_common(20):
        print(f"BROKEN ({count} times): {text}")
    print("nothing broke" if not findings.broken else f"{len(findings.broken)} findings, seed {options.seed}")
    sys.exit(bool(findings.broken))


if __name__ == "__main__":
    main()
