"""The list of commands, their help, completion, and how a command ends.

The options and the help of a command are in `_commands`. Neither module needs an HTTP library.
"""

import inspect
import io
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from aiovbo import __version__
from aiovbo._cli import _commands
from aiovbo._cli._statuses import INTERRUPTED, OK, USAGE

_SERVERS = (
    "Servers come from an inventory (--fleet, the variable AIOVBO_FLEET, or ./fleet.toml), or are given "
    "by --url and --user (or AIOVBO_URL and AIOVBO_USER), with the password in VBO_PASSWORD.\n\n"
)
_STATUSES = (
    "Exit status: 0 no failures, 1 a bug in aiovbo, 2 an error in the command line, the configuration or the "
    "output, 3 some servers failed, 4 all servers failed, 130 Ctrl-C, 141 the reader of the output closed "
    "the pipe, 143 SIGTERM or SIGHUP."
)

app = App(
    name="aiovbo",
    help="Query many Veeam Backup for Microsoft 365 servers at once.",
    version=__version__,
    help_epilogue=_SERVERS + _STATUSES,
    # Markdown would make help a fifth slower.
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)


def _help_of(command: Callable[..., int]) -> str:
    """A command's docstring with one line for each paragraph: the terminal decides where lines break."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


# Each command with the text below its help: not every command queries the servers of an inventory.
COMMANDS = {
    **dict.fromkeys(
        ("check", "sessions", "events", "report", "timeline", "watch", "show", "stop"), _SERVERS + _STATUSES
    ),
    "pin": _STATUSES,
    "schema": "",
    "demo": "",
}
for _number, (_name, _below) in enumerate(COMMANDS.items()):
    _command = getattr(_commands, _name)
    app.command(_command, name=_name, help=_help_of(_command), help_epilogue=_below, sort_key=_number)

# The script only defines a function. A file in $fpath has to call it; elsewhere it has to be registered.
_REGISTER_IN_ZSH = """
if [[ $zsh_eval_context[-1] == (loadautofunc|shfunc) ]]; then
  _cyclopts_aiovbo "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _cyclopts_aiovbo aiovbo
fi
"""


@app.command(
    help_epilogue=(
        'bash: add eval "$(aiovbo completion bash)" to ~/.bashrc. '
        'zsh: add eval "$(aiovbo completion zsh)" to ~/.zshrc. '
        "fish: add aiovbo completion fish | source to ~/.config/fish/config.fish."
    ),
    sort_key=len(COMMANDS),
)
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Name of the shell.")], /
) -> int:
    """The script that completes commands, options and values in a shell."""
    script = app.generate_completion(shell=shell)  # nosec B604  # names one, runs none
    if shell == "zsh":
        script += _REGISTER_IN_ZSH
    sys.stdout.write(script + "\n")
    return OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # In a pipe on Windows, the encoding may lack characters of a name: replace them only.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        status: object = app(given, exit_on_error=False, error_console=Console(stderr=True, highlight=False))
        # Report output that cannot be written here, not when the interpreter exits.
        sys.stdout.flush()
    except CycloptsError as error:
        return _unknown(error) if "nagios" in given or "--format=nagios" in given else USAGE
    except SystemExit as end:
        # The same status as rich uses when the reader closes the pipe.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return _ended_by(end.__context__)
    except KeyboardInterrupt:
        # Outside the event loop, for example while a password is typed.
        return INTERRUPTED
    except Exception as error:
        return _ended_by(error)
    return status if isinstance(status, int) else OK


def _unknown(error: CycloptsError) -> int:
    """An invalid command line, reported as a monitoring plugin does: its status is not CRITICAL."""
    from aiovbo._cli._plugin import UNKNOWN, unknown  # only for such a plugin

    sys.stdout.write(unknown(str(error)))
    return UNKNOWN


def _ended_by(error: Exception) -> int:
    from aiovbo._cli._terminal import ended_by  # help needs none of it

    return ended_by(error)
