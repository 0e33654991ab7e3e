"""A sidecar in the simulation: the real `AsyncLimiter`, whose connections are simulated."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.scale.store import SimulatedStore, SimulatedTransport
from ratelimit import AsyncLimiter, Decision, Policy
from ratelimit.engine.check_script import ScriptArgument
from ratelimit.engine.resolver import ResolvedCheck
from ratelimit.limiters.aio_cluster import AsyncCluster
from ratelimit.limiters.charging import AsyncCharger
from ratelimit.stores.clients import Store
from ratelimit.stores.outage import Outage
from ratelimit.stores.url import Address, StoreURL

URL: Final = "redis+cluster://node-0:6379"


class Sidecar(AsyncLimiter):
    """One process.

    Args:
        store: the store that all sidecars share.
        policy: the policy.
        number: which of the sidecars this is.
        delay: seconds that a message to the store takes, one way.
        deadline: seconds that a call may take.

    Attributes:
        sources: how many decisions each source made. `needless` counts denials while leases held unspent
            tokens of the bucket that would have been enough, and `waited` decisions after a round trip.
        calls: how many calls it sent to the store.
    """

    def __init__(
        self,
        store: SimulatedStore,
        policy: Policy,
        number: int,
        *,
        delay: float = 0.00025,
        deadline: float = 0.05,
    ) -> None:
        self.simulated, self.number, self._delay = store, number, delay
        self.sources: Counter[str] = Counter()
        self.calls = 0
        super().__init__(URL, policy, deadline=deadline)
        loop = store.loop
        self._resolver = store.resolver or self._resolver  # resolving every key in every sidecar takes long
        store.resolver = self._resolver
        # Its defaults are clocks that were looked up before the simulation began.
        self._outage = Outage(loop.time, loop.read_wall_nanoseconds, self._start_charging)

    def _connect(self, store: str, deadline: float) -> Store[Any]:
        def open_transport(limit: float, server: Address) -> Any:
            node = int(server[0].removeprefix("node-"))
            return SimulatedTransport(self, node, self._delay, limit)

        self._calls = AsyncCluster(
            open_transport,
            self.simulated.hosts,
            deadline,
            self._make_watch,
            self._encode_checks,
            self._encode_refund,
        )
        self._charger = AsyncCharger(self._encode_charge, self._run_settle_calls, self._calls.ask)
        return Store(StoreURL.parse(store), store, lambda _limit, _server: None, lambda: None)

    def _encode_checks(self, checks: Sequence[ResolvedCheck]) -> tuple[list[str], list[ScriptArgument]]:
        carried: Any = [*checks]  # the simulated node decides the checks themselves
        return [], [carried]

    def _take_lease(self, wanted: ResolvedCheck, now: int) -> None:
        self.simulated.lease_takes.add(id(wanted))
        super()._take_lease(wanted, now)

    async def decide(self, key: str) -> Decision:
        """Check a key as a gateway's request does, and note in the ledger what it was given."""
        check, loop, ledger = self._resolve(key), self.simulated.loop, self.simulated.ledger
        started = loop.time()
        decision = await self.check(key)
        now, source = loop.read_microseconds(), decision.source
        self.sources["waited"] += loop.time() > started
        self.sources[f"{source} {'admits' if decision.allowed else 'denies'}"] += 1
        for limit_cost in check.limit_costs:
            (placed, store_key, cost), shape = limit_cost, limit_cost.placed.shape
            bucket_id = store_key, placed.limit.name
            if decision.allowed and source == "lease":
                ledger.note_spent_lease(self.number, bucket_id, shape, cost, now)
            elif decision.allowed and source == "outage":
                ledger.note_spent(bucket_id, shape, cost, now)
            elif not decision.allowed and source != "outage":
                self.sources["needless"] += ledger.count_leased(bucket_id) >= cost
        return decision

    def kill(self) -> float:
        """Die without returning leases; return the tokens lost."""
        self._closed = True
        if self._return_timer is not None:
            self._return_timer.cancel()
        return self.simulated.ledger.lose(self.number, self.simulated.loop.read_microseconds())

    async def stop(self) -> None:
        """Stop as a sidecar does on SIGTERM, and return all leases."""
        await self._close_leases()
