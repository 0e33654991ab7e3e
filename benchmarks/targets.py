"""What the figures of one run have to reach, and whether they did.

Machines are noisy, so a target that is missed is told and nothing else; what a benchmark found to
be wrong makes the command fail. A ratio is taken within each round, and its median counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from benchmarks.contestants import BUCKET, EMPTY, OURS, PEERS, THROTTLED
from benchmarks.library import ALONE, ALONE_THREE, ONE_EACH, THREAD, THREE_EACH
from benchmarks.report import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.library import Cell

Spread = dict[str, float]

RATE: Final = "decisions_per_second"
P50: Final = "p50_ms"


class NotMeasured(Exception):  # noqa: N818 - not an error: this run did not look
    """The run has no such figure; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """One required figure.

    Attributes:
        what: in words.
        sense: how the median must compare with `required`.
        required: the figure to reach.
        reached: finds the figure in a run's documents; raises KeyError or NotMeasured where it is not.
        of: says what a run measured it of, where that depends on the run.
    """

    what: str
    sense: Literal["≥", "≤", "=", "<"]
    required: float
    reached: Callable[[Mapping[str, Any]], Spread]
    of: Callable[[Mapping[str, Any]], str] = lambda _: ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and what came of it.

    Attributes:
        target: what was required.
        found: median, min and max; None where this run did not measure it.
        met: likewise.
        note: why it was not measured, or what of.
    """

    target: Target
    found: Spread | None
    met: bool | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for machines."""
        target = self.target
        return {
            "what": target.what,
            "required": f"{target.sense} {target.required:g}",
            "reached": self.found,
            "met": self.met,
            "note": self.note,
        }

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """What, required, reached, met: for people."""
        target = self.target
        required = f"{target.sense} {_short(target.required)}"
        if self.found is None:
            return target.what, required, f"not measured: {self.note}", "-"
        low, middle, high = (_short(self.found[name]) for name in ("min", "median", "max"))
        reached = middle if low == high else f"{middle} ({low} to {high})"
        reached += f", {self.note}" if self.note else ""
        return target.what, required, reached, "yes" if self.met else "no"


def judge(documents: Mapping[str, Any]) -> list[Verdict]:
    """Hold the documents of one run against every target."""
    return [_judge(target, documents) for target in TARGETS]


def _judge(target: Target, documents: Mapping[str, Any]) -> Verdict:
    try:
        found = target.reached(documents)
    except NotMeasured as why:
        return Verdict(target, None, None, str(why))
    except KeyError as missing:
        return Verdict(target, None, None, f"no {missing.args[0]} in this run")
    middle, required = found["median"], target.required
    met = {
        "≥": middle >= required,
        "≤": middle <= required,
        "<": middle < required,
        "=": found["min"] == found["max"] == required,
    }[target.sense]
    spread_only = {name: found[name] for name in ("median", "min", "max")}
    return Verdict(target, spread_only, met, target.of(documents))


def _short(value: float) -> str:
    if value == 0 or abs(value) >= 1000:  # noqa: PLR2004 - where digits behind the point say nothing
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}" if value % 1 else f"{value:g}"


