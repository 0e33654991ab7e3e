"""Load on a limiter while its store changes, and what must hold afterwards."""

import asyncio
import time
from collections import Counter

from ratelimit import AsyncLimiter, Limit, Usage

BURST = 1500
TENANTS = [f"tenant-{number}" for number in range(48)]
LIMITS = [
    Limit("requests", f"{BURST}/365d", on_outage="deny", denial_memory=False),
    Limit("tokens", f"{100 * BURST}/365d", unit="tokens", on_outage="deny", denial_memory=False),
]
SHARED = Limit("everyone", "1000000/365d", per=[], on_outage="deny", denial_memory=False)


class Load:
    """Checks, reservations and settlements of many tenants at the same time.

    Attributes:
        admitted: how many requests were admitted, by tenant.
        settled: how many settlements were answered, by tenant.
        decided: how many checks the store decided.
        outages: how many checks it did not decide.
        longest_gap: the longest time in seconds without an answer of the store.
    """

    def __init__(self, url, *limits, tasks=24, deadline=0.25):
        self._url, self._limits, self._tasks, self._deadline = url, limits or LIMITS, tasks, deadline
        self.admitted, self.settled = Counter(), Counter()
        self.decided = self.outages = 0
        self.longest_gap = 0.0
        self._answered_at = None
        self._is_over = False

    def run(self, change, *, seconds_after=1.0):
        """Run the load while `change()` changes the store, and some time longer. Nothing may be raised."""
        asyncio.run(self._run(change, seconds_after))

    async def _run(self, change, seconds_after):
        async with AsyncLimiter(self._url, self._limits, deadline=self._deadline) as limiter:
            self._answered_at = time.monotonic()
            self._note(TENANTS[0], await limiter.check(TENANTS[0]))
            tasks = [asyncio.create_task(self._ask(limiter, number)) for number in range(self._tasks)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(change)
            await asyncio.sleep(seconds_after)
            self._is_over = True
            await asyncio.gather(*tasks)

    async def _ask(self, limiter, number):
        while not self._is_over:
            tenant = TENANTS[number % len(TENANTS)]
            number += 7
            if number % 5:
                decision = await limiter.check(tenant)
                self._note(tenant, decision)
            else:
                await self._reserve(limiter, tenant)
            await asyncio.sleep(0.002)  # so that the bursts are not spent before the change

    async def _reserve(self, limiter, tenant):
        decision = await limiter.check(tenant, cost={"tokens": 5}, reserve=True)
        self._note(tenant, decision)
        if decision and decision.source == "store":
            try:
                await limiter.settle(Usage(input_tokens=3), reservation=decision.reservation)
            except Exception as error:
                if type(error).__name__ not in {"StoreUnavailable", "UnknownReservation"}:
                    raise
            else:
                self.settled[tenant] += 1

    def _note(self, tenant, decision):
        if decision.source == "outage":
            self.outages += 1
            return
        now = time.monotonic()
        self.longest_gap = max(self.longest_gap, now - self._answered_at)
        self._answered_at = now
        self.decided += 1
        if decision:
            self.admitted[tenant] += 1

    def describe(self, name):
        """Return a line with what was seen."""
        return (
            f"{name}: {self.decided} decided, {sum(self.admitted.values())} admitted, {self.outages} by"
            f" on_outage, longest time without an answer {self.longest_gap * 1000:.0f} ms"
        )
