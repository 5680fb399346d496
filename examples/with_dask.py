r"""A fleet shared out over the workers of a dask cluster; one of them dies on the way, and nothing is lost.

    pip install '.[testing]' distributed
    python examples/with_dask.py --servers 200

Each worker has a fleet of its own, which lives as long as the worker: connections and tokens are kept from
one task to the next. Credentials do not travel, they are not picklable; each worker reads its own. What does
travel are `Answer`s, errors included. Where a worker dies, dask asks again what it had not finished, or what
died with it.
"""

import argparse
import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import distributed

from aiovbo import TLS, Answer, Fleet, Password, RestoreSession, Server
from aiovbo.testing import BackupFleet

dask: Any = distributed
"""It has no types of its own."""
PASSWORD = "VBO_PASSWORD"  # noqa: S105  # the name of a variable


def fleet_of_this_worker(urls: Sequence[str], ca_file: str) -> Fleet:
    """The worker's own fleet, made when it is first needed."""
    worker = dask.get_worker()
    if not hasattr(worker, "fleet"):
        login = Password("TECH\\monitor", os.environ[PASSWORD])
        trust = TLS(ca_file=ca_file)
        worker.fleet = Fleet([Server(url, login, tls=trust) for url in urls])
    fleet: Fleet = worker.fleet
    return fleet


async def ask(urls: Sequence[str], ca_file: str, index: int, count: int) -> list[Answer[RestoreSession]]:
    """What one share of the servers answers; runs on a worker, on its event loop."""
    fleet = fleet_of_this_worker(urls, ca_file)
    share = fleet.shard(index, count)
    return list(await asyncio.gather(*(fleet[name].restore_sessions().answer() for name in share)))


def main(servers: int, shares: int, *, kill: bool) -> tuple[Counter[str], int]:
    """Ask all, kill a worker in the midst of it, merge.

    Shape: how many sessions each server has; how many servers were asked again.
    """
    found: Counter[str] = Counter()
    with BackupFleet(servers, sessions=5).run_in_thread() as backups:
        os.environ[PASSWORD] = backups.password
        with (
            dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
            dask.Client(local) as cluster,
        ):
            urls, ca_file = backups.urls, backups.ca_file
            tasks = [cluster.submit(ask, urls, ca_file, index, shares) for index in range(shares)]
            if kill:
                # One that has answers already: they die with it.
                first = next(iter(dask.as_completed(tasks)))
                holder, *_ = cluster.who_has([first])[first.key]
                os.kill(cluster.run(os.getpid)[holder], signal.SIGKILL)
            results: list[list[Answer[RestoreSession]]] = cluster.gather(tasks)
            for answers in results:
                for answer in answers:
                    if answer.error is not None:
                        print(answer.error)
                    found[answer.server] += len(answer.items)
        requests = [one for backup in backups for one in backup.requests]
        answered = sum(one.resource == "RestoreSessions" and one.status == HTTPStatus.OK for one in requests)
    return found, answered - servers


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A fleet on a dask cluster.")
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--shares", type=int, default=16, help="tasks; several for each worker")
    parser.add_argument("--no-kill", action="store_true", help="let both workers live")
    options = parser.parse_args()
    counted, again = main(options.servers, options.shares, kill=not options.no_kill)
    print(f"{sum(counted.values())} sessions of {len(counted)} servers")
    if again:
        print(f"{again} of them were asked again, because their worker was killed")