def _contestants(documents: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    for found in documents["library"]["cells"]:
        if all(found[name] == getattr(cell, name) for name in ("mode", "concurrency", "keys", "limits")):
            contestants: dict[str, Any] = found["contestants"]
            return contestants
    raise NotMeasured(cell.label)


def _rounds(contestants: Mapping[str, Any], names: Sequence[str], figure: str) -> list[list[float]]:
    """Return the rounds of those contestants that took part."""
    found = [contestants[name][figure]["rounds"] for name in names if name in contestants]
    if not found:
        raise NotMeasured(" or ".join(names))
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Divide round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def _against(cell: Cell, *names: str, figure: str = RATE) -> Callable[[Mapping[str, Any]], Spread]:
    """Ours ÷ the largest of these in the same round: for rates, the fastest."""

    def reached(documents: Mapping[str, Any]) -> Spread:
        contestants = _contestants(documents, cell)
        theirs = [max(rounds) for rounds in zip(*_rounds(contestants, names, figure), strict=True)]
        [ours] = _rounds(contestants, [OURS], figure)
        return ratio(ours, theirs)

    return reached


def _three_for_one(three: Cell, one: Cell) -> Callable[[Mapping[str, Any]], Spread]:
    """Three limits of ours ÷ one bucket of theirs, in Redis."""

    def reached(documents: Mapping[str, Any]) -> Spread:
        [ours] = _rounds(_contestants(documents, three), [OURS], "redis_us")
        [theirs] = _rounds(_contestants(documents, one), [THROTTLED], "redis_us")
        return ratio(ours, theirs)

    return reached


def _way(documents: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = documents["shortcuts"]
    if name not in found["ways"]:
        raise NotMeasured(found.get("skipped", {}).get(name, name))
    way: dict[str, Any] = found["ways"][name]
    return way


def _denials(documents: Mapping[str, Any]) -> Spread:
    way: Spread = _way(documents, "denied, blocking")[RATE]
    return way


def _commands(documents: Mapping[str, Any]) -> Spread:
    ways = [_way(documents, name) for name in ("denied, blocking", "denied, asyncio")]
    return spread([commands for way in ways for commands in way["redis_commands"]])


def _lease(documents: Mapping[str, Any]) -> Spread:
    rounds = [_way(documents, name)[RATE]["rounds"] for name in ("leased", "coalesced")]
    return ratio(*rounds)


def _http(figure: str, route: str) -> Callable[[Mapping[str, Any]], Spread]:
    """Of the benchmark `http`: by route, median, min and max of `ratios` and `half_load_p99_ms`."""

    def reached(documents: Mapping[str, Any]) -> Spread:
        found: Spread = documents["http"][figure][route]
        return found

    return reached


def _bytes(documents: Mapping[str, Any]) -> Spread:
    return spread([documents["memory"]["contestants"][OURS]["bytes_per_key"]])


def _bytes_of(documents: Mapping[str, Any]) -> str:
    return f"with {documents['memory']['contestants'][OURS]['keys']:,} keys"


def _idle(documents: Mapping[str, Any]) -> Spread:
    return spread([documents["memory"]["idle"][OURS]["keys_left"]])


def _grown(what: str) -> Callable[[Mapping[str, Any]], Spread]:
    def reached(documents: Mapping[str, Any]) -> Spread:
        found: Spread = documents["growth"]["ratios"][what]
        return found

    return reached


def _grown_of(what: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda documents: "{:,} ÷ {:,}".format(*documents["growth"]["ratios"][what]["of"])


def _accuracy(documents: Mapping[str, Any]) -> Spread:
    found: Spread = documents["accuracy"]["admitted_to_allowed"][OURS]
    return found


TARGETS: Final = (
    Target("256 tasks, 10,000 keys: decisions/s ÷ the fastest peer", "≥", 8, _against(ONE_EACH, *PEERS)),
    Target("the same ÷ redis-py with a bucket script of one's own", "≥", 6, _against(ONE_EACH, BUCKET)),
    Target("1 task: median latency ÷ redis-py, empty script", "≤", 1.25, _against(ALONE, EMPTY, figure=P50)),
    Target("1 thread: decisions/s ÷ redis-py, empty script", "≥", 0.9, _against(THREAD, EMPTY)),
    Target("1 thread: decisions/s ÷ the fastest peer", "≥", 1, _against(THREAD, *PEERS)),
    Target(
        "1 task, 3 limits in 1 check: time in Redis ÷ 1 bucket of throttled-py",
        "≤",
        1.5,
        _three_for_one(ALONE_THREE, ALONE),
    ),
    Target("the same of 256 tasks", "≤", 1.5, _three_for_one(THREE_EACH, ONE_EACH)),
    Target("256 tasks, 3 limits: decisions/s ÷ the fastest peer", "≥", 10, _against(THREE_EACH, *PEERS)),
    Target("denials from memory: decisions/s", "≥", 300_000, _denials),
    Target("denials from memory: Redis commands", "=", 0, _commands),
    Target("hot key: leased ÷ coalesced decisions/s", "≥", 3, _lease),
    Target("POST /v1/check ÷ a FastAPI POST that does nothing", "≥", 1.3, _http("ratios", "check")),
    Target("/v1/authorize ÷ a FastAPI POST that does nothing", "≥", 1.8, _http("ratios", "authorize")),
    Target("POST /v1/check at half load: p99 in ms", "<", 10, _http("half_load_p99_ms", "check")),
    Target("/v1/authorize at half load: p99 in ms", "<", 10, _http("half_load_p99_ms", "authorize")),
    Target("bytes per active key with 3 limits", "≤", 220, _bytes, _bytes_of),
    Target("keys left when idle", "=", 0, _idle),
    Target("CPU in Redis: many keys ÷ few", "≤", 1.3, _grown("keys"), _grown_of("keys")),
    Target("CPU in Redis: large burst ÷ small", "≤", 1.1, _grown("burst"), _grown_of("burst")),
    Target("4 processes at one key: admitted ÷ allowed", "=", 1, _accuracy),
)
