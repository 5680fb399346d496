"""The command line: `python -m aiovbo demo`.

Knows arguments and exit statuses; what a command does is imported only when it is given.
"""

import argparse
import sys
from collections.abc import Sequence

from aiovbo import __version__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiovbo",
        description="Ask many Veeam Backup for Microsoft 365 servers one question.",
    )
    parser.add_argument("--version", action="version", version=f"aiovbo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="ask fifteen embedded backup servers, three of them broken (about 5 s)",
        description=(
            "Start backup servers on loopback and ask all of them at once for the restore sessions "
            "of the last 24 hours. Three of them fail: one refuses connections, one never answers, "
            "one refuses the password."
        ),
    )
    demo.add_argument("--seed", type=int, default=1, help="picks what was restored (default 1)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    # It brings the backup server, which those who only use the SDK need not have.
    from aiovbo._demo import run  # noqa: PLC0415

    try:
        run(options.seed)
    except ImportError as error:
        print(f"python -m aiovbo demo: {error}", file=sys.stderr)  # noqa: T201  # its one line
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
