"""What the tests are made with: servers that misbehave, and checks that nothing was left behind or given away.

Must not know the SDK: it can only be seen from the outside here.
"""

from harness.clock import VirtualClock
from harness.leaks import Snapshot, assert_nothing_left, assert_nothing_open, snapshot
from harness.raw import (
    ANY,
    Connection,
    RawServer,
    Request,
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
    "Connection",
    "RawServer",
    "Request",
    "Script",
    "Snapshot",
    "Step",
    "VirtualClock",
    "assert_nothing_left",
    "assert_nothing_open",
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
