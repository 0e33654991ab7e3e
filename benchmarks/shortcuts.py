"""What is answered without asking Redis: denials that are remembered, and keys that are leased.

A key that was just denied is denied again from memory, for a second at most; meanwhile Redis must
not hear of it. A hot key that is leased is answered from what was taken in advance; it is compared
with the same key without a lease, round by round, where checks travel together but all travel.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from benchmarks import drive, server
from benchmarks.contestants.ours import DEADLINE
from benchmarks.report import Result, progress, spread_of_rounds
from benchmarks.worker import LOOP, new_event_loop
from ratelimit import AsyncLimiter, Limit, Limiter, PolicyError

if TYPE_CHECKING:
    from benchmarks.drive import Sample
    from benchmarks.server import Server
    from ratelimit import Decision

TASKS: Final = 256
SCARCE: Final = Limit("requests", "1/day")
HOT: Final = "vk_hot"
RATE: Final = "100000000/second"
LEASE: Final = {"share": 0.05, "ttl": "1s"}
WARM: Final = 0.1  # seconds
ASKED: Final = 3
"""Checks before the clock starts: the one that is admitted, the store's denial, and one more."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure.

    Attributes:
        rounds: of everything.
        seconds: each time; a denial is remembered for one, and the first calls warm up.
    """

    rounds: int = 5
    seconds: float = 0.5


FULL: Final = Size()
QUICK: Final = Size(rounds=2, seconds=0.3)


@dataclass(slots=True)
class Heard:
    """What one way did over all rounds.

    Attributes:
        samples: one a round.
        commands: that Redis heard meanwhile, likewise.
        last: who gave the last answer of each round. To note it of every answer would take a tenth of
            the time of the fastest; the commands tell of them all.
    """

    samples: list[Sample] = field(default_factory=list)
    commands: list[int] = field(default_factory=list)
    last: Counter[str] = field(default_factory=Counter)

    def note(self, target: Server, sample: Sample, last: Decision) -> None:
        """Add a round, and the answer to the call after it."""
        self.samples.append(sample)
        self.commands.append(sum(target.spent().calls.values()))
        self.last[last.source] += 1

    def figures(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "decisions_per_second": spread_of_rounds([sample.rate for sample in self.samples]),
            "p50_us": spread_of_rounds([1e6 * sample.p50 for sample in self.samples]),
            "redis_commands": self.commands,
            "sources": dict(self.last),
            "admitted": sum(sample.admitted for sample in self.samples),
            "calls": sum(sample.calls for sample in self.samples),
        }


def run(size: Size = FULL) -> Result:
    """Run the benchmark.

    Raises:
        StoreUnavailable: the server does not start.
    """
    ways = {name: Heard() for name in ("denied, blocking", "denied, asyncio", "coalesced", "leased")}
    leased, reason = _leased()
    with server.running() as target, progress() as bar, asyncio.Runner(loop_factory=new_event_loop) as runner:
        for number in bar.track(range(size.rounds), description="shortcuts"):
            _deny(target, f"vk_denied_{number}", size.seconds, ways["denied, blocking"])
            runner.run(_deny_async(target, f"vk_refused_{number}", size.seconds, ways["denied, asyncio"]))
            runner.run(_hot(target, Limit("requests", RATE), size.seconds, ways["coalesced"]))
            if leased:
                runner.run(_hot(target, leased, size.seconds, ways["leased"]))
    return _result(size, ways, reason)


def _leased() -> tuple[Limit | None, str | None]:
    """Return a limit with a lease, or why there is none."""
    make: Any = cast("Any", Limit)  # a library without leases has no such field
    try:
        return make("requests", RATE, lease=LEASE), None
    except (PolicyError, TypeError) as error:
        return None, f"this version has no leases: {error}"


def _deny(target: Server, key: str, seconds: float, heard: Heard) -> None:
    with Limiter(target.url, SCARCE, deadline=DEADLINE) as limiter:
        for _ in range(ASKED):
            limiter.check(key)
        target.forget()
        sample = drive.threads(limiter.check, itertools.repeat(key), 1, seconds)
        heard.note(target, sample, limiter.check(key))


async def _deny_async(target: Server, key: str, seconds: float, heard: Heard) -> None:
    async with AsyncLimiter(target.url, SCARCE, deadline=DEADLINE) as limiter:
        for _ in range(ASKED):
            await limiter.check(key)
        target.forget()
        sample = await drive.tasks(limiter.check, itertools.repeat(key), 1, seconds)
        heard.note(target, sample, await limiter.check(key))


async def _hot(target: Server, limit: Limit, seconds: float, heard: Heard) -> None:
    async with AsyncLimiter(target.url, limit, deadline=DEADLINE) as limiter:
        await drive.tasks(limiter.check, itertools.repeat(HOT), TASKS, WARM)
        target.forget()
        sample = await drive.tasks(limiter.check, itertools.repeat(HOT), TASKS, seconds)
        heard.note(target, sample, await limiter.check(HOT))


def _result(size: Size, ways: dict[str, Heard], reason: str | None) -> Result:
    figures: dict[str, Any] = {
        "event_loop": LOOP,
        "seconds_each": size.seconds,
        "tasks": TASKS,
        "ways": {name: heard.figures() for name, heard in ways.items() if heard.samples},
    }
    rows = [(name, _row(way)) for name, way in figures["ways"].items()]
    if reason:
        figures["skipped"] = {"leased": reason}
        rows.append(("leased", f"skipped: {reason}"))
    return Result("shortcuts", "Answers that need no Redis", rows, figures, faults_of(figures))


def faults_of(figures: dict[str, Any]) -> list[str]:
    """Say what was answered wrongly."""
    faults = []
    for name, way in figures["ways"].items():
        denied = name.startswith("denied")
        wrong = way["admitted"] if denied else way["calls"] - way["admitted"]
        if wrong:
            faults.append(f"shortcuts: {wrong:,} wrongly {'admitted' if denied else 'denied'} ({name})")
    return faults


def _row(way: dict[str, Any]) -> str:
    rate, commands = way["decisions_per_second"]["median"], max(way["redis_commands"])
    sources = " or ".join(way["sources"])
    return f"{rate:,.0f} decisions/s by {sources}; Redis heard {commands:,} commands a round at most"
