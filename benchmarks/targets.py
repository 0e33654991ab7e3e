"""What the figures of one run have to reach, and whether they did."""

import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.contestants import BUCKET, EMPTY, OURS, PEERS, THROTTLED
from benchmarks.figures import Cell, Found, Place, ratio
from benchmarks.suite import accuracy, app, cluster, growth, grpc, history, http, memory, observers, shortcuts
from benchmarks.suite.library import ALONE, ALONE_THREE, ONE_EACH, RATE, THREAD, THREE_EACH

Reached = Callable[[Found], Sequence[float]]  # the rounds of a figure of a run; KeyError if it has none


class Target(NamedTuple):
    what: str
    required: str  # how the median must compare with a number; `=` is required of every round
    reached: Reached
    note: Callable[[Found], str] = lambda _: ""  # what a run measured it of, where that depends on the run


Verdict = dict[str, Any]  # `reached` is median, min and max; without a measurement it and `met` are None


def judge(run: Found) -> list[Verdict]:
    return [target._asdict() | _judge(target, run) for target in TARGETS]


def _judge(target: Target, run: Found) -> Verdict:
    try:
        rounds, note = target.reached(run), target.note(run)
    except KeyError as error:
        missing = ", ".join(str(part) for part in error.args[0] if part)
        return {"reached": None, "met": None, "note": f"not measured: no {missing} in this run"}
    reached = {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds)}
    sense, required = target.required[0], float(target.required[2:].replace(",", ""))
    compare = {"≥": operator.ge, "≤": operator.le, "<": operator.lt, "=": operator.eq}[sense]
    counting = reached.values() if sense == "=" else [reached["median"]]
    return {"reached": reached, "met": all(compare(value, required) for value in counting), "note": note}


def _rounds(cell: Cell, figure: str, *contestants: str) -> Reached:
    return lambda run: [value for name in contestants for value in run.rounds(cell, name, figure)]


def _against(cell: Cell, *names: str, figure: str = RATE) -> Reached:
    """Ours ÷ the largest of these in the same round: for rates, the fastest; of those that took part."""

    def reached(run: Found) -> list[float]:
        places = [Place(cell.label, cell.at, name, figure) for name in names]
        theirs = [run[place] for place in places if place in run] or [run[places[0]]]
        return ratio(run.rounds(cell, OURS, figure), map(max, zip(*theirs, strict=True)))

    return reached


def _note(text: str, cell: Cell, *figures: str) -> Callable[[Found], str]:
    return lambda run: text.format(*(run.rounds(cell, OURS, figure)[0] for figure in figures))


def _ratio(figure: str, above: tuple[Cell, str], below: tuple[Cell, str]) -> Reached:
    return lambda run: ratio(run.rounds(*above, figure), run.rounds(*below, figure))


_KEYS, _BURSTS = (_rounds(growth.RATIOS[sweep], "ratio", OURS) for sweep in ("keys", "bursts"))
_CHECK, _AUTHORIZE = (_rounds(http.BUSIEST, "ratio", name) for name in ("check", "authorize"))
_GRPC: Final = _rounds(grpc.FULL, "ratio", grpc.OURS)
_LATE: Final = _rounds(grpc.HALF, "share_after_20_ms", grpc.OURS)
_METRICS: Final = _rounds(observers.LIBRARY, "share", "metrics")
_FAST: Final = shortcuts.CELL
_LEASED: Final = _ratio(RATE, (_FAST, "leased"), (_FAST, "coalesced"))
_COMMANDS: Final = _rounds(_FAST, "redis_commands", *shortcuts.DENIED)
_ENDS: Final = {s: _note("{:,.0f} ÷ {:,.0f}", cell, "most", "least") for s, cell in growth.RATIOS.items()}
_KEYS_MEASURED: Final = _note("with {:,.0f} keys", memory.ACTIVE, "keys")
_BYTES: Final = _rounds(memory.ACTIVE, "bytes_per_key", OURS)
_ADMITTED: Final = _rounds(accuracy.DAILY_CELL, "admitted_to_allowed", OURS)
_VERIFIED: Final = _rounds(history.CELL, history.RATE, OURS)  # a million in a minute
_CLUSTER_RATE: Final = _rounds(cluster.RATIO, RATE, cluster.THREE)
_CLUSTER_CPU: Final = _rounds(cluster.RATIO, "redis_process_us", cluster.THREE)
_THREE_ALONE: Final = "1 task, 3 limits in 1 check: time in Redis ÷ 1 bucket of throttled-py"
_LATENCY: Final = "1 task: median latency ÷ redis-py, empty script"

