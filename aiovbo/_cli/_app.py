"""The command line's table of contents: its commands, their help, completion, and how a command ends.

Knows names and exit statuses. What a command does is in a module of its own, which is imported when it is
given, so that help needs no HTTP library.
"""

import io
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from aiovbo import __version__
from aiovbo.errors import VboError

USAGE = 2
"""The exit status of a command that could not be understood, or was told nonsense."""

app = App(
    name="aiovbo",
    help="Ask many Veeam Backup for Microsoft 365 servers one question.",
    version=__version__,
    help_epilogue=(
        "Servers come from an inventory (--fleet, the variable AIOVBO_FLEET, or ./fleet.toml), or are given "
        "by --url, --user and the variable VBO_PASSWORD. Exit status: 0 all well, 2 some servers failed or "
        "the command was wrong, 4 none could be asked, 130 interrupted."
    ),
    # Markdown would cost a fifth of the time in which help is there.
    help_format="plaintext",
    result_action="return_value",
)
_COMMANDS = {
    "check": "How each server does: name, TCP, TLS, version, logon, clock, sessions.",
    "sessions": "The restore sessions of all servers.",
    "timeline": "Who restored what when, as bars over time.",
    "watch": "Every change of every server, as it is noticed.",
    "show": "One restore session, with its events and statistics.",
    "stop": "Stop a restore session; asks first.",
    "pin": "A server's certificate, and the line that makes an inventory trust it.",
    "schema": "The JSON schema of an inventory, for editors.",
    "demo": "Ask fifteen embedded servers, three of them broken (about 5 s).",
}
for _number, (_name, _help) in enumerate(_COMMANDS.items()):
    app.command(f"aiovbo._cli._commands:{_name}", name=_name, help=_help, sort_key=_number)


@app.command(sort_key=len(_COMMANDS))
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Which shell.")]) -> int:
    """The script that completes commands and options in a shell: `eval "$(aiovbo completion bash)"`."""
    sys.stdout.write(app.generate_completion(shell=shell) + "\n")  # nosec B604  # names one, runs none
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # As in a pipe on Windows: a name that its encoding does not have is no reason to show none.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    complaints = Console(stderr=True, highlight=False)
    try:
        status: object = app(
            None if arguments is None else list(arguments),
            exit_on_error=False,
            error_console=complaints,
        )
    except CycloptsError:
        return USAGE
    except VboError as error:
        # What servers had to say is the command's own affair; this is about what was asked for.
        for line in str(error).splitlines():
            complaints.print(f"aiovbo: {line}", markup=False, soft_wrap=not complaints.is_terminal)
        return USAGE
    return status if isinstance(status, int) else 0
