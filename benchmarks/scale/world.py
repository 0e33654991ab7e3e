"""Sidecars, a store and the traffic between them: one simulation, and the figures of it."""

import asyncio
import random
from bisect import bisect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, TypeVar

from benchmarks.scale.clock import VirtualLoop, virtual_time
from benchmarks.scale.ledger import Ledger
from benchmarks.scale.sidecar import Sidecar
from benchmarks.scale.store import SimulatedStore
from ratelimit import Limit, Policy

T = TypeVar("T")

SHARE: Final = 0.05
LEASE: Final[Mapping[str, Any]] = {"share": SHARE, "ttl": "1s"}
TENANTS: Final = 10_000
ROUND_TRIP: Final = 0.0005
"""Seconds between a sidecar and the store of its datacentre, there and back."""


class Tenants:
    """A hot tenant, vk_1, and a long tail: the k-th has a share of all checks proportional to 1/k (Zipf)."""

    def __init__(self, count: int) -> None:
        self._sums = list(accumulate(1 / number for number in range(1, count + 1)))

    def choose(self, rng: random.Random) -> str:
        return f"vk_{bisect(self._sums, rng.random() * self._sums[-1]) + 1}"


OnDecision = Callable[[str, str, bool, float], object]
"""Is told of each decision: the key, the source, whether it was allowed, and the seconds that it took."""


@dataclass
class World:
    """What a simulation consists of; `run` makes one."""

    loop: VirtualLoop
    rng: random.Random
    store: SimulatedStore
    sidecars: list[Sidecar]
    ledger: Ledger
    on_decision: OnDecision = lambda _key, _source, _allowed, _wait: None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(self, rate: float, seconds: float, choose: Callable[[], tuple[Sidecar, str]]) -> None:
        """Send checks at random times (a Poisson process), without waiting for their answers.

        Args:
            rate: checks a second.
            seconds: for how long.
            choose: returns the sidecar and the key of the next check.
        """
        end = self.loop.time() + seconds
        while True:
            wait = self.rng.expovariate(rate)
            if self.loop.time() + wait >= end:
                await asyncio.sleep(end - self.loop.time())
                return
            await asyncio.sleep(wait)
            sidecar, key = choose()
            task = self.loop.create_task(self._send_one(sidecar, key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send_one(self, sidecar: Sidecar, key: str) -> None:
        started = self.loop.time()
        decision = await sidecar.decide(key)
        self.on_decision(key, decision.source, decision.allowed, self.loop.time() - started)

    async def end(self) -> None:
        """Wait for all answers."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def count(self) -> Counter[str]:
        """Return how many decisions each source made, of all sidecars."""
        return sum((sidecar.sources for sidecar in self.sidecars), Counter[str]())

    def measure(self) -> dict[str, float]:
        """Return the figures of what has happened so far."""
        sources, nodes = self.count(), self.store.nodes
        admitted = sum(count for name, count in sources.items() if name.endswith(" admits"))
        denied = sum(count for name, count in sources.items() if name.endswith(" denies"))
        checks, calls = admitted + denied, sum(node.calls for node in nodes)
        returns = sum(node.returns for node in nodes)
        carried = sum(node.checks + node.takes for node in nodes)
        return {
            "checks": checks,
            "admitted_share": admitted / checks,
            "calls_per_check": (calls + returns) / checks,
            "checks_per_call": carried / calls if calls else 0.0,
            "to_store_share": (carried + returns) / checks,
            "leased_share": sources["lease admits"] / checks,
            "waited_share": sources["waited"] / checks,
            "lease_calls_share": sum(node.takes + node.returns for node in nodes) / checks,
            "needless": sources["needless"],
            "needless_share": sources["needless"] / checks,
            "needless_of_denied": sources["needless"] / denied if denied else 0.0,
            "hottest_node": max(node.calls for node in nodes) / (calls / len(nodes)) if calls else 0.0,
            "idle_nodes": sum(node.calls == 0 for node in nodes),
            "over_admitted": self.ledger.find_excess(),
            "above_plain_bound": self.ledger.find_excess(plain=True),
            "most_leased": self.ledger.find_most_leased(),
        }


def run(
    play: Callable[[World], Awaitable[T]],
    limit: Limit,
    *,
    sidecars: int,
    nodes: int = 1,
    delays: Sequence[float] = (ROUND_TRIP / 2,),
    deadline: float = 0.05,
    seed: int = 1,
) -> T:
    """Run a simulation.

    Args:
        play: what happens in it; it returns what `run` returns.
        limit: the only limit of every tenant.
        sidecars: how many processes.
        nodes: how many primaries the store has.
        delays: seconds from a sidecar to the store, one way; sidecar i has the i-th, and so on in turn.
        deadline: seconds that a call may take.
        seed: makes it another one of its kind.
    """
    with virtual_time() as loop:
        ledger = Ledger()
        store, policy = SimulatedStore(loop, nodes, ledger), Policy.of(limit)

        async def start() -> T:
            made = [
                Sidecar(store, policy, number, delay=delays[number % len(delays)], deadline=deadline)
                for number in range(sidecars)
            ]
            return await play(World(loop, random.Random(seed), store, made, ledger))

        return loop.run_until_complete(start())


def measure_traffic(
    limit: Limit, *, sidecars: int, nodes: int, rate: float, seconds: float, tenants: int = TENANTS
) -> dict[str, float]:
    """Return the figures of traffic that a load balancer spreads evenly over sidecars."""
    population = Tenants(tenants)

    async def play(world: World) -> dict[str, float]:
        await world.send(
            rate, seconds, lambda: (world.rng.choice(world.sidecars), population.choose(world.rng))
        )
        await world.end()
        for sidecar in world.sidecars:
            await sidecar.stop()
        return world.measure()

    return run(play, limit, sidecars=sidecars, nodes=nodes)


def make_limit(count: int, *, lease: float = 0.0, **options: Any) -> Limit:
    """Return a limit of `count` requests a second, with the burst of a second.

    Args:
        count: the requests.
        lease: the share of the burst in a lease; 0 for no leases.
        options: other fields of the limit.
    """
    if lease:
        options["lease"] = {**LEASE, "share": lease}
    return Limit("requests", f"{count}/second", **options)
