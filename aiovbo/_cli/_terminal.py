"""Where commands write and how they end: consoles, columns, words, progress, exit statuses.

Knows terminals and signals. Must not know what is asked of the servers.
"""

import asyncio
import errno
import os
import re
import signal
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from attrs import frozen
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from aiovbo import Answer, ServerError, VboError
from aiovbo.errors import printable

T = TypeVar("T")

OK, SOME_FAILED, NONE_REACHABLE = 0, 2, 4
INTERRUPTED, TERMINATED, BROKEN_PIPE = 130, 143, 141

_PIPE_WIDTH = 120
"""Columns where the output is no terminal."""

_LONGEST_LINE = 120
"""Columns beyond which sentences are hard to read."""

_CELL_LIMIT = 60
_NAME_LIMIT = 300
"""Letters of a name by which something is known: as many as the name of a host has, and a few more."""
_FEW = 3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_LEAST = 8
"""Columns down to which a text is cut that may be."""
_LEAST_OF_A_NAME = 12
"""Columns down to which a name is folded; below that, it rather has a line of its own."""
_APART = 2

_OUR_WORDS = {
    r"TLS\(ca_file=\.\.\.\)": "--ca-file (in an inventory, tls.ca_file)",
    r"TLS\(pin='sha256:\.\.\.'\)": "--pin (in an inventory, tls.pin)",
    r"TLS\(client_cert=\.\.\., client_key=\.\.\.\)": "tls.client_cert and tls.client_key of an inventory",
    r"TLS\(strict_x509=False\)": "tls.strict_x509 = false in an inventory",
    r"TLS\(ca_file=('.*')\) cannot": r"the authorities in \1 cannot",
    r"TLS\(client_cert=('.*')\) cannot": r"the certificate in \1 cannot",
    r"TLS\(client_key=\.\.\.\) needs": "client_key needs",
    r"To see it: openssl .*": "`aiovbo pin URL` shows it.",
    r"\(deadline=\.\.\.\)": "(--deadline)",
    r"\(concurrency=\.\.\.\)": "(concurrency, in [fleet] of an inventory)",
    r"Ask for fewer items \(page_size=\.\.\.\), or raise max_body": (
        "Raise max_body, in [fleet] of an inventory"
    ),
    r"api_version='auto' finds": "In an inventory, api_version = 'auto' finds",
    r"and give it as api_version if need be": "or give it as api_version in an inventory",
    r"say Server\(\.\.\., allow_http=True\)": "say --allow-http",
    r"give one a name=\.\.\. of its own": "give each --url once, or names of their own in an inventory",
    r"give them as Password\(\.\.\.\)": (
        "give --user, and the variable VBO_PASSWORD (in an inventory, credentials)"
    ),
    r"Password needs a user name such": "the user name is missing, such",
}
"""What the SDK says to programmers, and how it is said to whoever types commands and writes inventories."""


class _Console(Console):
    """A console to which a reader that has gone is an error like any other, and no end of the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(*, stderr: bool = False) -> Console:
    """Where to write: plain text of 120 columns, unless it is a terminal; markup is never interpreted."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return _Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def in_our_words(text: str) -> str:
    """What the SDK says, with options and keys in place of Python's arguments."""
    for said, ours in _OUR_WORDS.items():
        text = re.sub(said, ours, text)
    return text


def cell(text: object, style: str = "") -> Text:
    """A text for a table, whatever a server has put into it."""
    shown = printable(str(text) if text not in (None, "") else "-", _CELL_LIMIT)
    return Text(shown, style=style, no_wrap=True, overflow="ellipsis")


def name_cell(name: object, style: str = "") -> Text:
    """A name for a table by which a row is known: on several lines rather than cut."""
    return Text(printable(str(name), _NAME_LIMIT), style=style, overflow="fold")


def plain_table(*titles: str) -> Table:
    """A table without lines, whose columns are as wide as they need to be."""
    table = Table(box=None, header_style="", pad_edge=False, padding=(0, _APART, 0, 0))
    for title in titles:
        table.add_column(cell(title, "dim"), no_wrap=True)
    return table


