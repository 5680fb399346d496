r"""Every change of a fleet into a Redis stream, at least once; exactly once for consumers that use its id.

    pip install '.[testing]' redis
    python examples/to_redis.py --redis redis://127.0.0.1:6379 --place restores.db

Redis, because a stream, its consumer groups and a set of ids already seen are all that is needed, and it is
packaged everywhere. A change is acknowledged only after Redis has it: a crash in between sends it again, with
the same id, which is not added twice.
"""

import argparse
import asyncio
import json
import sys
from datetime import timedelta

from _servers import arguments, run_until_ended, servers_of
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from aiovbo import (
    Added,
    Batch,
    Change,
    Changed,
    Checkpoint,
    Finished,
    Fleet,
    Recovered,
    Removed,
    RowRejected,
    Unreachable,
)

STREAM = "vbo:changes"
SEEN_FOR = timedelta(days=7)
PAUSE = 2.0
"""Seconds between two attempts while Redis cannot be reached."""

# Adds a change unless its id was added before; both in one step, so that no crash comes between.
ADD_ONCE = """
if redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[1]) then
    local said = {'id', ARGV[3], 'kind', ARGV[4], 'server', ARGV[5], 'body', ARGV[6]}
    return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', unpack(said))
end
return false
"""


def body_of(change: Change) -> str:
    """What there is to say of a change, as JSON under the API's own names."""
    match change:
        case Added(session=session) | Changed(session=session) | Finished(session=session):
            return json.dumps(session.to_dict())
        case Removed(session_id=session_id, reset=reset):
            return json.dumps({"id": str(session_id), "reset": reset})
        case RowRejected(row=row):
            return json.dumps({"reason": row.reason, "raw": row.raw})
        case Unreachable(error=error):
            return json.dumps({"error": str(error)})
        case Recovered(gap=gap):
            return json.dumps({"gap": gap.total_seconds()})
        case _:
            return "{}"


async def pass_on(redis: Redis, batch: Batch, longest: int) -> None:
    """All of a batch in one round trip, as soon as Redis can be reached."""
    add_once = redis.register_script(ADD_ONCE)
    limits = [int(SEEN_FOR.total_seconds()), longest]
    while True:
        try:
            async with redis.pipeline(transaction=False) as pipeline:
                for change in batch:
                    fields = [change.id, type(change).__name__, change.server, body_of(change)]
                    keys = [STREAM, f"vbo:seen:{change.id}"]
                    await add_once(keys=keys, args=[*limits, *fields], client=pipeline)
                await pipeline.execute()
        except RedisConnectionError as error:
            # It may not have been started yet, or be starting again.
            print(f"Redis cannot be reached, trying again: {error}", file=sys.stderr)
            await asyncio.sleep(PAUSE)
        else:
            return


async def main(options: argparse.Namespace) -> None:
    """Watch, and pass on."""
    redis = Redis.from_url(options.redis)  # pyright: ignore[reportUnknownMemberType]  # its options are untyped
    passed_on = 0
    try:
        async with (
            servers_of(options) as servers,
            Fleet(servers) as fleet,
            fleet.watch(
                every=timedelta(seconds=options.every),
                checkpoint=Checkpoint(options.place),
                since=timedelta(days=1),
                ack="manual",
            ) as changes,
        ):
            async for batch in changes.batches(min(100, options.count or 100), within=timedelta(seconds=1)):
                await pass_on(redis, batch, options.longest)
                batch.ack()
                passed_on += len(batch)
                if options.count and passed_on >= options.count:
                    break
    finally:
        await redis.aclose()
    print(f"{passed_on} changes passed on")


if __name__ == "__main__":
    parser = arguments("Every change of a fleet into a Redis stream.")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379", help="where Redis is")
    parser.add_argument("--longest", type=int, default=1_000_000, help="entries that the stream keeps, about")
    parser.add_argument("--place", default="restores.db", help="where the place is kept")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks")
    parser.add_argument("--count", type=int, help="end after so many changes")
    run_until_ended(main(parser.parse_args()))
