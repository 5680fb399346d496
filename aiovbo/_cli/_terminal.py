"""Where commands write and how they end: consoles, progress, interruptions, exit statuses.

Must not know what is requested from the servers.
"""

import asyncio
import errno
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from aiovbo import Answer, ClosedError, FleetError, LinkError, ServerError, VboError, __version__
from aiovbo._cli._columns import CELL_LIMIT, NAME_LIMIT, name_cell
from aiovbo._cli._statuses import BROKEN_PIPE, BUG, INTERRUPTED, SOME_FAILED, TERMINATED, USAGE
from aiovbo._cli._words import to_cli_terms
from aiovbo.errors import printable

T = TypeVar("T")

_PIPE_WIDTH = 120
"""Columns where the output is not a terminal."""

_LONGEST_LINE = 120
"""Columns beyond which sentences are hard to read."""

_FEW = 3
_ADDRESS = re.compile(r"(?<=\bthe name )\S+(?= cannot)|(?<=does not connect to )\S+(?=: )")
"""The server's own address in a message."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class _Console(Console):
    """A console that raises an error when the reader closes the pipe, instead of ending the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(*, stderr: bool = False) -> Console:
    """Where to write: plain text of 120 columns, unless it is a terminal; markup is never interpreted.

    FORCE_COLOR adds colours to a file or a pipe, and does not make it a terminal.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream.isatty()
    return _Console(
        stderr=stderr,
        width=None if is_terminal or "COLUMNS" in os.environ else _PIPE_WIDTH,
        force_terminal=is_terminal,
        color_system="standard" if os.environ.get("FORCE_COLOR") and not is_terminal else "auto",
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=False,
    )


def show_failures(errors: Sequence[ServerError], asked: int, out: Console) -> None:
    """Which servers gave no answer, why, and what to do; equal failures are one block."""
    if not errors:
        return
    title = f"{len(errors)} of {asked} servers" if asked > 1 else "The server"
    out.print(Text(f"\n{title} gave no answer\n", style="bold"))
    alike: dict[tuple[str, ...], list[ServerError]] = {}
    for error in errors:
        # The API versions and the addresses of the servers may differ.
        path = re.sub("/v[0-9]+/", "/", error.operation)
        what = _ADDRESS.sub("", error.what)
        alike.setdefault((path, what, error.hint, str(error.attempts)), []).append(error)
    room = min(out.width, _LONGEST_LINE) - 2
    for several in alike.values():
        out.print(name_cell(", ".join(printable(one.server, NAME_LIMIT) for one in several), "red"))
        for text in (_described(several), several[0].hint):
            for line in textwrap.wrap(printable(to_cli_terms(text), 1000), room):
                out.print(Text(f"  {line}"))


def _described(alike: Sequence[ServerError]) -> str:
    """What happened, how often it was tried, and how long it took."""
    first = alike[0]
    operations = ", ".join(dict.fromkeys(error.operation for error in alike))
    addresses = list(dict.fromkeys(one for error in alike for one in _ADDRESS.findall(error.what)))
    more = f" and {len(addresses) - _FEW} more" if len(addresses) > _FEW else ""
    what = _ADDRESS.sub(lambda _: ", ".join(addresses[:_FEW]) + more, first.what)
    if len(addresses) > 1:
        what = re.sub(r"^the name (?=.* cannot be resolved)", "the names ", what)
    if not first.attempts:
        return f"{operations}: {what}"
    often = "once" if first.attempts == 1 else f"{first.attempts} times"
    took = sorted(f"{error.elapsed:.1f}" for error in alike)
    spread = took[0] if took[0] == took[-1] else f"{took[0]} to {took[-1]}"
    return f"{operations}: {what} (tried {often}, {spread} s)"


def counted(count: int, thing: str) -> str:
    """A number of things, in words: `1 server`, `2 servers`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