@frozen(kw_only=True)
class Listing:
    """Rows as a table; where a terminal is too narrow for one, each as a few lines.

    The name of a row is never cut, nor is anything that may not be.
    """

    rows: Sequence[Mapping[str, Text]]
    """Cells by title."""
    layouts: Sequence[Sequence[str]]
    """Titles of tables, from the one with the most; the first that fits is drawn."""
    names: Collection[str]
    """Titles of what a row is known by."""
    may_be_cut: Collection[str] = ()
    """Titles of what is still of use when cut."""
    right: Collection[str] = ()
    """Titles of what stands at the right."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for layout in self.layouts:
            widths = self._widths(layout, options.max_width)
            if widths:
                yield self._table(widths)
                return
        for row in self.rows:
            yield from self._lines(row, options.max_width)

    def _widths(self, layout: Sequence[str], room: int) -> dict[str, int]:
        """How wide each column is; nothing where there is not room enough."""
        natural = {t: max([len(t), *(row[t].cell_len for row in self.rows)]) for t in layout}
        widths = {title: min(natural[title], self._least(title, natural[title])) for title in layout}
        spare = room - sum(widths.values()) - _APART * (len(layout) - 1)
        if spare < 0:
            return {}
        # Names first: what may be cut may be cut.
        for wanted in (self.names, self.may_be_cut):
            while spare and (hungry := [t for t in layout if t in wanted and widths[t] < natural[t]]):
                for title in hungry[:spare]:
                    widths[title] += 1
                    spare -= 1
        return widths

    def _least(self, title: str, natural: int) -> int:
        if title in self.may_be_cut:
            return _LEAST
        # An id is a name too, but one to be copied: its cells are not folded.
        is_folded = title in self.names and not any(row[title].no_wrap for row in self.rows)
        return _LEAST_OF_A_NAME if is_folded else natural

    def _table(self, widths: Mapping[str, int]) -> Table:
        table = plain_table(*widths)
        for (title, width), column in zip(widths.items(), table.columns, strict=True):
            column.width = width
            column.no_wrap = title not in self.names
            column.justify = "right" if title in self.right else "left"
        for row in self.rows:
            table.add_row(*(row[title] for title in widths))
        return table

    def _lines(self, row: Mapping[str, Text], room: int) -> RenderResult:
        for title in self.layouts[0]:
            if title in self.names:
                yield Text(row[title].plain, style=row[title].style or "bold", overflow="fold")
        lines = [Text(overflow="fold")]
        for title in self.layouts[0]:
            if title not in self.names:
                item = Text.assemble((f"{title} ", "dim"), row[title], overflow="fold")
                if lines[-1] and lines[-1].cell_len + _APART + item.cell_len > room - _APART:
                    lines.append(Text(overflow="fold"))
                lines[-1].append(" " * _APART if lines[-1] else "").append_text(item)
        for line in lines:
            yield Padding(line, (0, 0, 0, _APART), expand=False)


def show_failures(errors: Sequence[ServerError], asked: int, out: Console) -> None:
    """Which servers gave no answer, why, and what to do."""
    if not errors:
        return
    out.print(Text(f"\n{len(errors)} of {counted(asked, 'server')} gave no answer\n", style="bold"))
    for error in sorted(errors, key=lambda one: one.server):
        often = "once" if error.attempts == 1 else f"{error.attempts} times"
        out.print(name_cell(error.server, "red"))
        said = f"{error.operation}: {error.what} (tried {often}, {error.elapsed:.1f} s)"
        for text in (said, error.hint):
            for line in textwrap.wrap(printable(in_our_words(text), 1000), min(out.width, _LONGEST_LINE) - 2):
                out.print(Text(f"  {line}"))


def counted(count: int, thing: str) -> str:
    """So many things, in words."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def status_of(failed: int, asked: int) -> int:
    """The exit status for so many servers that failed, of so many that were asked."""
    if failed == 0:
        return OK
    return NONE_REACHABLE if failed == asked else SOME_FAILED


