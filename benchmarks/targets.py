"""What the figures of one run have to reach, and whether they did.

Machines are noisy, so a target that is missed is shown and nothing else; what a benchmark found to
be wrong makes the command fail. A ratio is taken within each round, and its median counts.
"""

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypedDict

from benchmarks.contestants import BUCKET, EMPTY, OURS, PEERS, THROTTLED
from benchmarks.figures import Cell, Found, Place, ratio, short
from benchmarks.suite import accuracy, growth, http, memory, shortcuts
from benchmarks.suite.library import ALONE, ALONE_THREE, ONE_EACH, RATE, THREAD, THREE_EACH

Run = Mapping[str, Found]
"""The figures of a run by benchmark."""


class Target(NamedTuple):
    """One required figure."""

    what: str
    sense: Literal["≥", "≤", "=", "<"]  # how the median must compare; `=` is required of every round
    required: float
    reached: Callable[[Run], Sequence[float]]  # finds the rounds in a run; KeyError where they are not
    note: Callable[[Run], str] = lambda _: ""  # what a run measured it of, where that depends on the run


class Verdict(TypedDict):
    """What came of a target."""

    what: str
    required: str
    reached: dict[str, float] | None  # median, min and max; None where this run did not measure it
    met: bool | None  # likewise
    note: str  # why it was not measured, or what of


def judge(run: Run) -> list[Verdict]:
    """Compare the figures of one run with every target."""
    return [_judge(target, run) for target in TARGETS]


def _judge(target: Target, run: Run) -> Verdict:
    verdict = Verdict(
        what=target.what, required=f"{target.sense} {short(target.required)}", reached=None, met=None, note=""
    )
    try:
        rounds, verdict["note"] = target.reached(run), target.note(run)
    except KeyError as error:
        missing = error.args[0]  # a benchmark's name, or a place
        missing = missing if isinstance(missing, str) else ", ".join(str(part) for part in missing if part)
        return verdict | {"note": f"no {missing} in this run"}
    least, median, most = min(rounds), statistics.median(rounds), max(rounds)
    verdict["reached"] = {"median": median, "min": least, "max": most}
    compare = {"≥": operator.ge, "≤": operator.le, "<": operator.lt, "=": operator.eq}[target.sense]
    # What must be exact must be so in every round.
    verdict["met"] = all(
        compare(value, target.required) for value in ((least, most) if target.sense == "=" else (median,))
    )
    return verdict


def _figure(benchmark: str, cell: Cell, figure: str, *contestants: str) -> Callable[[Run], Sequence[float]]:
    """Return what finds a figure: the rounds of all these contestants."""
    return lambda run: [value for name in contestants for value in run[benchmark].rounds(cell, name, figure)]


def _against(cell: Cell, *names: str, figure: str = RATE) -> Callable[[Run], Sequence[float]]:
    """Ours ÷ the largest of these in the same round: for rates, the fastest; of those that took part."""

    def reached(run: Run) -> list[float]:
        found = run["library"]
        places = [Place(cell.label, cell.at, name, figure) for name in names]
        theirs = [found[place] for place in places if place in found] or [found[places[0]]]
        return ratio(found.rounds(cell, OURS, figure), map(max, zip(*theirs, strict=True)))

    return reached


def _three_for_one(three: Cell, one: Cell) -> Callable[[Run], Sequence[float]]:
    """Three limits of ours ÷ one bucket of theirs, in Redis."""
    places = ((three, OURS), (one, THROTTLED))
    return lambda run: ratio(*(run["library"].rounds(*place, "redis_us") for place in places))


def _keys(run: Run) -> str:
    [keys] = run["memory"].rounds(memory.ACTIVE, OURS, "keys")
    return f"with {keys:,.0f} keys"


def _ends(cell: Cell) -> Callable[[Run], str]:
    return lambda run: "{:,.0f} ÷ {:,.0f}".format(
        *(run["growth"].rounds(cell, OURS, end)[0] for end in ("most", "least"))
    )


_DENIED: Final = shortcuts.DENIED
_GROWN: Final = growth.RATIOS

TARGETS: Final = (
    Target("256 tasks, 10,000 keys: decisions/s ÷ the fastest peer", "≥", 8, _against(ONE_EACH, *PEERS)),
    Target("the same ÷ redis-py with a bucket script of one's own", "≥", 6, _against(ONE_EACH, BUCKET)),
    Target(
        "1 task: median latency ÷ redis-py, empty script", "≤", 1.25, _against(ALONE, EMPTY, figure="p50_ms")
    ),
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
    Target(
        "denials from memory: decisions/s",
        "≥",
        300_000,
        _figure("shortcuts", shortcuts.CELL, RATE, _DENIED[0]),
    ),
    Target(
        "denials from memory: Redis commands",
        "=",
        0,
        _figure("shortcuts", shortcuts.CELL, "redis_commands", *_DENIED),
    ),
    Target(
        "hot key: leased ÷ coalesced decisions/s",
        "≥",
        3,
        lambda run: run["shortcuts"].ratio(shortcuts.CELL, "leased", "coalesced", RATE),
    ),
    Target(
        "POST /v1/check ÷ a FastAPI POST that does nothing",
        "≥",
        1.3,
        _figure("http", http.BUSIEST, "ratio", "check"),
    ),
    Target(
        "/v1/authorize ÷ a FastAPI POST that does nothing",
        "≥",
        1.8,
        _figure("http", http.BUSIEST, "ratio", "authorize"),
    ),
    Target("POST /v1/check at half load: p99 in ms", "<", 10, _figure("http", http.HALF, "p99_ms", "check")),
    Target(
        "/v1/authorize at half load: p99 in ms", "<", 10, _figure("http", http.HALF, "p99_ms", "authorize")
    ),
    Target(
        "bytes per active key with 3 limits",
        "≤",
        220,
        _figure("memory", memory.ACTIVE, "bytes_per_key", OURS),
        _keys,
    ),
    Target("keys left when idle", "=", 0, _figure("memory", memory.IDLE, "keys_left", OURS)),
    Target(
        "CPU in Redis: many keys ÷ few",
        "≤",
        1.3,
        _figure("growth", _GROWN["keys"], "ratio", OURS),
        _ends(_GROWN["keys"]),
    ),
    Target(
        "CPU in Redis: large burst ÷ small",
        "≤",
        1.1,
        _figure("growth", _GROWN["bursts"], "ratio", OURS),
        _ends(_GROWN["bursts"]),
    ),
    Target(
        "4 processes at one key: admitted ÷ allowed",
        "=",
        1,
        _figure("accuracy", accuracy.DAILY_CELL, "admitted_to_allowed", OURS),
    ),
)
