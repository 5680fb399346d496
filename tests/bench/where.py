"""Where the time of a warm fan-out goes: `python tests/bench/where.py [--servers 50] [--lines 30]`.

A profile exaggerates small functions; it says where to look, the benchmark says what was gained.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
from datetime import timedelta

from aiovbo import TLS, Fleet, Password
from aiovbo.testing import BackupFleet

_ROUNDS = 20


async def ask(backups: BackupFleet, profile: cProfile.Profile) -> None:
    """Some rounds to warm up, and some that are looked at."""
    login, trust = Password(backups.username, backups.password), TLS(ca_file=backups.ca_file)
    async with Fleet(backups.urls, login, tls=trust) as fleet:
        for number in range(_ROUNDS + 3):
            if number == 3:
                gc.collect()
                profile.enable()
            result = await fleet.restore_sessions(started_after=timedelta(days=4000))
            assert not result.failed
        profile.disable()


def main() -> None:
    """Profile, and print what took longest."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--lines", type=int, default=30)
    options = parser.parse_args()
    profile = cProfile.Profile()
    with BackupFleet(options.servers, sessions=30).run_in_thread() as backups:
        asyncio.run(ask(backups, profile))
    pstats.Stats(profile).sort_stats("tottime").print_stats(options.lines)


if __name__ == "__main__":
    main()
