"""After an outage: charges the store, in the background, for what local buckets admitted.

The first answer of the store starts it. Each charge is one call and is made once: if a call fails, it is not
known whether the store has charged it, and it is not repeated. The other charges wait for the next answer.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Final

from ratelimit.engine.settle_script import read_settlement
from ratelimit.stores.breaker import PausedCalls
from ratelimit.stores.failures import CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.engine.settle_script import SettleCall
    from ratelimit.engine.simulation import BucketId
    from ratelimit.stores.outage import Outage

    _Replies = Sequence[Sequence[bytes | str]]

_CALLS_AT_ONCE: Final = 32
"""Charges under way at the same time, for asyncio: few, because checks wait behind them."""


class Charger:
    """Charges the store from a thread; `AsyncCharger` is the same for asyncio.

    Args:
        encode: returns the call that charges the costs of a check.
        run: makes the call and returns the replies.
        ask: returns whether the store answers, even while calls are paused.
    """

    def __init__(
        self,
        encode: Callable[[ResolvedCheck], SettleCall],
        run: Callable[[SettleCall], _Replies],
        ask: Callable[[], bool],
    ) -> None:
        self._run = run
        self._ask = ask
        self._encode = encode
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def start(self, outage: Outage) -> None:
        """Start to charge the store. After `close` this does nothing."""
        with self._lock:
            if not self._is_closed:
                self._thread = threading.Thread(target=self._charge, args=(outage,), daemon=True)
                self._thread.start()

    def close(self, outage: Outage) -> None:
        """Charge what is left, if the store answers. In a child process nothing is: it is the parent's."""
        with self._lock:
            self._is_closed = True
        if os.getpid() != self._process:
            return
        if self._thread is not None:
            self._thread.join()
        if outage.has_buckets and self._ask():
            self._charge(outage)

    def _charge(self, outage: Outage) -> None:
        with outage.charging() as bucket_ids:
            for bucket_id in bucket_ids:
                if not self._charge_bucket(outage, bucket_id):
                    break

    def _charge_bucket(self, outage: Outage, bucket_id: BucketId) -> bool:
        """Charge the store for one bucket; return whether to go on with others."""
        if (charge := outage.make_charge(bucket_id)) is None:
            return True
        call = self._encode(charge.check)
        try:
            replies = self._run(call)
        except CONNECTION_ERRORS as error:
            outage.note_failed_charge(charge, error)
            return isinstance(error, PausedCalls)  # Of a cluster, other servers may answer.
        outage.note_charge(charge, read_settlement(call, replies).limits)
        return True


class AsyncCharger:
    """Charges the store from a task; see `Charger`."""

    def __init__(
        self,
        encode: Callable[[ResolvedCheck], SettleCall],
        run: Callable[[SettleCall], Awaitable[_Replies]],
        ask: Callable[[], Awaitable[bool]],
    ) -> None:
        self._run = run
        self._ask = ask
        self._encode = encode
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self, outage: Outage) -> None:
        """Start to charge the store. After `close` this does nothing."""
        if not self._is_closed:
            self._task = asyncio.get_running_loop().create_task(self._charge(outage))

    async def close(self, outage: Outage) -> None:
        """Charge what is left, if the store answers."""
        self._is_closed = True
        task = self._task
        # A task of an earlier event loop ended with it.
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])
        if outage.has_buckets and await self._ask():
            await self._charge(outage)

    async def _charge(self, outage: Outage) -> None:
        with outage.charging() as bucket_ids:
            for first in range(0, len(bucket_ids), _CALLS_AT_ONCE):
                batch = bucket_ids[first : first + _CALLS_AT_ONCE]
                results = await asyncio.gather(
                    *(self._charge_bucket(outage, bucket_id) for bucket_id in batch)
                )
                if not all(results):
                    break

    async def _charge_bucket(self, outage: Outage, bucket_id: BucketId) -> bool:
        """Charge the store for one bucket; return whether to go on with others."""
        if (charge := outage.make_charge(bucket_id)) is None:
            return True
        call = self._encode(charge.check)
        try:
            replies = await self._run(call)
        except CONNECTION_ERRORS as error:
            outage.note_failed_charge(charge, error)
            return isinstance(error, PausedCalls)  # Of a cluster, other servers may answer.
        outage.note_charge(charge, read_settlement(call, replies).limits)
        return True
