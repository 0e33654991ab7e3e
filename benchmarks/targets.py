"""What the figures of one run have to reach, and whether they did.

Machines are noisy, so a target that is missed is shown and nothing else; what a benchmark found to
be wrong makes the command fail. A ratio is taken within each round, and its median counts.
"""

import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypedDict

from benchmarks.contestants import BUCKET, EMPTY, OURS, PEERS, THROTTLED
from benchmarks.figures import Cell, Found, Place, ratio
from benchmarks.suite import accuracy, growth, http, memory, shortcuts
from benchmarks.suite.library import ALONE, ALONE_THREE, ONE_EACH, RATE, THREAD, THREE_EACH

Reached = Callable[[Found], Sequence[float]]
"""Finds the rounds of a figure in the figures of a run; KeyError where they are not."""


class Target(NamedTuple):
    """One required figure."""

    what: str
    required: str  # how the median must compare with a number; `=` is required of every round
    reached: Reached
    note: Callable[[Found], str] = lambda _: ""  # what a run measured it of, where that depends on the run


class Verdict(TypedDict):
    """What came of a target."""

    what: str
    required: str
    reached: dict[str, float] | None  # median, min and max; None where this run did not measure it
    met: bool | None  # likewise
    note: str  # why it was not measured, or what of


def judge(run: Found) -> list[Verdict]:
    """Compare the figures of one run with every target."""
    return [_judge(target, run) for target in TARGETS]


def _judge(target: Target, run: Found) -> Verdict:
    verdict = Verdict(what=target.what, required=target.required, reached=None, met=None, note="")
    try:
        rounds, verdict["note"] = target.reached(run), target.note(run)
    except KeyError as error:
        return verdict | {
            "note": f"not measured: no {', '.join(str(part) for part in error.args[0] if part)} in this run"
        }
    least, median, most = min(rounds), statistics.median(rounds), max(rounds)
    verdict["reached"] = {"median": median, "min": least, "max": most}
    sense, required = target.required[0], float(target.required[2:].replace(",", ""))
    compare = {"≥": operator.ge, "≤": operator.le, "<": operator.lt, "=": operator.eq}[sense]
    counting = (least, most) if sense == "=" else (median,)  # what must be exact must be so in every round
    return verdict | {"met": all(compare(value, required) for value in counting)}


def _figure(cell: Cell, figure: str, *contestants: str) -> Reached:
    """Return what finds a figure: the rounds of all these contestants."""
    return lambda run: [value for name in contestants for value in run.rounds(cell, name, figure)]


def _against(cell: Cell, *names: str, figure: str = RATE) -> Reached:
    """Ours ÷ the largest of these in the same round: for rates, the fastest; of those that took part."""

    def reached(run: Found) -> list[float]:
        places = [Place(cell.label, cell.at, name, figure) for name in names]
        theirs = [run[place] for place in places if place in run] or [run[places[0]]]
        return ratio(run.rounds(cell, OURS, figure), map(max, zip(*theirs, strict=True)))

    return reached


def _three_for_one(three: Cell, one: Cell) -> Reached:
    """Three limits of ours ÷ one bucket of theirs, in Redis."""
    return lambda run: ratio(run.rounds(three, OURS, "redis_us"), run.rounds(one, THROTTLED, "redis_us"))


def _grown(sweep: str) -> tuple[Reached, Callable[[Found], str]]:
    cell = growth.RATIOS[sweep]
    ends = [_figure(cell, end, OURS) for end in ("most", "least")]
    return _figure(cell, "ratio", OURS), lambda run: " ÷ ".join(f"{end(run)[0]:,.0f}" for end in ends)


def _bytes() -> tuple[Reached, Callable[[Found], str]]:
    keys = _figure(memory.ACTIVE, "keys", OURS)
    return _figure(memory.ACTIVE, "bytes_per_key", OURS), lambda run: f"with {keys(run)[0]:,.0f} keys"


_DENIED: Final = shortcuts.DENIED

TARGETS: Final = (
    Target("256 tasks, 10,000 keys: decisions/s ÷ the fastest peer", "≥ 8", _against(ONE_EACH, *PEERS)),
    Target("the same ÷ redis-py with a bucket script of one's own", "≥ 6", _against(ONE_EACH, BUCKET)),
    Target(
        "1 task: median latency ÷ redis-py, empty script", "≤ 1.25", _against(ALONE, EMPTY, figure="p50_ms")
    ),
    Target("1 thread: decisions/s ÷ redis-py, empty script", "≥ 0.900", _against(THREAD, EMPTY)),
    Target("1 thread: decisions/s ÷ the fastest peer", "≥ 1", _against(THREAD, *PEERS)),
    Target(
        "1 task, 3 limits in 1 check: time in Redis ÷ 1 bucket of throttled-py",
        "≤ 1.50",
        _three_for_one(ALONE_THREE, ALONE),
    ),
    Target("the same of 256 tasks", "≤ 1.50", _three_for_one(THREE_EACH, ONE_EACH)),
    Target("256 tasks, 3 limits: decisions/s ÷ the fastest peer", "≥ 10", _against(THREE_EACH, *PEERS)),
    Target("denials from memory: decisions/s", "≥ 300,000", _figure(shortcuts.CELL, RATE, _DENIED[0])),
    Target("denials from memory: Redis commands", "= 0", _figure(shortcuts.CELL, "redis_commands", *_DENIED)),
    Target(
        "hot key: leased ÷ coalesced decisions/s",
        "≥ 3",
        lambda run: run.ratio(shortcuts.CELL, "leased", "coalesced", RATE),
    ),
    Target(
        "POST /v1/check ÷ a FastAPI POST that does nothing", "≥ 1.30", _figure(http.BUSIEST, "ratio", "check")
    ),
    Target(
        "/v1/authorize ÷ a FastAPI POST that does nothing",
        "≥ 1.80",
        _figure(http.BUSIEST, "ratio", "authorize"),
    ),
    Target("POST /v1/check at half load: p99 in ms", "< 10", _figure(http.HALF, "p99_ms", "check")),
    Target("/v1/authorize at half load: p99 in ms", "< 10", _figure(http.HALF, "p99_ms", "authorize")),
    Target("bytes per active key with 3 limits", "≤ 220", *_bytes()),
    Target("keys left when idle", "= 0", _figure(memory.IDLE, "keys_left", OURS)),
    Target("CPU in Redis: many keys ÷ few", "≤ 1.30", *_grown("keys")),
    Target("CPU in Redis: large burst ÷ small", "≤ 1.10", *_grown("bursts")),
    Target(
        "4 processes at one key: admitted ÷ allowed",
        "= 1",
        _figure(accuracy.DAILY_CELL, "admitted_to_allowed", OURS),
    ),
)
