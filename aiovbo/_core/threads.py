"""Blocking calls in a bounded number of threads: name look-ups and file access share one limit.

Must not depend on servers, requests or an HTTP library.
"""

import asyncio
import errno
import ipaddress
import mmap
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from attrs import define, field

T = TypeVar("T")

LIMIT = 128
"""Maximum number of threads. One group of calls gets half of them at most."""

RESERVED = 16
"""Threads that look-ups leave free, unless the name was resolved quickly the last time."""

LINGER = 0.01
"""Seconds that an idle thread waits for a call: a burst reuses threads, and none stays behind."""

HUNG_AFTER = 1.0
"""Seconds from which on a look-up counts as hung."""

SHARED_FOR = 30.0
"""Seconds for which later callers join a look-up of the same name that is running."""

REFUSED_FOR = 10.0
"""Seconds without growth after the operating system refused a thread."""

SPARED_MEMORY = 32 * 2**20
"""Bytes of address space, where that is limited, that threads leave to the rest of the process."""

_REMEMBERED = 10_000
"""Names whose last look-up is remembered."""

_NOT_BEGUN = float("inf")

# Windows has no such flags, and needs none.
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class NoThreadError(OSError):
    """The operating system does not let this process start another thread."""


class Group(NamedTuple):
    """Calls that may hang together; they never take the threads that other groups need."""

    kind: Literal["files", "quick", "new", "hung"]
    """File access, or how the last look-up of the name went."""
    zone: str = ""
    """The names' domain: one name server may be responsible for all of it."""


FILES = Group("files")


class _Name(NamedTuple):
    host: str
    port: int
    family: int


@define(eq=False)
class _Call(Generic[T]):
    """A blocking call, and who waits for it."""

    work: Callable[[], T]
    group: Group
    name: _Name | None = None
    """What it looks up; None for file access."""
    waiters: list["asyncio.Future[T]"] = field(factory=list[Any])
    began: float = _NOT_BEGUN
    """When it got its thread, by the monotonic clock."""


def _held_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@define(eq=False)
class _Seat:
    """An idle thread that waits for a call."""

    signal: threading.Lock = field(factory=_held_lock)
    call: _Call[Any] | None = None


