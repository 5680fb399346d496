"""The command `check`: the state of each server, step by step, and how long each step takes.

The steps lead from the name of a server to a list of its sessions. What follows a failed step is not tried.
"""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta

from attrs import define, field
from rich.text import Text

from aiovbo import (
    AuthenticationError,
    Bearer,
    Client,
    ClientEvent,
    Fleet,
    LoginFinished,
    ServerError,
    TlsError,
    fetch_certificate,
)
from aiovbo._cli._columns import RowTable, cell, name_cell
from aiovbo._cli._options import Selection
from aiovbo._cli._selection import fleet_of
from aiovbo._cli._statuses import INTERRUPTED, status_of
from aiovbo._cli._terminal import collect, console, run, show_failures
from aiovbo._core.threads import look_up
from aiovbo._transport.certificate import open_connection

_STEPS = ("name", "TCP", "TLS")
_DAY = timedelta(days=1)
_FAILED = "failed"
_NOTABLE_SKEW, _MUCH_SKEW = 2, 60


@define
class _Check:
    """The result of one server's steps."""

    server: str
    seconds: dict[str, float] = field(factory=dict[str, float])
    """The duration of each completed step."""
    said: dict[str, str] = field(factory=dict[str, str])
    """The outcome of each step."""
    pin: str = ""
    skew: float | None = None
    error: ServerError | None = None


def check(which: Selection) -> int:
    """The state of each server: name, TCP, TLS, version, login, clock, sessions of the last day."""
    logins: dict[str, float] = {}

    def observe(signal: ClientEvent) -> None:
        if isinstance(signal, LoginFinished):
            logins[signal.server] = signal.seconds

    fleet = fleet_of(which, observer=observe)
    return run(_check(fleet, logins))


async def _check(fleet: Fleet, logins: dict[str, float]) -> int:
    async def one(client: Client) -> _Check:
        return await _steps(client, logins)

    async with fleet:
        answers, interrupted = await collect(fleet.map(one).answers(), list(fleet))
    checks = [found for answer in answers for found in answer.items]
    _print(checks)
    # A check that the deadline ended has no steps to show, but has an error.
    found = ((answer.error, *(one.error for one in answer.items)) for answer in answers)
    errors = [error for several in found for error in several if error is not None]
    show_failures(errors, len(fleet), console(stderr=True))
    return INTERRUPTED if interrupted else status_of(len(errors), len(fleet))


async def _steps(client: Client, logins: dict[str, float]) -> _Check:
    found = _Check(client.name)
    try:
        with suppress(OSError, TimeoutError):
            # The request that fails for the same reason has the better message.
            await _timed(found, "name", _resolve(client))
            await _timed(found, "TCP", _connect(client))
            if client.server.url.scheme == "https":
                await _timed(found, "TLS", _shake_hands(client, found))
        found.said["version"] = await client.fetch_api_version()
        await _timed(found, "sessions", _count_sessions(client))
    except ServerError as error:
        found.error = error
        _blame(found, error)
    if client.name in logins:
        found.seconds["login"] = logins[client.name]
        if "sessions" in found.seconds:
            found.seconds["sessions"] -= logins[client.name]
    elif found.error is None and not isinstance(client.server.credentials, Bearer):
        found.said["login"] = "stored"
    found.skew = client.clock_skew
    return found


def _blame(found: _Check, error: ServerError) -> None:
    """Mark the step that failed: several steps are one request."""
    if isinstance(error, TlsError):
        found.said["TLS"] = _FAILED
    elif error.operation.lower().endswith("/token") or isinstance(error, AuthenticationError):
        found.said["login"] = _FAILED
        found.said.pop("sessions", None)
    elif _FAILED not in found.said.values():
        found.said["version"] = _FAILED


async def _timed(found: _Check, step: str, work: Awaitable[str]) -> None:
    began = time.perf_counter()
    try:
        found.said[step] = await work
    except BaseException:
        found.said[step] = _FAILED
        raise
    found.seconds[step] = time.perf_counter() - began


async def _resolve(client: Client) -> str:
    proxy = client.server.find_proxy()
    url = client.server.url if proxy is None else proxy.address
    await asyncio.wait_for(look_up(url.host or "", url.port or 0), client.longest_silence)
    return ""


async def _connect(client: Client) -> str:
    writer = await asyncio.wait_for(
        open_connection(client.server.url, proxy=client.server.find_proxy()), client.longest_silence
    )
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


async def _shake_hands(client: Client, found: _Check) -> str:
    """Read the certificate for its pin. The first request decides whether it is trusted."""
    shown = await fetch_certificate(client.server, timeout=client.longest_silence)
    found.pin = shown.pin.removeprefix("sha256:")
    return ""


async def _count_sessions(client: Client) -> str:
    return str(len(await client.restore_sessions(started_after=_DAY)))


def _print(checks: list[_Check]) -> None:
    titles = ("server", *_STEPS, "pin", "version", "login", "clock", "sessions")
    rows = [_cells(found) for found in checks]
    console().print(RowTable(rows=rows, layouts=[titles], names={"server"}, may_be_cut={"pin"}))


def _cells(found: _Check) -> dict[str, Text]:
    version = found.said.get("version")
    return {
        "server": name_cell(found.server, "red" if found.error else ""),
        **{step: _step(found, step) for step in (*_STEPS, "login", "sessions")},
        "pin": cell(f"{found.pin[:12]}…" if found.pin else None, "dim"),
        "version": cell(version, "red" if version == _FAILED else ""),
        "clock": _clock(found.skew),
    }


def _step(found: _Check, step: str) -> Text:
    if found.said.get(step) == _FAILED:
        return cell(_FAILED, "red")
    if step not in found.seconds:
        return cell(found.said.get(step) or "-", "dim")
    said = found.said.get(step, "")
    took = f"{found.seconds[step] * 1e3:.0f} ms"
    return cell(f"{said} ({took})" if said else took)


def _clock(skew: float | None) -> Text:
    if skew is None:
        return cell("-", "dim")
    # The server states its clock in whole seconds.
    return cell(
        "ok" if abs(skew) < _NOTABLE_SKEW else f"{skew:+.0f} s", "yellow" if abs(skew) > _MUCH_SKEW else ""
    )
