"""What the tests are made with: servers that misbehave, checks that nothing is left or given away.

Must not know the SDK: it can only be seen from the outside here.
"""

from harness.bystander import Bystander
from harness.canary import Canary
from harness.cancel import cancel_at_every_await
from harness.clock import VirtualClock
from harness.leaks import Snapshot, assert_nothing_left, assert_nothing_open, snapshot
from harness.ports import black_hole, closed_port
from harness.proxy import (
    Bandwidth,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)
from harness.raw import (
    ANY,
    Connection,
    RawServer,
    Request,
    Routes,
    Script,
    Step,
    fin,
    half_close,
    http,
    in_turn,
    json_answer,
    repeat,
    request,
    rst,
    run,
    send,
    sleep,
    stall,
    token_answer,
    vbo_routes,
    wait,
)

__all__ = [
    "ANY",
    "Bandwidth",
    "Bystander",
    "Canary",
    "Connection",
    "FaultProxy",
    "Latency",
    "LimitData",
    "RawServer",
    "Request",
    "ResetPeer",
    "Routes",
    "Script",
    "Slicer",
    "SlowClose",
    "Snapshot",
    "Step",
    "Timeout",
    "Toxic",
    "VirtualClock",
    "assert_nothing_left",
    "assert_nothing_open",
    "black_hole",
    "cancel_at_every_await",
    "closed_port",
    "fin",
    "half_close",
    "http",
    "in_turn",
    "json_answer",
    "repeat",
    "request",
    "rst",
    "run",
    "send",
    "sleep",
    "snapshot",
    "stall",
    "token_answer",
    "vbo_routes",
    "wait",
]