async def collect(
    answers: AsyncGenerator[Answer[T]],
    asked: Collection[str],
    print_each: Callable[[Answer[T]], None] | None = None,
    enough: Callable[[Answer[T]], bool] = lambda _: False,
) -> tuple[list[Answer[T]], bool]:
    """The answers up to one that is enough, in the order of `asked`, and whether the user interrupted it.

    A terminal shows the progress, and the names of the last few servers that have not answered, unless
    `print_each` writes to a terminal too.
    """
    arrived: list[Answer[T]] = []
    interrupted = False
    out = console(stderr=True)
    missing = dict.fromkeys(asked)
    columns = (
        TextColumn(f"{{task.completed:.0f}} of {counted(len(asked), 'server')}"),
        BarColumn(),
        TextColumn("{task.description}", style="dim", markup=False, table_column=Column(no_wrap=True)),
    )
    is_shown = out.is_terminal and not (print_each is not None and sys.stdout.isatty())
    # What is written to standard output must not appear on standard error.
    with Progress(
        *columns, console=out, transient=True, redirect_stdout=False, disable=not is_shown
    ) as progress:
        task = progress.add_task("", total=len(asked))
        try:
            async with aclosing(answers):
                async for answer in answers:
                    arrived.append(answer)
                    missing.pop(answer.server, None)
                    if print_each is not None:
                        print_each(answer)
                    progress.update(task, advance=1, description=_waiting_for(missing))
                    if enough(answer):
                        break
        except asyncio.CancelledError:
            # What has arrived is printed; the status states that it is incomplete.
            interrupted = True
    if interrupted:
        complain(f"interrupted; {counted(len(missing), 'server')} had not answered yet")
    order = {name: number for number, name in enumerate(asked)}
    return sorted(arrived, key=lambda answer: order[answer.server]), interrupted


def _waiting_for(servers: Collection[str]) -> str:
    """The names of the last few; empty while many are in progress."""
    names = ", ".join(printable(name, CELL_LIMIT) for name in servers)
    return f"waiting for {names}" if 0 < len(servers) <= _FEW else ""


def run(command: Coroutine[Any, Any, int], *, when_terminated: int = TERMINATED) -> int:
    """Run a command to its end or its interruption; the exit status.

    - `when_terminated`: the exit status after SIGTERM or SIGHUP.

    Raises: what the command does.
    """
    terminated = False

    async def work() -> int:
        task = asyncio.ensure_future(command)

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with suppress(NotImplementedError):  # on Windows
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                # Under nohup, the end of the terminal is ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    asyncio.get_running_loop().add_signal_handler(number, terminate)
        return await task

    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            status = runner.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = INTERRUPTED
    return when_terminated if terminated and status == INTERRUPTED else status


def ended_by(error: Exception) -> int:
    """Report in a few lines what ended a command; the exit status.

    A bug is reported with its traceback, which shows no values of variables.
    """
    said, status = _reason(error)
    _drop_what_cannot_be_written()
    with suppress(OSError):  # standard error itself cannot be written
        if status == BUG:
            for line in "".join(traceback.format_exception(error)).splitlines():
                sys.stderr.write(f"{printable(line, 1000)}\n")
        complain(said)
    return status


def _reason(error: Exception) -> tuple[str, int]:
    """What ended a command, and the exit status."""
    said = str(error)
    match error:
        case BrokenPipeError():
            return "", BROKEN_PIPE
        case ServerError() | FleetError() | LinkError():
            return said, SOME_FAILED
        case ImportError(name=name) if not (name or "").startswith("aiovbo"):
            return said, USAGE
        case VboError() if not isinstance(error, ClosedError):
            return said, USAGE
        case OSError():
            # A file or the output: a failure on the way to a server is a ServerError.
            what = error.filename or ("the output cannot be written" if error.errno in _FULL else "")
            return f"{what}: {error.strerror}" if what else said, USAGE
        case _:
            return (
                f"this is a bug in aiovbo {__version__}, not a mistake of yours. "
                "Please report it with the traceback above."
            ), BUG


def _drop_what_cannot_be_written() -> None:
    """Discard what is buffered for a stream that cannot be written: the interpreter would fail at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


async def ask(question: str) -> str:
    """Ask the user; what is typed."""
    sys.stdout.write(question)
    sys.stdout.flush()
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(sys.stdin, typed.set)
    except NotImplementedError:  # on Windows
        return await asyncio.to_thread(sys.stdin.readline)
    # Not in a thread: Ctrl-C could not end it.
    try:
        await typed.wait()
    except asyncio.CancelledError:
        sys.stdout.write("\n")
        raise
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


def complain(text: str) -> None:
    """Report on standard error why a command fails, in one line or a few."""
    out = console(stderr=True)
    for line in to_cli_terms(text).splitlines():
        # A terminal would break a line in the middle of a word; a pipe keeps it whole.
        out.print(Text(f"aiovbo: {printable(line, 1000)}"), soft_wrap=not out.is_terminal)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # an extra, used where it is installed
    except ImportError:
        return None
    return uvloop.new_event_loop
