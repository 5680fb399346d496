"""One server: what was restored in the last week, and where the newest session's links lead."""

import asyncio
import sys
from argparse import Namespace
from datetime import timedelta

from _servers import arguments, servers_of

from aiovbo import Client, ServerError


async def main(options: Namespace) -> None:
    """Ask the first server."""
    async with servers_of(options) as servers, Client(servers[0]) as client:
        sessions = await client.restore_sessions(started_after=timedelta(days=7))
        print(f"{client.name} speaks {client.api_version}; {len(sessions)} sessions in a week:")
        for session in sessions[:5]:
            print(f"  {session.creation_time:%d %b %H:%M}  {session.type}  {session.outcome}")
        if not sessions:
            return

        newest = sessions[0]
        organization = await newest.fetch_organization()  # one request
        print(f"The newest explores the backup of {organization.name}.")
        for rel, link in newest.links.items():  # none: the links came with the session
            print(f"  {rel}: {link.url.raw_path}")


try:
    asyncio.run(main(arguments("What one server restored in the last week.").parse_args()))
except ServerError as error:
    sys.exit(str(error))  # which server, what was asked, what happened, what to do
