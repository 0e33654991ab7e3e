"""What is lost when a sidecar or a node of the store dies, and when it is back."""

import asyncio
from typing import Any, Final

from benchmarks.scale.world import LEASE, Tenants, World, run
from ratelimit import Limit

SIDECARS: Final = 10
DEATH_LIMIT: Final = Limit("requests", "60000/minute", burst=6_000, lease=LEASE)
LEASED: Final = 300
NEARLY_ALL: Final = 0.9
DEATH_RATE: Final = 2_000.0  # checks a second, of one tenant: twice its limit
BEFORE: Final = 4.0  # seconds until a sidecar dies: the bucket is not empty yet
AFTER: Final = 4.0

NODES: Final = 4
LOSS_RATE: Final = 4_000.0
LOSS_COUNT: Final = 200  # a second, of every tenant: the hot one asks for twice as much
DOWN: Final = (1.0, 3.0)  # seconds at which a node is lost, and is back with nothing
END: Final = 5.0
OUTAGES: Final[dict[str, dict[str, Any]]] = {
    "deny": {"on_outage": "deny"},
    "deny, leases": {"on_outage": "deny", "lease": LEASE},
    "local": {"on_outage": "local", "local_share": 1 / SIDECARS},
    "allow": {"on_outage": "allow"},
}


def measure_death(*, dies: bool, part: float = 1.0) -> dict[str, float]:
    """Let a sidecar die, or stop as it should, while its lease is as large as it gets.

    Then the others go on with twice the traffic that the limit allows, until the bucket has long been empty.

    Args:
        dies: whether it dies.
        part: of the usual time.
    """

    async def play(world: World) -> dict[str, float]:
        first, *others = world.sidecars

        def choose() -> tuple[Any, str]:
            return world.rng.choice(world.sidecars if first in world.sidecars else others), "vk_1"

        await world.send(DEATH_RATE, BEFORE * part, choose)
        await world.end()
        while (tokens := first.count_leased_tokens().get("requests", 0.0)) < NEARLY_ALL * LEASED:
            await first.decide("vk_1")
        world.sidecars.remove(first)
        lost = first.kill() if dies else 0.0
        if not dies:
            await first.stop()
        before = _count_admitted(world)
        await world.send(DEATH_RATE, AFTER * part, choose)
        await world.end()
        for sidecar in others:
            await sidecar.stop()
        shape = DEATH_LIMIT.shape_of(None)
        return {
            "held": tokens,
            "lost": lost,
            "refilled_after_s": lost * shape.period / shape.count / 1e6,
            "admitted_afterwards": _count_admitted(world) - before,
            "over_admitted": world.ledger.find_excess(),
        }

    return run(play, DEATH_LIMIT, sidecars=SIDECARS)


def _count_admitted(world: World) -> int:
    return sum(count for name, count in world.count().items() if name.endswith(" admits"))


def measure_loss(outage: str, *, rate: float = LOSS_RATE) -> dict[str, float]:
    """Lose the node of the hot tenant, and bring it back empty two seconds later."""
    population = Tenants(1_000)
    limit = Limit("requests", f"{LOSS_COUNT}/second", **OUTAGES[outage])

    async def play(world: World) -> dict[str, float]:
        lost = world.store.find_node("vk_1")
        seen = _Seen(world, lost)

        async def fail() -> None:
            await asyncio.sleep(DOWN[0])
            world.store.lose_node(lost)
            await asyncio.sleep(DOWN[1] - DOWN[0])
            world.store.restore_node(lost)

        failing = asyncio.ensure_future(fail())
        await world.send(
            rate, END, lambda: seen.watch(world.rng.choice(world.sidecars), population.choose(world.rng))
        )
        await world.end()
        await failing
        return seen.measure()

    return run(play, limit, sidecars=SIDECARS, nodes=NODES)


class _Seen:
    """Notes decisions by the time and by whether their tenant is on the lost node."""

    def __init__(self, world: World, lost: int) -> None:
        self._world, self._lost = world, lost
        self._nodes: dict[str, int] = {}
        self._down = self._admitted = self._leased = self._others = 0
        self._last = DOWN[1]
        world.on_decision = self._note

    def watch(self, sidecar: Any, key: str) -> tuple[Any, str]:
        if key not in self._nodes:
            self._nodes[key] = self._world.store.find_node(key)
        return sidecar, key

    def _note(self, key: str, source: str, allowed: bool, _wait: float) -> None:  # noqa: FBT001 - a callback
        now, is_lost = self._world.loop.time(), self._nodes[key] == self._lost
        if DOWN[0] <= now < DOWN[1] and is_lost:
            self._down += 1
            self._admitted += allowed
            self._leased += source == "lease"
        if source == "outage":
            self._others += not is_lost
            self._last = max(self._last, now)

    def measure(self) -> dict[str, float]:
        return {
            "checks_while_down": self._down,
            "admitted_share_while_down": self._admitted / self._down,
            "leased_share_while_down": self._leased / self._down,
            "others_without_store": self._others,
            "recovered_after_ms": 1e3 * (self._last - DOWN[1]),
            "above_bound": self._world.ledger.find_excess(),
            "burst": LOSS_COUNT,
        }
