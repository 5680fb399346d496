"""Many servers: what each organization had restored in the last week, and whether it worked."""

import asyncio
import sys
from argparse import Namespace
from collections import Counter
from datetime import timedelta

from _servers import arguments, servers_of

from aiovbo import Fleet, FleetError


async def main(options: Namespace) -> int:
    """Ask all servers at once; 1 where any failed."""
    outcomes: Counter[tuple[str, str]] = Counter()
    failures = 0
    async with servers_of(options) as servers, Fleet(servers, deadline=20) as fleet:
        try:
            async for session in fleet.restore_sessions(started_after=timedelta(days=7)):
                # Up to v4 a session has no name of its organization, only the link.
                name = session.organization or (await session.fetch_organization()).name or "?"
                # What a session shows as its result while it works is no outcome yet.
                outcomes[name, session.outcome or "Working"] += 1
        except FleetError as error:
            # All sessions of the healthy servers are counted by now.
            failures = len(error.exceptions)
            for failure in error.exceptions:
                print(failure, file=sys.stderr)
    print(f"{outcomes.total()} sessions from {len(servers) - failures} of {len(servers)} servers:")
    for (name, outcome), count in sorted(outcomes.items()):
        print(f"  {name:30} {outcome:10} {count:4}")
    return 1 if failures else 0


sys.exit(asyncio.run(main(arguments("What every organization restored.").parse_args())))
