"""One tenant in three regions: a share of the rate for each, or one store for all, with and without leases.

What the regions ask for moves: each has its peak in turn, as days do around the world. Together they ask for
nine tenths of the limit all the time, so a limiter without any waste admits everything. In a second run they
ask for one and a half times the limit, to see whether more than the limit is admitted.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from benchmarks.scale.ledger import Ledger
from benchmarks.scale.sidecar import Sidecar
from benchmarks.scale.world import LEASE, World, run
from ratelimit import Limit

REGIONS: Final = 3
SIDECARS: Final = 3  # of each region
COUNT: Final = 600  # a second, everywhere together; also the burst
LOADS: Final = (0.9, 1.5)
STEPS: Final = 240  # of a day, in each of which the demand is constant
DAY: Final = 30.0  # seconds; long beside a burst, which is one second of the rate
NEAR, FAR = 0.00025, 0.04  # seconds to the store, one way
DEADLINE: Final = 0.25  # the default, 0.05, is less than the round trip


class Way(NamedTuple):
    """How the regions share the limit.

    Attributes:
        lease: the share of the burst in a lease of the one store; 0 for no leases.
        share: the part of the limit that each region has in a store of its own; 0 for one store.
    """

    lease: float = 0.0
    share: float = 0.0


WAYS: Final[dict[str, Way]] = {
    "one store": Way(),
    "one store, leases of 1 %": Way(lease=0.01),
    "one store, leases of 5 %": Way(lease=0.05),
    "one store, leases of 20 %": Way(lease=0.2),
    "a third each": Way(share=1 / 3),
    "a half each": Way(share=1 / 2),
}


def find_demand(region: int, t: float, day: float) -> float:
    """Return the part of all checks that a region asks for: from none to two thirds."""
    return (1 + math.cos(2 * math.pi * (t / day - region / REGIONS))) / REGIONS


def measure_way(name: str, *, day: float = DAY) -> dict[str, float]:
    """Return the figures of two days: one below the limit, one above it."""
    found, above = (_measure_day(WAYS[name], load, day) for load in LOADS)
    allowed = COUNT * day + COUNT  # the rate and one burst
    return {
        **found,
        "admitted_of_limit": above["admitted"] / allowed,
        "needless_share_above": above["needless_share"],
        "above_bound": above["above_bound"],
        "over_admitted": max(found["over_admitted"], above["over_admitted"]),
    }


def _measure_day(way: Way, load: float, day: float) -> dict[str, float]:
    if way.share:
        return _measure_shares(way.share, load, day)
    lease: Any = {"lease": {**LEASE, "share": way.lease}} if way.lease else {}
    limit = Limit("requests", f"{COUNT}/second", **lease)
    delays = (NEAR, FAR, FAR)

    async def play(world: World) -> dict[str, float]:
        return await _play(world, load, day, range(REGIONS))

    return run(play, limit, sidecars=REGIONS * SIDECARS, delays=delays, deadline=DEADLINE)


def _measure_shares(share: float, load: float, day: float) -> dict[str, float]:
    """Simulate the regions one after the other: they have nothing in common."""
    limit, whole = (Limit("requests", f"{round(COUNT * part)}/second") for part in (share, 1))
    admitted_at: list[int] = []

    def measure_region(region: int) -> dict[str, float]:
        async def play(world: World) -> dict[str, float]:
            def note(_key: str, _source: str, allowed: bool, _wait: float) -> None:  # noqa: FBT001 - a callback
                if allowed:
                    admitted_at.append(world.loop.read_microseconds())

            world.on_decision = note
            return await _play(world, load, day, [region])

        return run(play, limit, sidecars=SIDECARS, seed=region + 1)

    found = [measure_region(region) for region in range(REGIONS)]
    together = Ledger()
    for t in sorted(admitted_at):
        together.note_spent(("everywhere", "requests"), whole.shape_of(None), 1.0, t)
    checks = sum(figures["checks"] for figures in found)
    admitted = sum(figures["admitted"] for figures in found)
    return {
        **found[0],
        "checks": checks,
        "admitted": admitted,
        "admitted_share": admitted / checks,
        "needless_share": 0.0,
        "over_admitted": max(figures["over_admitted"] for figures in found),
        "above_bound": together.find_excess(plain=True),
    }


async def _play(world: World, load: float, day: float, regions: Sequence[int]) -> dict[str, float]:
    """Send the traffic that some regions have in a day."""
    rng, far_waits = world.rng, list[float]()
    is_far = len(regions) > 1

    def note(_key: str, _source: str, _allowed: bool, wait: float) -> None:  # noqa: FBT001 - a callback
        if wait >= FAR:
            far_waits.append(wait)

    if is_far:
        world.on_decision = note
    step = day / STEPS
    for number in range(STEPS):
        parts = [find_demand(region, (number + 0.5) * step, day) for region in regions]

        def choose(parts: list[float] = parts) -> tuple[Sidecar, str]:
            [place] = rng.choices(range(len(parts)), parts)
            return world.sidecars[place + len(parts) * rng.randrange(SIDECARS)], "vk_1"

        await world.send(COUNT * load * sum(parts), step, choose)
    await world.end()
    for sidecar in world.sidecars:
        await sidecar.stop()
    found = world.measure()
    calls = sum(sidecar.calls for sidecar in world.sidecars if is_far and sidecar.number % REGIONS)
    return {
        "checks": found["checks"],
        "admitted": found["admitted_share"] * found["checks"],
        "admitted_share": found["admitted_share"],
        "far_calls_per_check": calls / found["checks"],
        "far_wait_share": len(far_waits) / found["checks"],
        "far_wait_ms": 1e3 * sum(far_waits) / len(far_waits) if far_waits else 0.0,
        "needless_share": found["needless_share"],
        "over_admitted": found["over_admitted"],
        "above_bound": found["above_plain_bound"],
    }
