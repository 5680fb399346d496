"""A coordinator: one poll for many listeners, like Home Assistant's DataUpdateCoordinator.

What shows something of the backup servers listens to the coordinator, and sends nothing itself. The poll
keeps the last successful answer of each server, and polls one that fails less and less often.
"""

import asyncio
import logging
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from _servers import arguments, servers_of

from aiovbo import Answer, Fleet, Poll, RestoreSession

log = logging.getLogger(__name__)

Listener = Callable[[Answer[RestoreSession]], None]


async def coordinate(poll: Poll[RestoreSession], *listeners: Listener) -> None:
    """Call every listener with each answer, until cancelled."""
    async for answer in poll:
        for listener in listeners:
            try:
                listener(answer)
            except Exception:
                log.exception("a listener failed; the others are called all the same")


async def main(options: Namespace) -> int:
    """Two listeners, for a while; 1 where a server fails at the end."""
    every = timedelta(seconds=options.every)
    async with (
        servers_of(options) as servers,
        Fleet(servers, deadline=10) as fleet,
        fleet.poll(every=every) as poll,
    ):
        reported: set[str] = set()
        answered: set[str] = set()

        def board(answer: Answer[RestoreSession]) -> None:
            answered.add(answer.server)
            if limit.when() is None and answered >= set(fleet):
                limit.reschedule(asyncio.get_running_loop().time() + options.seconds)
            counts = (f"{name} {len(latest.items)}" for name, latest in poll.latest.items())
            print("sessions in a day:", ", ".join(counts), flush=True)

        def alarm(answer: Answer[RestoreSession]) -> None:
            if answer.error is None:
                reported.discard(answer.server)
            elif answer.server not in reported:
                reported.add(answer.server)
                print(answer.error, file=sys.stderr, flush=True)

        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await coordinate(poll, board, alarm)
        return 1 if reported else 0


if __name__ == "__main__":
    parser = arguments("One poll of a fleet, for many listeners.")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between polls (default 0.5)")
    parser.add_argument(
        "--seconds", type=float, default=1.2, help="how long to run after the first answers (default 1.2)"
    )
    sys.exit(asyncio.run(main(parser.parse_args())))
