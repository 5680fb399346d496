r"""The restores of the last day, queried by the workers of a dask cluster; without an address, a local one.

    pip install 'aiovbo[dask]'
    python examples/with_dask.py fleet.toml [tcp://scheduler:8786]

The inventory is a file that each worker can read. Workers get the passwords from where it says.
"""

import asyncio
import sys
from datetime import timedelta

from distributed import Client

from aiovbo.dask import DaskFleet


async def main(inventory: str, address: str | None = None) -> None:
    """Print a line for each restore."""
    cluster = Client(address, asynchronous=True)  # type: ignore[no-untyped-call]  # dask's
    async with cluster, DaskFleet(cluster, inventory) as fleet:
        async for session in fleet.restore_sessions(started_after=timedelta(days=1)):
            print(session.server, session.organization, session.type, session.outcome)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
