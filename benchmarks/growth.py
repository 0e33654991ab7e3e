"""Whether a decision costs Redis more as things grow: keys, limits, bursts, and what a request costs.

Processor time inside Redis, of scripts and of whatever a contestant calls besides. Small and large
are measured in turn within each round, all on one server that holds them all at once, so that
noise falls on both alike; ratios are taken within a round.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import crew, server
from benchmarks.contestants import OURS, THROTTLED
from benchmarks.crew import measure
from benchmarks.report import Result, progress, spread, spread_of_rounds
from benchmarks.worker import Order
from benchmarks.workload import DAY, Quota, names, several

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.crew import Worker
    from benchmarks.server import Server

TASKS: Final = 64
SLOW: Final = (Quota("requests", 10, DAY, burst=30_000),)
"""So slow that every key is in use to the end."""
LEVELS: Final = ("nothing used", "half used", "all but one used")
KEPT: Final = (OURS, THROTTLED)
"""Who has many keys in use: one each."""

MOVING: Final = "limits moving window"
LOG: Final = "pyrate-limiter log"
_SHARES: Final = {OURS: 4, MOVING: 1 / 5}
"""Calls for each burst, more or fewer than the others': as many as take some hundredths of a second."""
ROWS_AT_MOST: Final = 1_000
"""A row for every unit taken is what these keep: larger bursts and costs would take minutes."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure.

    Attributes:
        keys: how many are in use at once, in turn.
        limits: of each key, in turn.
        bursts: in turn.
        costs: of a call, in turn.
        rounds: of everything; even, so that each end of a sweep comes first as often as the other.
        calls: of each measurement.
    """

    keys: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    limits: tuple[int, ...] = (1, 2, 4, 8)
    bursts: tuple[int, ...] = tuple(10**n for n in range(10))
    costs: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
    rounds: int = 4
    calls: int = 1_000


FULL: Final = Size()
QUICK: Final = Size((1_000, 50_000), (1, 3), (10, 10**9), (1, 1_000), rounds=4, calls=500)

Place = tuple[str, ...]
"""What was swept, who, and where in the sweep: `("bursts", "ratelimit", "1000", "half used")`."""

_Found = dict[Place, list[float]]
_Step = tuple[Place, "Order", int]
"""A place, what to measure, and the cost that each key has paid before (0: nothing)."""