THREE_LIMITS: Final = "256 tasks, 3 limits: decisions/s ÷ the fastest peer"
THREAD_TO_PEER: Final = "1 thread: decisions/s ÷ the fastest peer"
DENIALS: Final = "denials from memory: decisions/s"
LEASES: Final = "hot key: leased ÷ coalesced decisions/s"
CHECK: Final = "POST /v1/check ÷ a FastAPI POST that does nothing"
CHECK_P99: Final = "POST /v1/check at half load: p99 in ms"
SLOWAPI: Final = "requests/s lost by slowapi ÷ those lost by our middleware"
FASTAPI_LIMITER: Final = "the same of fastapi-limiter, which has none"
BYTES: Final = "bytes per active key with 3 limits"
"""The targets that the README shows."""

_BY_HAND: Final = _rounds(app.CELL, "to_hand", "middleware")
_SLOWAPI, _SLOWAPI_SILENT, _FASTAPI_LIMITER = (_rounds(app.CELL, "lost_to_ours", name) for name in app.PEERS)

TARGETS: Final = (
    Target("256 tasks, 10,000 keys: decisions/s ÷ the fastest peer", "≥ 8", _against(ONE_EACH, *PEERS)),
    Target("the same ÷ redis-py with a bucket script of one's own", "≥ 6", _against(ONE_EACH, BUCKET)),
    Target(_LATENCY, "≤ 1.25", _against(ALONE, EMPTY, figure="p50_ms")),
    Target("1 thread: decisions/s ÷ redis-py, empty script", "≥ 0.900", _against(THREAD, EMPTY)),
    Target(THREAD_TO_PEER, "≥ 1", _against(THREAD, *PEERS)),
    Target(_THREE_ALONE, "≤ 1.50", _ratio("redis_us", (ALONE_THREE, OURS), (ALONE, THROTTLED))),
    Target("the same of 256 tasks", "≤ 1.50", _ratio("redis_us", (THREE_EACH, OURS), (ONE_EACH, THROTTLED))),
    Target(THREE_LIMITS, "≥ 10", _against(THREE_EACH, *PEERS)),
    Target(DENIALS, "≥ 300,000", _rounds(_FAST, RATE, shortcuts.DENIED[0])),
    Target("denials from memory: Redis commands", "= 0", _COMMANDS),
    Target(LEASES, "≥ 3", _LEASED),
    Target(CHECK, "≥ 1.30", _CHECK),
    Target("/v1/authorize ÷ a FastAPI POST that does nothing", "≥ 1.80", _AUTHORIZE),
    Target(CHECK_P99, "< 10", _rounds(http.HALF, "p99_ms", "check")),
    Target("/v1/authorize at half load: p99 in ms", "< 10", _rounds(http.HALF, "p99_ms", "authorize")),
    Target("middleware: time added to a request ÷ the same check by hand", "≤ 1.15", _BY_HAND),
    Target(SLOWAPI, "≥ 3", _SLOWAPI),
    Target("the same, both without headers", "≥ 3", _SLOWAPI_SILENT),
    Target(FASTAPI_LIMITER, "≥ 3", _FASTAPI_LIMITER),
    Target("metrics: time added to a check ÷ time of POST /v1/check", "≤ 0.05", _METRICS),
    Target("ShouldRateLimit ÷ a grpcio method that does nothing", "≥ 0.600", _GRPC),
    Target("ShouldRateLimit at half load: share of answers after 20 ms", "< 0.001", _LATE),
    Target(BYTES, "≤ 220", _BYTES, _KEYS_MEASURED),
    Target("keys left when idle", "= 0", _rounds(memory.IDLE, "keys_left", OURS)),
    Target("CPU in Redis: many keys ÷ few", "≤ 1.30", _KEYS, _ENDS["keys"]),
    Target("CPU in Redis: large burst ÷ small", "≤ 1.10", _BURSTS, _ENDS["bursts"]),
    Target("cluster: CPU of 3 servers per decision ÷ 1 server", "≤ 1.30", _CLUSTER_CPU),
    Target("cluster: decisions/s of 3 servers ÷ 1 server", "≥ 0.600", _CLUSTER_RATE),
    Target("lines of a history that are verified in a second", "≥ 16,667", _VERIFIED),
    Target("4 processes at one key: admitted ÷ allowed", "= 1", _ADMITTED),
)
