"""The command line, as `aiovbo` and as `python -m aiovbo`.

Knows that it needs an extra; everything else is in `_cli`.
"""

import os
import sys


def main() -> int:
    """Run one command; the exit status."""
    _open_missing_streams()
    try:
        from aiovbo._cli._app import main  # it needs what may not be installed
    except ImportError as error:
        from aiovbo._extras import install_command

        sys.stderr.write(f"aiovbo: {error}; install what the command line needs: {install_command('cli')}\n")
        return 2
    return main()


def _open_missing_streams() -> None:
    """Connect standard streams that are closed, as some services start a command, with the null device.

    Otherwise sockets and files would get their numbers, and uvloop would abort.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  # until the process ends
            setattr(sys, name, stream)


if __name__ == "__main__":
    sys.exit(main())
