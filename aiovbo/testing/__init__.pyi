# The door as type checkers and editors see it; a test compares it with `__init__.py`.

from aiovbo.testing._answers import ApiVersion
from aiovbo.testing._authority import Authority
from aiovbo.testing._clock import SimClock
from aiovbo.testing._faults import Exchange, Fault
from aiovbo.testing._fleet import BackupFleet
from aiovbo.testing._memory import MemoryTransport
from aiovbo.testing._oracle import WatchOracle, WatchReport
from aiovbo.testing._quirks import QUIRK_NAMES, Quirks
from aiovbo.testing._requests import ReceivedRequest
from aiovbo.testing._server import BackupServer
from aiovbo.testing._thread import Starter
from aiovbo.testing._world import SessionFields, World, WorldSession

__all__ = [
    "QUIRK_NAMES",
    "ApiVersion",
    "Authority",
    "BackupFleet",
    "BackupServer",
    "Exchange",
    "Fault",
    "MemoryTransport",
    "Quirks",
    "ReceivedRequest",
    "SessionFields",
    "SimClock",
    "Starter",
    "WatchOracle",
    "WatchReport",
    "World",
    "WorldSession",
]
