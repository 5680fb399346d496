"""Cancelling an operation at every point where it can be cancelled, and at every turn of the loop.

Knows how coroutines are driven. What cancelling at every await cannot see: the points inside tasks that the
operation starts (to the operation they are the one point where it waits for them), and a cancellation that
arrives some turns of the loop after the suspension. Those are what cancelling after every turn is for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from types import CoroutineType
from typing import Any

Operation = Callable[[], Coroutine[Any, Any, object]]


async def _nothing() -> None:
    """The check of a test that wants none."""


async def cancel_at_every_await(
    operation: Operation,
    check: Callable[[], Awaitable[object]] = _nothing,
    *,
    limit: int = 500,
    within: float = 0.25,
) -> int:
    """Run `operation` to its end, then again and again, cancelled at its 1st, 2nd, … suspension.

    Fails where no `CancelledError` comes out within `within` seconds, or something else does. After every
    run, also the first, `check` is awaited. Returns at how many points it was cancelled; more than `limit`
    are a failure.
    """
    whole = _Stepped(operation())
    await whole
    await check()
    point = 0
    while True:
        point += 1
        run = _Stepped(operation(), cancel_at=point)
        await _run_cancelled(run, within)
        await check()
        # Over a network no two runs are alike: one may end before the point, and a later one reach it.
        if not run.reached.done() and point > whole.steps:
            return point - 1
        assert point <= limit, f"there are more than {limit} points to cancel at"


async def cancel_after_every_turn(
    operation: Operation,
    check: Callable[[], Awaitable[object]] = _nothing,
    *,
    again_after: int | None = None,
    limit: int = 2000,
    within: float = 2.0,
) -> int:
    """Run `operation` again and again, cancelled after 0, 1, 2, … turns of the loop, wherever it is by then.

    With `again_after` it is cancelled once more so many turns later. Fails where no `CancelledError` comes
    out within `within` seconds, or something else does. After every run `check` is awaited. Returns after how
    many turns it had ended by itself; more than `limit` are a failure.
    """
    for turns in range(limit):
        task = asyncio.create_task(operation(), name=f"cancelled after {turns} turns")
        await _turn(turns, task)
        if task.done():
            await task
            await check()
            return turns
        task.cancel()
        if again_after is not None:
            await _turn(again_after, task)
            task.cancel()
        await asyncio.wait([task], timeout=within)
        assert task.done(), f"{task.get_name()} and still running {within} s later"
        error = None if task.cancelled() else task.exception()
        assert error is None, f"{task.get_name()} and failed instead: {error!r}"
        assert task.cancelled(), f"{task.get_name()} and swallowed it"
        await check()
    message = f"it has not ended after {limit} turns"
    raise AssertionError(message)


async def _turn(turns: int, task: "asyncio.Task[Any]") -> None:
    """Let the loop turn so often, or until the task is done."""
    for _ in range(turns):
        if task.done():
            return
        await asyncio.sleep(0)


async def _run_cancelled(run: "_Stepped", within: float) -> None:
    task = asyncio.create_task(run.drive(), name="cancelled at every await")
    try:
        first: set[asyncio.Future[Any]] = {task, run.reached}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([task], timeout=within)
        assert task.done(), f"{run.where} and still running {within} s later"
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            message = f"{run.where} and failed instead: {error!r}"
            raise AssertionError(message) from error
        assert not run.reached.done(), f"{run.where} and swallowed it"
    finally:
        task.cancel()


class _Stepped:
    """A coroutine whose suspensions are counted, and whose task is cancelled at one of them."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], cancel_at: int = 0) -> None:
        self.steps = 0
        self.where = "not cancelled"
        self.reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coroutine = coroutine
        self._cancel_at = cancel_at

    async def drive(self) -> object:
        return await self

    def __await__(self) -> Generator[Any, Any, object]:
        inner = self._coroutine.__await__()
        resume: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                waiting = resume()
            except StopIteration as end:
                return end.value
            self.steps += 1
            if self.steps == self._cancel_at:
                self._cancel()
            try:
                sent = yield waiting
            except BaseException as error:  # it is the coroutine's to handle
                resume = partial(inner.throw, error)
            else:
                resume = partial(inner.send, sent)

    def _cancel(self) -> None:
        self.where = f"cancelled at point {self.steps}, {_place(self._coroutine)}"
        self.reached.set_result(None)
        task = asyncio.current_task()
        assert task is not None
        # asyncio notes it, and cancels what the task is about to wait for.
        task.cancel()


def _place(coroutine: object) -> str:
    """The lines where a suspended coroutine waits, from the outermost to the innermost."""
    lines = []
    while isinstance(coroutine, CoroutineType) and (frame := coroutine.cr_frame) is not None:
        file = Path(frame.f_code.co_filename).name
        lines.append(f"{file}:{frame.f_lineno} {coroutine.__qualname__}")
        coroutine = coroutine.cr_await
    return " > ".join(lines)
