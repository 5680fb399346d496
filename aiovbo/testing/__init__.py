"""A backup server to test against: the real API over real sockets, with a world of its own.

    async with BackupServer() as server:                 # TLS on loopback, API v5 to v8
        server.url, server.ca_file                       # where it is, and what to trust
        server.username, server.password                 # who may log in
        server.world.add(type="Vex", result="Failed")    # say what it has to report
        server.world.advance(timedelta(hours=1))         # let time pass: sessions begin and end
        server.fail(Fault.status(503), on="RestoreSessions", times=2)
        server.requests                                  # what was requested
        server.expect("GET RestoreSessions", times=0)    # AssertionError for another number

`BackupFleet(20)` is twenty of them with one CA file and one login. Both also run in a thread, with
`run_in_thread()`, for code that is not async. Under pytest the fixtures `vbo_server`, `vbo_fleet` and
`vbo_start` are there by themselves; on the command line it is `python -m aiovbo.testing`.

It knows nothing of the SDK: any client can be tested with it. TLS needs the extra `testing`.

Names are imported when they are first requested: pytest loads the plugin in here in every run of
every project that has us installed. Type checkers and editors read `__init__.pyi`.
"""

from importlib import import_module

_HOMES = {
    "QUIRK_NAMES": "_quirks",
    "ApiVersion": "_answers",
    "Authority": "_authority",
    "BackupFleet": "_fleet",
    "BackupServer": "_server",
    "Exchange": "_faults",
    "Fault": "_faults",
    "MemoryTransport": "_memory",
    "Quirks": "_quirks",
    "ReceivedRequest": "_requests",
    "SessionFields": "_world",
    "SimClock": "_clock",
    "Starter": "_thread",
    "WatchOracle": "_oracle",
    "WatchReport": "_oracle",
    "World": "_world",
    "WorldSession": "_world",
}

__all__ = [*_HOMES]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]  # the stub has them one by one


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        message = f"module 'aiovbo.testing' has no attribute {name!r}"
        raise AttributeError(message)
    value = globals()[name] = getattr(import_module(f"aiovbo.testing.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