async def collect(
    answers: AsyncGenerator[Answer[T]],
    asked: Collection[str],
    each: Callable[[Answer[T]], None] = lambda _: None,
    enough: Callable[[Answer[T]], bool] = lambda _: False,
) -> tuple[list[Answer[T]], bool]:
    """The answers as they come, up to one that is enough; and whether somebody interrupted it.

    On a terminal with progress, and the names of the last few that are waited for.
    """
    arrived: list[Answer[T]] = []
    interrupted = False
    out = console(stderr=True)
    missing = dict.fromkeys(asked)
    columns = (
        TextColumn("{task.completed:.0f} of {task.total:.0f} servers"),
        BarColumn(),
        TextColumn("{task.description}", style="dim", markup=False, table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("", total=len(asked))
        try:
            async with aclosing(answers):
                async for answer in answers:
                    arrived.append(answer)
                    missing.pop(answer.server, None)
                    each(answer)
                    progress.update(task, advance=1, description=_waiting_for(missing))
                    if enough(answer):
                        break
        except asyncio.CancelledError:
            # What had come is printed all the same, and the status says that it is not all.
            interrupted = True
    if interrupted:
        complain(f"interrupted; {counted(len(missing), 'server')} had given no answer yet")
    return arrived, interrupted


def _waiting_for(servers: Collection[str]) -> str:
    """The last few, by name: where many are under way, nobody wants to know which."""
    names = ", ".join(printable(name, _CELL_LIMIT) for name in servers)
    return f"waiting for {names}" if 0 < len(servers) <= _FEW else ""


def run(command: Coroutine[Any, Any, int]) -> int:
    """Run a command to its end or its interruption; the exit status.

    Raises: what the command does.
    """
    terminated = False

    async def work() -> int:
        task = asyncio.ensure_future(command)

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with suppress(NotImplementedError):  # Windows has no signals to speak of
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await task

    try:
        with asyncio.Runner(loop_factory=_fast_loop()) as runner:
            status = runner.run(work())
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = INTERRUPTED
    return TERMINATED if terminated and status == INTERRUPTED else status


def ended_by(error: Exception) -> int:
    """Say in a line or a few what ended a command; the exit status."""
    said, status = str(error), SOME_FAILED
    if isinstance(error, BrokenPipeError):
        # Whoever read it has read enough.
        said, status = "", BROKEN_PIPE
    elif isinstance(error, OSError) and not isinstance(error, VboError):
        # A file, or where the output goes; what goes wrong on the way to a server is an error of ours.
        what = error.filename or ("the output cannot be written" if error.errno in _FULL else "")
        said = f"{what}: {error.strerror}" if what else said
    _drop_what_cannot_be_written()
    with suppress(OSError):  # where that is what cannot be written
        complain(said)
    return status


def _drop_what_cannot_be_written() -> None:
    """Let the interpreter have nothing to write, and to complain of, at its own end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def ask(question: str) -> str:
    """What somebody types as an answer."""
    sys.stdout.write(question)
    sys.stdout.flush()
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(sys.stdin, typed.set)
    except NotImplementedError:  # on Windows
        return await asyncio.to_thread(sys.stdin.readline)
    # Not in a thread: nothing would end it, and Ctrl-C would wait for an answer.
    try:
        await typed.wait()
    except asyncio.CancelledError:
        sys.stdout.write("\n")
        raise
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline()


def complain(text: str) -> None:
    """Say in a line or a few why a command cannot be carried out."""
    out = console(stderr=True)
    for line in in_our_words(text).splitlines():
        # In a pipe a line stays one; a terminal would break it in the middle of a word.
        out.print(Text(f"aiovbo: {printable(line, 1000)}"), soft_wrap=not out.is_terminal)


def _fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  # an extra, used where it is there
    except ImportError:
        return None
    return uvloop.new_event_loop
