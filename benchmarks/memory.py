"""What a key costs in Redis while it is in use, and that nothing is left of it afterwards.

Bytes are the growth of `used_memory`, less what connections take, over as many keys with three
limits each: the tables of the keyspace, expiry and allocator's waste are all in it. Peers make
their keys one call at a time and so make fewer; theirs are bytes per key all the same. The names of
the limits are part of it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import crew, server
from benchmarks.contestants import DECIDERS, OURS, THROTTLED
from benchmarks.contestants.ours import DEADLINE
from benchmarks.report import Result, progress
from benchmarks.worker import Order
from benchmarks.workload import DAY, MINUTE, Quota, names
from ratelimit import AsyncLimiter, Limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.server import Server

BATCH: Final = 256
LIMITS: Final = (
    Limit("requests", "60/minute"),
    Limit("tokens", "90000/minute", unit="tokens"),
    Limit("requests-daily", "100/day"),  # so slow that the first key is still there when the last is made
)
COST: Final = {"requests": 1, "tokens": 850}

THEIRS: Final = (
    Quota("requests", 60, MINUTE),
    Quota("tokens", 90_000, MINUTE, unit="tokens"),
    Quota("requests-daily", 100, DAY),
)
BRIEF: Final = (Quota("requests", 20, 1), Quota("tokens", 100, 2, unit="tokens"))
"""Full again within two seconds, whoever keeps them."""

_IDLE: Final = 10.0  # seconds; the slowest peer keeps a window of two seconds twice as long
_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure.

    Attributes:
        keys: of ours.
        peers: keys of each peer.
        idle: keys of each that are left to expire.
        names: of the contestants.
    """

    keys: int = 1_000_000
    peers: int = 5_000
    idle: int = 500
    names: tuple[str, ...] = DECIDERS


FULL: Final = Size()
QUICK: Final = Size(keys=50_000, peers=1_000, idle=200, names=(OURS, "limits fixed window", THROTTLED))


def run(size: Size = FULL) -> Result:
    """Run the benchmark.

    Raises:
        StoreUnavailable: the server does not start.
        CrewError: a contestant failed.
    """
    per_key: dict[str, dict[str, float]] = {}
    with progress() as bar:
        task = bar.add_task("memory", total=size.keys + size.peers * len(size.names))
        with server.running() as target:
            per_key[OURS] = asyncio.run(_fill(target, size.keys, lambda made: bar.advance(task, made)))
        for name in size.names:
            if name != OURS:
                per_key[name] = _fill_peer(name, size.peers)
            bar.advance(task, size.peers)
        with server.running() as target:
            left = _idle(target, size)
    return _result(size, per_key, left)


async def _fill(target: Server, keys: int, on_keys: Callable[[int], object]) -> dict[str, float]:
    """Make our keys, and return what they cost."""
    async with AsyncLimiter(target.url, LIMITS, deadline=DEADLINE) as limiter:
        await limiter.check("warm", cost=COST)
        target.flush()
        before, start, wrong = target.memory(), time.perf_counter(), 0
        everyone = names("", keys)
        for first in range(0, keys, BATCH):
            checks = [{"key": key, "cost": COST} for key in everyone[first : first + BATCH]]
            wrong += sum(not decision for decision in await limiter.check_many(checks))
            on_keys(len(checks))
        seconds, kept, after = time.perf_counter() - start, target.keys(), target.memory()
    return {
        "keys": keys,
        "keys_kept": kept,
        "refused": wrong,
        "bytes_per_key": (after - before) / keys,
        "seconds_to_fill": seconds,
    }


def _fill_peer(name: str, keys: int) -> dict[str, float]:
    """Make a peer's keys on a server of its own: tables that held others' keys would shrink meanwhile."""
    with server.running() as target, crew.hired([name], "asyncio") as [worker]:
        order = Order(target.url, THEIRS, keys, concurrency=16, calls=keys)
        worker.warm(order)
        target.flush()
        before = target.memory()
        worker.run(order)
        return {"keys": keys, "bytes_per_key": (target.memory() - before) / keys}


def _idle(target: Server, size: Size) -> dict[str, dict[str, float | None]]:
    """Make keys of all contestants, each in a database of its own, and wait until they are gone."""
    for database, name in enumerate(size.names):
        with crew.hired([name], "asyncio") as [worker]:
            worker.run(Order(target.at(database), BRIEF, size.idle, concurrency=16, calls=size.idle))
    start, gone = time.perf_counter(), dict[str, float]()
    while time.perf_counter() - start < _IDLE and len(gone) < len(size.names):
        for database, name in enumerate(size.names):
            if name not in gone and not target.keys(database):
                gone[name] = time.perf_counter() - start
        time.sleep(_POLL)
    return {
        name: {"keys_left": target.keys(database), "seconds": gone.get(name)}
        for database, name in enumerate(size.names)
    }


def _result(
    size: Size, per_key: dict[str, dict[str, float]], left: dict[str, dict[str, float | None]]
) -> Result:
    figures: dict[str, Any] = {"limits": len(LIMITS), "contestants": per_key, "idle": left}
    rows = [
        (name, f"{found['bytes_per_key']:,.0f} bytes a key with three limits ({found['keys']:,} keys)")
        for name, found in per_key.items()
    ]
    rows += [
        (f"{name}, left idle", f"{found['keys_left']:,} of {size.idle:,} calls' keys left")
        for name, found in left.items()
    ]
    return Result("memory", "Memory of active keys, and of idle ones", rows, figures, faults_of(figures))


def faults_of(figures: dict[str, Any]) -> list[str]:
    """Say what ours did wrong."""
    ours, idle = figures["contestants"][OURS], figures["idle"][OURS]
    faults = []
    if ours["refused"]:
        faults.append(f"memory: {ours['refused']:,} wrongly refused")
    if ours["keys_kept"] != ours["keys"]:
        faults.append(f"memory: {ours['keys_kept']:,} keys kept of {ours['keys']:,} that are in use")
    if idle["keys_left"]:
        faults.append(f"memory: {idle['keys_left']:,} idle keys never expired")
    return faults
