"""Functions and modules of aiovbo that one warm listing enters: `python tests/bench/calls.py [--names]`.

A fleet of one v8 server, one page of 30 sessions; connection and token are there. What the event loop calls
meanwhile on behalf of the listing counts too.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from types import FrameType

from contestants import BACK, PASSWORD, USER
from stub import Stub

import aiovbo
from aiovbo import TLS, Fleet, Password, Server

_PACKAGE = str(Path(aiovbo.__file__).parent)


async def entered(url: str, ca: str) -> set[tuple[str, str]]:
    """File and name of every function of the package that a listing enters after two others."""
    found: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            found.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    server = Server(url, Password(USER, PASSWORD), api_version="v8", tls=TLS(ca_file=ca))
    async with Fleet([server]) as fleet:
        for _ in range(2):
            await fleet.restore_sessions(started_after=BACK)
        sys.setprofile(note)
        try:
            result = await fleet.restore_sessions(started_after=BACK)
        finally:
            sys.setprofile(None)
        result.raise_for_failures()
        assert len(result.items) == 30, len(result.items)
    return found


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--names", action="store_true", help="which they are, too")
    options = parser.parse_args()
    with Stub(tls=1, items=30) as stub:
        found = asyncio.run(entered(stub.tls[0], stub.ca))
    modules = {module for module, _ in found}
    if options.names:
        for module in sorted(modules):
            names = sorted(name for where, name in found if where == module)
            print(f"{Path(module).relative_to(_PACKAGE)}: {', '.join(names)}")
    print(f"{len(found)} functions in {len(modules)} modules")


if __name__ == "__main__":
    main()