def run(size: Size = FULL) -> Result:
    """Run the benchmark.

    Raises:
        StoreUnavailable: the server does not start.
        CrewError: a contestant failed.
    """
    found: _Found = defaultdict(list)
    sweeps = (_keys, _limits, _bursts, _costs)
    everyone = (OURS, THROTTLED, MOVING, LOG)
    with (
        server.running() as target,
        crew.hired(everyone, "asyncio") as hired,
        progress() as bar,
    ):
        workers = {worker.name: worker for worker in hired}
        _populate(target, size, workers)
        task = bar.add_task("growth", total=size.rounds * len(sweeps))
        for number in range(size.rounds):
            for sweep in sweeps:
                steps = list(sweep(target, size, number))
                for place, _, _ in steps:
                    found[place]  # in the order of the sweep, whatever is measured first
                for place, order, before in _turned(_ends_first(steps, size), number):
                    found[place].append(_measure(target, workers[place[1]], order, before))
                bar.advance(task)
        # Less the one that each has warmed up on.
        in_use = [target.keys(database) // len(KEPT) - 1 for database, _ in enumerate(size.keys, 1)]
    return _result(size, found, in_use)


def _ends(size: Size) -> dict[str, tuple[int, int]]:
    """Return the least and the most of the sweeps whose ends are compared."""
    small = 10 if 10 in size.bursts else size.bursts[0]  # noqa: PLR2004 - a burst of 1 has no half
    return {"keys": (size.keys[0], size.keys[-1]), "bursts": (small, size.bursts[-1])}


def _ends_first(steps: list[_Step], size: Size) -> list[_Step]:
    """Put side by side what is compared: the machine's moods last for seconds, a measurement for less."""
    ends = {(what, str(end)) for what, both in _ends(size).items() for end in both}

    def turn(step: _Step) -> tuple[bool, Place]:
        what, _, at, *level = step[0]
        is_end = (what, at) in ends
        return not is_end, tuple(level) if is_end else ()

    return sorted(steps, key=turn)


def _turned(steps: list[_Step], number: int) -> list[_Step]:
    """Every other round begins at the far end: nobody is always measured late."""
    return steps[::-1] if number % 2 else steps


def _measure(target: Server, worker: Worker, order: Order, before: int) -> float:
    if before:
        paid = Order(order.url, order.quotas, order.keys, order.prefix, TASKS, before, calls=order.keys)
        worker.run(paid)
    return measure(target, worker, order).redis


def _populate(target: Server, size: Size, workers: dict[str, Worker]) -> None:
    """Have so many keys in use in each database, by copying one that the contestant has made.

    The first database is left to the other sweeps, whose keys would be added to the few.
    """
    for database, keys in enumerate(size.keys, 1):
        for name in KEPT:
            workers[name].run(Order(target.at(database), SLOW, keys, calls=1))
        target.multiply(database, names("", keys))


def _keys(target: Server, size: Size, _number: int) -> Iterator[_Step]:
    for database, keys in enumerate(size.keys, 1):
        for name in KEPT:
            order = Order(target.at(database), SLOW, keys, concurrency=TASKS, calls=2 * size.calls)
            yield ("keys", name, str(keys)), order, 0


def _limits(target: Server, size: Size, _number: int) -> Iterator[_Step]:
    for limits in size.limits:
        for name in (OURS, THROTTLED):
            order = Order(target.url, several(limits), 1_000, f"l{limits}-", TASKS, calls=size.calls)
            yield ("limits", name, str(limits)), order, 0


def _bursts(target: Server, size: Size, number: int) -> Iterator[_Step]:
    """Every key is new in every round, first pays what brings it to its level, and is asked once."""
    for burst in size.bursts:
        for level, paid in zip(LEVELS, (0, burst // 2, burst - 1), strict=True):
            if level == LEVELS[0] or paid:
                for name in (OURS, THROTTLED, MOVING):
                    if name != MOVING or burst <= ROWS_AT_MOST:
                        calls = round(size.calls * _SHARES.get(name, 1))
                        prefix = f"b{number}-{burst}-{paid}-"
                        quota = Quota("requests", burst, DAY, burst=burst)
                        order = Order(target.url, (quota,), calls, prefix, TASKS, calls=calls)
                        yield ("bursts", name, str(burst), level), order, paid


def _costs(target: Server, size: Size, number: int) -> Iterator[_Step]:
    for cost in size.costs:
        for name in (OURS, THROTTLED, MOVING, LOG):
            if name in {OURS, THROTTLED} or cost <= ROWS_AT_MOST:
                calls = max(TASKS, size.calls // 5)
                quota = Quota("tokens", 10**6, DAY, unit="tokens")
                order = Order(target.url, (quota,), calls, f"c{number}-{cost}-", TASKS, cost, calls=calls)
                yield ("costs", name, str(cost)), order, 0


def _result(size: Size, found: _Found, in_use: list[int]) -> Result:
    figures: dict[str, Any] = {
        "tasks": TASKS,
        "calls_each": size.calls,
        "redis_us": _tree(found),
        "ratios": ratios_of(size, found),
    }
    rows = list(_rows(found))
    rows += [
        (f"{name}: {{:,}} ÷ {{:,}}".format(*r["of"]), f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})")
        for name, r in figures["ratios"].items()
    ]
    title = "Microseconds inside Redis a decision, as things grow"
    return Result("growth", title, rows, figures, list(_faults(size, in_use)))


def _faults(size: Size, in_use: list[int]) -> Iterator[str]:
    """Say where keys went before the end, or became more: the figure would be of another number."""
    for wanted, kept in zip(size.keys, in_use, strict=True):
        if wanted != kept:
            yield f"growth: {kept:,} keys in use where there should be {wanted:,}"


def _tree(found: _Found) -> dict[str, Any]:
    """Nest the figures by place."""
    tree: dict[str, Any] = {}
    for place, rounds in found.items():
        branch = tree
        for name in place[:-1]:
            branch = branch.setdefault(name, {})
        branch[place[-1]] = spread_of_rounds(rounds)
    return tree


def ratios_of(size: Size, found: _Found) -> dict[str, Any]:
    """Return large ÷ small, round by round; for bursts over all levels of fullness that both have."""
    ends = _ends(size)
    few, many = (found["keys", OURS, str(keys)] for keys in ends["keys"])
    low, high = (_all_levels(found, burst) for burst in ends["bursts"])
    return {
        "keys": {"of": [*reversed(ends["keys"])], **_ratio(many, few)},
        "burst": {"of": [*reversed(ends["bursts"])], **_ratio(high, low)},
    }


def _all_levels(found: _Found, burst: int) -> list[float]:
    levels = [found["bursts", OURS, str(burst), level] for level in LEVELS]
    return [sum(rounds) for rounds in zip(*levels, strict=True)]


def _ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    return spread_of_rounds([a / b for a, b in zip(above, below, strict=True)])


def _rows(found: _Found) -> Iterator[tuple[str, str]]:
    """Give a line for each sweep and contestant, and for bursts each level."""
    lines: dict[str, list[str]] = defaultdict(list)
    for (what, name, at, *level), rounds in found.items():
        label = ", ".join([what, *level, name])
        lines[label].append(f"{int(at):,}: {spread(rounds)['median']:.1f}")
    for label, values in lines.items():
        yield label, " · ".join(values)
