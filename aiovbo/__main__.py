"""The command line, as `aiovbo` and as `python -m aiovbo`.

Knows that it needs an extra; everything else is in `_cli`.
"""

import sys


def main() -> int:
    """Run one command; the exit status."""
    try:
        from aiovbo._cli._app import main  # it needs what may not be installed
    except ImportError as error:
        print(
            f'aiovbo: {error}; the command line needs: pip install "aiovbo[cli]"', file=sys.stderr
        )  # what else is there to print with
        return 2
    return main()


if __name__ == "__main__":
    sys.exit(main())
