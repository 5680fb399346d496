"""A command that is run for each change: `aiovbo watch --exec`.

Runs the command, retries it, and kills it at the end. What a change looks like as JSON is in `_watch`.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import IO

from aiovbo import Change
from aiovbo._cli._options import CommandOptions
from aiovbo._cli._terminal import complain, counted

_MOST_PENDING = 100
"""Maximum number of changes whose command has not succeeded yet; no more changes are taken meanwhile."""
_DEFAULT_TIMEOUT = timedelta(minutes=1)
_FIRST_DELAY = timedelta(seconds=1)
_LONGEST_DELAY = timedelta(minutes=5)


class CommandRunner:
    """Runs a shell command with each change on its standard input, until it ends with 0.

    One command runs at a time. A change whose command failed waits for its next attempt, and holds up only
    later changes of the same session.
    """

    def __init__(
        self,
        command: str,
        options: CommandOptions,
        acknowledge: Callable[[Change], None],
        *,
        first_delay: timedelta = _FIRST_DELAY,
    ) -> None:
        self._command = command
        self._timeout = (options.timeout or _DEFAULT_TIMEOUT).total_seconds()
        self._attempts = options.give_up
        self._acknowledge = acknowledge
        self._first_delay = first_delay.total_seconds()
        self._one_at_a_time = asyncio.Lock()
        self._room = asyncio.Semaphore(_MOST_PENDING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[str, asyncio.Task[None]] = {}
        self._consumer = asyncio.current_task()
        self._bug: BaseException | None = None
        self.given_up = 0
        """Changes whose command failed as often as `--give-up` allows."""

    async def add(self, change: Change, session: str, document: str) -> None:
        """Run the command with a document for a change; waits while too many changes are pending.

        - `session`: what the change is of; changes of one session are processed in order.
        """
        await self._room.acquire()
        task = asyncio.create_task(self._process(change, document, self._last.get(session)))
        self._last[session] = task
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._room.release()
            self._tasks.discard(task)
            if self._last.get(session) is task:
                del self._last[session]
            if not task.cancelled() and (error := task.exception()) is not None:
                # A bug. The change would never be acknowledged: the consumer ends, and `aclose` raises it.
                self._bug = error
                if self._consumer is not None:
                    self._consumer.cancel()

        task.add_done_callback(ended)

    async def finish(self) -> None:
        """Wait until the commands of all changes have succeeded, or were given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Kill the command that runs, and wait until it has ended; nothing more is run.

        Raises: what a bug in processing a change raised.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.given_up:
            complain(f"{counted(self.given_up, 'change')} given up in all")
        if self._bug is not None:
            raise self._bug

    async def _process(self, change: Change, document: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        attempt, delay = 0, self._first_delay
        while True:
            attempt += 1
            async with self._one_at_a_time:
                failure = await self._run(document)
            if failure is None:
                break
            said = f"{change.server}: the command {failure} for change {change.id} (attempt {attempt})"
            if attempt == self._attempts:
                self.given_up += 1
                complain(f"{said}; given up, {counted(self.given_up, 'change')} so far")
                break
            complain(f"{said}; next attempt in {delay:g} s")
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY.total_seconds())
        self._acknowledge(change)

    async def _run(self, document: str) -> str | None:
        """Run the command once: None where it ended with 0, or else how it failed."""
        # A file and no pipe, which would be an error where a command ends without reading its input.
        with await asyncio.to_thread(_file_with, document) as file:
            return await self._run_with(file)

    async def _run_with(self, file: IO[bytes]) -> str | None:
        # In a session of its own, so that what it starts is killed with it, and Ctrl-C does not reach it.
        # Its output goes to standard error: standard output holds the changes.
        starting = asyncio.create_task(
            asyncio.create_subprocess_shell(self._command, stdin=file, stdout=2, start_new_session=True)
        )
        try:
            async with asyncio.timeout(self._timeout):
                process = await asyncio.shield(starting)
                await process.wait()
        except TimeoutError:
            return f"took longer than {self._timeout:g} s"
        except OSError as error:
            return f"could not be started ({error.strerror})"
        finally:
            # Reaped also where this task is cancelled a second time.
            await asyncio.shield(_end(starting))
        if process.returncode == 0:
            return None
        return f"ended with {process.returncode}"


def _file_with(text: str) -> IO[bytes]:
    """A temporary file that can be read from its beginning."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    file.write(text.encode())
    file.seek(0)
    return file


async def _end(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    """Kill what still runs of a command; one that is starting has child processes before it has started."""
    try:
        process = await starting
    except OSError:
        return
    if process.returncode is None:
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:  # Windows has no process groups of this kind
                process.kill()
        await process.wait()
