"""A program that queries fleets on a dask cluster of two processes, and prints what was seen, as JSON.

Run in a process of its own: a cluster leaves threads and connections behind.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import distributed

from aiovbo import Client, ConfigError, Fleet, FleetError, RestoreSession
from aiovbo.dask import DaskFleet
from aiovbo.testing import BackupFleet, Fault

dask: Any = distributed
EXAMPLES = Path(__file__).parents[2] / "examples"


def inventory_of(backups: BackupFleet, variable: str) -> dict[str, Any]:
    """The servers, and the variable that has the password."""
    login = {"username": backups.username, "password": {"env": variable}}
    return {
        "defaults": {"credentials": login, "tls": {"ca_file": backups.ca_file}},
        "servers": {f"vbo{number}": {"url": url} for number, url in enumerate(backups.urls)},
    }


async def first_details(client: Client) -> str:
    """Something to map."""
    sessions = await client.restore_sessions()
    return f"{client.name} {len(sessions)}"


async def bug(client: Client) -> None:
    """What is no server's failure."""
    raise FileNotFoundError(client.name)


async def queries(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """What a healthy cluster and fleet give, with one server that fails."""
    inventory = inventory_of(backups, "RIGHT_PASSWORD")
    async with Fleet.from_mapping(inventory) as own, DaskFleet(cluster, inventory, fleet=own) as fleet:
        backups[1].fail(Fault.status(403), on="RestoreSessions", times=None)
        items: list[RestoreSession] = []
        try:
            async for session in fleet.restore_sessions(started_after=timedelta(days=4000)):
                items.append(session)  # noqa: PERF401  # what came before the error counts
        except FleetError as error:
            seen["failed"] = [failure.server for failure in error.exceptions]
        seen["items"] = len(items)
        seen["followed"] = (await items[0].refresh()).id == items[0].id
        seen["logins of one query"] = [backup.logins for backup in backups]
        result = await fleet.map(first_details)
        seen["mapped"] = [result.items[0], len(result.items), list(result.answers) == fleet.names]
        seen["logins of two queries"] = [backup.logins for backup in backups]
        try:
            await fleet.map(bug)
        except FileNotFoundError:
            seen["bug"] = "raised"
        try:
            fleet.restore_sessions(page_size=0)
        except ConfigError:
            seen["page_size"] = "refused"
        async for _ in fleet.restore_sessions():
            break
    seen["logouts"] = Counter(one.resource for backup in backups for one in backup.requests)["token/logout"]


async def example(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """What the example prints."""
    login = '{ username = "TECH\\\\monitor", password = { env = "RIGHT_PASSWORD" } }'
    text = f'[defaults]\ncredentials = {login}\ntls.ca_file = "{backups.ca_file}"\n[servers]\n'
    text += "".join(f'vbo{number}.url = "{url}"\n' for number, url in enumerate(backups.urls))
    sys.path.insert(0, str(EXAMPLES))
    main: Any = __import__("with_dask").main
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as printed:
        path = Path(folder) / "fleet.toml"
        await asyncio.to_thread(path.write_text, text)
        await main(str(path), cluster.scheduler_info()["address"])
    since = datetime.now(UTC) - timedelta(days=1)
    seen["restored"] = [
        f"vbo{number}"
        for number, backup in enumerate(backups)
        if any(one.creation_time > since for one in backup.world.sessions)
    ]
    seen["printed"] = sorted({line.split()[0] for line in printed.getvalue().splitlines()})


async def wrong_password(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """How many of them are sent, by two queries."""
    async with DaskFleet(cluster, inventory_of(backups, "WRONG_PASSWORD")) as fleet:
        for _ in range(2):
            result = await fleet.restore_sessions()
        seen["wrong passwords"] = sum(backup.refused_logins for backup in backups)
        seen["errors"] = len(result.failed)


async def killed_worker(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """One of two workers is killed after the first answers."""
    async with DaskFleet(cluster, inventory_of(backups, "RIGHT_PASSWORD")) as fleet:
        found: list[str] = []
        async for answer in fleet.restore_sessions().answers():
            found.append(answer.server)
            if len(found) == len(backups) // 4:
                pids = await cluster.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)
        seen["answers"] = [len(found), len(set(found))]
        seen["logins with a killed worker"] = sum(backup.logins for backup in backups)
    logouts = Counter(one.resource for backup in backups for one in backup.requests)["token/logout"]
    seen["logouts with a killed worker"] = logouts


async def killed_at_the_end(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """One of two workers is killed just before the fleet is closed, before the scheduler knows of it."""
    before = Counter(one.resource for backup in backups for one in backup.requests)["token/logout"]
    async with DaskFleet(cluster, inventory_of(backups, "RIGHT_PASSWORD")) as fleet:
        await fleet.restore_sessions()
        pids = await cluster.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
    after = Counter(one.resource for backup in backups for one in backup.requests)["token/logout"]
    seen["logouts of the worker that is left"] = after - before


async def killed_at_the_start(cluster: Any, backups: BackupFleet, seen: dict[str, Any]) -> None:
    """One of two workers is killed just before the fleet is opened."""
    pids = await cluster.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)
    async with DaskFleet(cluster, inventory_of(backups, "RIGHT_PASSWORD")) as fleet:
        seen["answers after a kill at the start"] = len((await fleet.restore_sessions()).items)


async def main(servers: int) -> None:
    """All of it."""
    seen: dict[str, Any] = {}
    with (
        BackupFleet(4, sessions=5, versions=("v8",)).run_in_thread() as healthy,
        BackupFleet(6, sessions=1, versions=("v8",)).run_in_thread() as refusing,
        BackupFleet(servers, sessions=5, versions=("v8",)).run_in_thread() as many,
    ):
        os.environ |= {"RIGHT_PASSWORD": healthy.password, "WRONG_PASSWORD": "wrong"}
        local = dask.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, asynchronous=True
        )
        async with local as started, dask.Client(started, asynchronous=True) as cluster:
            await queries(cluster, healthy, seen)
            for backup in healthy:
                backup.heal()
            await example(cluster, healthy, seen)
            await wrong_password(cluster, refusing, seen)
            await killed_worker(cluster, many, seen)
            await cluster.wait_for_workers(2)
            await killed_at_the_end(cluster, many, seen)
            await cluster.wait_for_workers(2)
            await killed_at_the_start(cluster, healthy, seen)
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
