"""Acknowledging changes in a transaction of the consumer: saved if, and only if, it is committed.

Depends on the changes on their way and on the store; does not know how the store writes.
"""

from collections.abc import Callable, Collection, Sequence

from aiovbo._watch.changes import Change
from aiovbo._watch.delivery import Delivery
from aiovbo._watch.leases import LeaseStore
from aiovbo.errors import CheckpointError, LeaseLostError


class Transactions:
    """The transactions of one watch in which changes were acknowledged.

    - `lose`: stops servers of which the lease was lost.
    """

    def __init__(
        self, store: LeaseStore, delivery: Delivery, lose: Callable[[Collection[str]], None]
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._lose = lose
        self._open: set[str] = set()

    async def acknowledge(self, changes: Sequence[Change], connection: object) -> None:
        """Write in the caller's transaction that changes are processed.

        Where this raises, the changes of servers that are still watched here are delivered again.

        Raises: LeaseLostError where another process watches one of the servers; CheckpointError where an
        earlier change of the same session is not acknowledged; what the connection raises.
        """
        try:
            transaction = await self._write(changes, connection)
        except BaseException as error:
            if isinstance(error, CheckpointError):
                await self._store.abort(connection)
            if isinstance(error, LeaseLostError):
                self._lose(error.servers)
            # What another transaction has written is delivered again only if that is rolled back.
            self._delivery.redeliver(changes)
            raise
        self._delivery.write(changes, transaction)

    async def _write(self, changes: Sequence[Change], connection: object) -> str:
        delivery = self._delivery
        if lost := delivery.discarded(changes):
            raise lease_lost(lost)
        if delivery.is_blocked(changes) or delivery.is_written(changes):
            await self.settle()
        if delivery.is_committed(changes) or delivery.is_written(changes):
            message = (
                "these changes were written in another transaction, which was committed or is still "
                "open: roll back, and continue with the next batch"
            )
            raise CheckpointError(message)
        transaction = await self._store.save_within(connection, delivery.steps(changes))
        self._open.add(transaction)
        if delivery.is_blocked(changes, transaction):
            message = (
                "an earlier change of the same session is not acknowledged: process batches in their "
                "order, and acknowledge each before the next one"
            )
            raise CheckpointError(message)
        return transaction

    async def settle(self) -> None:
        """Take over what became of the transactions: what was rolled back is delivered again."""
        if not self._open:
            return
        for transaction, is_committed in (await self._store.outcomes(list(self._open))).items():
            self._open.discard(transaction)
            self._delivery.settle(transaction, is_committed=is_committed)


def lease_lost(servers: Collection[str]) -> LeaseLostError:
    """The error of servers that this process watches no more."""
    names = sorted(servers)
    return LeaseLostError(
        f"another process watches {', '.join(names)} now: roll back, and continue with the next batch; "
        "that process delivers the changes",
        servers=names,
    )
