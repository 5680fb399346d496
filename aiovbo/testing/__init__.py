"""A backup server to test against: the real API over real sockets, with a world of its own.

    async with BackupServer() as server:                 # TLS on loopback, API v6 to v8
        server.url, server.ca_file                       # where it is, and what to trust
        server.username, server.password                 # who may log on
        server.world.add(type="Vex", result="Failed")    # say what it has to tell
        server.world.advance(timedelta(hours=1))         # let time pass: sessions begin and end
        server.fail(Fault.status(503), on="RestoreSessions", times=2)
        server.requests                                  # what it was asked

`BackupFleet(20)` is twenty of them with one CA file and one login. Both also run in a thread, with
`run_in_thread()`, for code that is not async. Under pytest the fixtures `vbo_server` and
`vbo_fleet` are there by themselves; on the command line it is `python -m aiovbo.testing`.

It knows nothing of the SDK: any client can be tested with it. TLS needs the extra:
`pip install "aiovbo[testing]"`.
"""

from aiovbo.testing._answers import ApiVersion
from aiovbo.testing._authority import Authority
from aiovbo.testing._faults import Exchange, Fault
from aiovbo.testing._fleet import BackupFleet
from aiovbo.testing._requests import ReceivedRequest
from aiovbo.testing._server import BackupServer
from aiovbo.testing._world import SessionFields, World, WorldSession

__all__ = [
    "ApiVersion",
    "Authority",
    "BackupFleet",
    "BackupServer",
    "Exchange",
    "Fault",
    "ReceivedRequest",
    "SessionFields",
    "World",
    "WorldSession",
]