class Threads:
    """A limited number of daemon threads, shared fairly between groups of calls.

    A group may hold as many threads as it leaves free. So calls that hang, however many, never hold the
    threads that other groups need. No thread delays the exit of the interpreter.
    """

    def __init__(self, limit: int = LIMIT, reserved: int = RESERVED) -> None:
        self._limit = limit
        self._reserved = reserved
        # Held for bookkeeping only, never during a call.
        self._lock = threading.Lock()
        self._alive = 0
        self._total = 0
        self._running: Counter[Group] = Counter()
        # Ordered sets: a call whose callers have left is removed without a search.
        self._queued: dict[Group, dict[_Call[Any], None]] = {}
        self._idle: list[_Seat] = []
        self._refused_at = float("-inf")
        self._ceiling = limit
        self._look_ups: dict[_Name, _Call[list[Any]]] = {}
        self._last: dict[str, Literal["quick", "hung"]] = {}

    async def run(self, work: Callable[[], T], *, may_wait: bool = True) -> T:
        """What `work`, which accesses files, returns.

        Where no thread can be started, the call waits for one that is running already, if it `may_wait`.

        Raises: what `work` raises; NoThreadError where there is no thread for it.
        """
        call = _Call(work, FILES)
        with self._lock:
            waiter = _join(call)
            self._submit(call, may_wait=may_wait)
        return await self._result(call, waiter)

    async def look_up(self, host: str, port: int, family: int = socket.AF_UNSPEC) -> list[Any]:
        """What getaddrinfo returns for TCP; callers that look up the same name share one call.

        Raises: OSError, of which NoThreadError is one; UnicodeError where no host can have this name.
        """
        name = _Name(host, port, family)
        with self._lock:
            call = self._look_ups.get(name)
            # One that hangs for so long may never return, but the name server may respond again.
            is_stuck = call is not None and time.monotonic() - call.began > SHARED_FOR
            if call is None or is_stuck:
                work = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, family=family)
                call = _Call(work, self._group_of(host, is_stuck=is_stuck), name)
                waiter = _join(call)
                self._submit(call, may_wait=True)
                self._look_ups[name] = call
            else:
                waiter = _join(call)
        return await self._result(call, waiter)

    def _group_of(self, host: str, *, is_stuck: bool) -> Group:
        last = self._last.get(host)
        if is_stuck or last == "hung":
            # Whatever their domains: many domains may hang at once.
            return Group("hung")
        return Group(last or "new", host.partition(".")[2].lower())

    async def _result(self, call: _Call[T], waiter: "asyncio.Future[T]") -> T:
        try:
            return await waiter
        finally:
            with self._lock:
                if waiter in call.waiters:
                    call.waiters.remove(waiter)
                    if not call.waiters:
                        self._withdraw(call)

    # ------------------------------------------------------------------- with the lock held

    def _submit(self, call: _Call[Any], *, may_wait: bool) -> None:
        self._queued.setdefault(call.group, {})[call] = None
        self._dispatch()
        if call.began == _NOT_BEGUN and self._is_refused and not (may_wait and self._alive):
            self._withdraw(call)
            raise NoThreadError(errno.EAGAIN, "this process cannot start another thread")

    def _withdraw(self, call: _Call[Any]) -> None:
        """Do not begin a call that is still queued."""
        queue = self._queued.get(call.group, {})
        if call in queue:
            del queue[call]
            self._forget(call)
        if not queue:
            self._queued.pop(call.group, None)

    def _forget(self, call: _Call[Any]) -> None:
        if call.name is not None and self._look_ups.get(call.name) is call:
            del self._look_ups[call.name]

    def _next(self) -> _Call[Any] | None:
        """The next call that may run, counted as running."""
        limit, most_reserved = self._limit, self._reserved
        if self._is_refused:
            limit = self._ceiling
            most_reserved = limit // 8
        free = limit - self._total
        for group in self._queued:
            reserved = most_reserved if group.kind in ("new", "hung") else 0
            if self._running[group] < free - reserved:
                break
        else:
            return None
        # Next time, the other groups come first.
        queue = self._queued.pop(group)
        call = next(iter(queue))
        del queue[call]
        if queue:
            self._queued[group] = queue
        self._running[group] += 1
        self._total += 1
        call.began = time.monotonic()
        return call

    def _leave(self, call: _Call[Any]) -> None:
        """Count a call as running no longer."""
        self._total -= 1
        self._running[call.group] -= 1
        if not self._running[call.group]:
            del self._running[call.group]

    def _end(self, call: _Call[Any]) -> list["asyncio.Future[Any]"]:
        self._leave(call)
        self._forget(call)
        if call.name is not None:
            self._last.pop(call.name.host, None)
            took = time.monotonic() - call.began
            self._last[call.name.host] = "hung" if took > HUNG_AFTER else "quick"
            if len(self._last) > _REMEMBERED:
                del self._last[next(iter(self._last))]
        waiters, call.waiters = call.waiters, []
        return waiters

    def _dispatch(self) -> None:
        """Give a thread to every call that may run, as far as the operating system has threads."""
        while (call := self._next()) is not None:
            if self._idle:
                seat = self._idle.pop()
                seat.call = call
                seat.signal.release()
            elif not self._start(call):
                self._leave(call)
                call.began = _NOT_BEGUN
                queue = self._queued.pop(call.group, {})
                self._queued = {call.group: {call: None, **queue}, **self._queued}
                return

    def _start(self, call: _Call[Any]) -> bool:
        try:
            # A thread takes much address space for its stack: what then fails is anything, anywhere.
            mmap.mmap(-1, SPARED_MEMORY, **_PRIVATE).close()
            # A daemon: a look-up that hangs must not delay the exit.
            thread = threading.Thread(
                target=self._serve, args=(call, _Seat()), name="aiovbo blocking call", daemon=True
            )
            thread.start()
        except (RuntimeError, MemoryError, OSError):
            self._refused_at = time.monotonic()
            # Fewer than there are: the rest of the process needs threads, or their memory, too.
            self._ceiling = max(1, self._alive * 3 // 4)
            return False
        self._alive += 1
        return True

    @property
    def _is_refused(self) -> bool:
        return time.monotonic() - self._refused_at < REFUSED_FOR

    # ------------------------------------------------------------------------ in the threads

    def _serve(self, call: _Call[Any] | None, seat: _Seat) -> None:
        while call is not None:
            result, error = _outcome(call.work)
            with self._lock:
                waiters = self._end(call)
                call = self._next()
                if call is None:
                    self._idle.append(seat)
                self._dispatch()
            _deliver(waiters, result, error)
            # An idle thread must keep neither a result, which may be a secret, nor its callers.
            del waiters, result, error
            if call is None:
                call = self._wait(seat)

    def _wait(self, seat: _Seat) -> _Call[Any] | None:
        """The next call; None where none comes, and the thread ends."""
        if not seat.signal.acquire(timeout=LINGER):
            with self._lock:
                if seat in self._idle:
                    self._idle.remove(seat)
                    self._alive -= 1
                    return None
            # It was given a call in the meantime.
            seat.signal.acquire()
        call, seat.call = seat.call, None
        return call


def _join(call: _Call[T]) -> "asyncio.Future[T]":
    waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    call.waiters.append(waiter)
    return waiter


def _outcome(work: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return work(), None
    except BaseException as error:  # the callers handle it
        return None, error


def _deliver(waiters: list["asyncio.Future[Any]"], result: object, error: BaseException | None) -> None:
    for future in waiters:
        # A loop that is closed has no callers left.
        with suppress(RuntimeError):
            future.get_loop().call_soon_threadsafe(_settle, future, result, error)


def _settle(future: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Shared:
    """The threads of this process; a child that is forked has none of them."""

    def __init__(self) -> None:
        self.threads = Threads()

    def start_over(self) -> None:
        self.threads = Threads()


_shared = _Shared()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_shared.start_over)


async def in_thread(work: Callable[[], T]) -> T:
    """What the blocking `work` returns, run in one of a bounded number of threads.

    Raises: what `work` raises; NoThreadError where the operating system has no thread for it.
    """
    return await _shared.threads.run(work)


async def in_thread_if_possible(work: Callable[[], T]) -> T:
    """The same for short work: run here where no thread can be started, which is better than not at all."""
    try:
        return await _shared.threads.run(work, may_wait=False)
    except NoThreadError:
        return work()


class Address(NamedTuple):
    """Where a name leads."""

    family: int
    protocol: int
    host: str
    port: int


async def look_up(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[Address]:
    """The addresses of a host; an IP address needs no thread.

    Raises: OSError, NoThreadError among them, where there are none; MemoryError.
    """
    with suppress(ValueError):
        literal = ipaddress.ip_address(host)
        kind = socket.AF_INET if isinstance(literal, ipaddress.IPv4Address) else socket.AF_INET6
        return [Address(kind, socket.IPPROTO_TCP, host, port)]
    try:
        found = await _shared.threads.look_up(host, port, family)
    except (OSError, MemoryError):
        raise
    except Exception:  # UnicodeError where the name is too long, and whatever else
        found = []
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no host can have this name")
    return [Address(kind, protocol, str(at[0]), int(at[1])) for kind, _, protocol, _, at in found]
