"""What all replays of the Azure trace share: the trace, its way to the sidecar, and what is said of it.

A replay sends each request to a running sidecar with its own timestamp (`max_skew: none`) and
holds every answer against the plain model's. A key's requests must arrive in the trace's order
for that, so one key always travels on one connection. Connections run beside each other: keys
share no buckets.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import client, sidecar
from benchmarks.model import limits_of
from benchmarks.report import percentile, progress, spread
from benchmarks.trace import KEYS, RULE, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from benchmarks.client import Run
    from benchmarks.model import Limit, Settled, Verdict
    from benchmarks.trace import Request

HERE: Final = Path(__file__).resolve().parent
TRACE: Final = sidecar.ROOT.parent / "shared" / "data" / "azure_llm_inference_2023_code.csv"
EXCERPT: Final = HERE / "data" / "azure_excerpt.csv"
POLICY: Final = HERE / "policies" / "azure.yaml"

CONNECTIONS: Final = 8
"""Enough to keep one sidecar busy; more would leave the busiest key's connection working alone at the end."""

_DEADLINE: Final = "5s"  # a busy machine is not an outage, and an outage's answers are nobody's figure
_SHORT: Final = 30 * 60 * 1_000_000  # microseconds; less of the trace is held to the plan `minutes`
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Replay:
    """What is replayed.

    Attributes:
        requests: the trace in its own order.
        source: the file and how much is in it, for people.
        plan: the plan of `POLICY` that the requests are held to.
        limits: the limits of that plan, as the model reads them.
    """

    requests: list[Request]
    source: str
    plan: str
    limits: tuple[Limit, ...]

    def figures(self) -> dict[str, Any]:
        """Return what was replayed, for machines."""
        return {"trace": self.source, "keys": {"count": KEYS, "rule": RULE}, "plan": self.plan}

    def rows(self) -> list[tuple[str, str]]:
        """Return what was replayed, for people."""
        return [("trace", self.source), ("keys", RULE), ("policy", f"{POLICY.name}, plan {self.plan}")]


def open_trace(trace: Path | None) -> Replay:
    """Read the trace, and choose the limits that suit its length.

    Args:
        trace: the trace's file; unless given, the whole trace beside the checkout, or else
            the excerpt that is part of the project.

    Raises:
        TraceError: the file is not the trace.
    """
    path = trace or (TRACE if TRACE.is_file() else EXCERPT)
    requests = read_trace(path)
    plan = "minutes" if requests[-1].at - requests[0].at < _SHORT else "hour"
    source = f"{path.name}: {len(requests):,} requests"
    if trace is None and path == EXCERPT:
        source += f"; the whole trace is not at ../shared/data/{TRACE.name}, name it with --trace"
    return Replay(requests, source, plan, limits_of(POLICY, plan))


def lanes_of(requests: Sequence[Request], lanes: int = CONNECTIONS) -> list[list[Request]]:
    """Share the keys out over connections: the busiest first, each to the one with least to do."""
    load = [0] * lanes
    lane_of: dict[str, int] = {}
    for key, count in Counter(request.key for request in requests).most_common():
        lane_of[key] = load.index(min(load))
        load[lane_of[key]] += count
    return [[request for request in requests if lane_of[request.key] == lane] for lane in range(lanes)]


def play(
    name: str, rounds: int, answers: int, talk: Callable[[str], Sequence[Iterable[bytes]]], **settings: str
) -> Iterator[Run]:
    """Send the same lanes several times, each time with keys of their own.

    The sidecar runs on while a round is looked at.

    Args:
        name: what to call it while it runs.
        rounds: how often.
        answers: how many are expected a round.
        talk: makes the lanes of a round; is given what to put before each key.
        **settings: more flags of the sidecar.

    Raises:
        SidecarError: the sidecar did not start.
        ClientError: the sidecar did not answer.
    """
    with (
        sidecar.running(POLICY, max_skew="none", deadline=_DEADLINE, **settings) as target,
        progress() as bar,
    ):
        task = bar.add_task(name, total=rounds * answers)
        for number in range(rounds):
            yield client.send(
                target.host,
                target.port,
                talk(f"r{number}-"),
                on_answers=lambda more: bar.advance(task, more),
            )


@dataclass(slots=True)
class Pace:
    """How fast the rounds were: requests a second, the client's share of a core, seconds to each answer."""

    rates: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def note(self, run: Run) -> None:
        """Add a round."""
        count = sum(len(lane) for lane in run.answers)
        self.rates.append(count / run.seconds)
        self.client_cores.append(run.cpu / run.seconds)
        self.latencies += (answer.latency for lane in run.answers for answer in lane)

    def figures(self) -> dict[str, Any]:
        """Return the pace for machines."""
        return {
            "rounds": len(self.rates),
            "connections": CONNECTIONS,
            "requests_per_second": {**spread(self.rates), "rounds": self.rates},
            "latency_ms": {f"p{p}": 1000 * percentile(self.latencies, p) for p in (50, 99)},
            "client_cores": spread(self.client_cores),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return the pace for people."""
        figures = self.figures()
        rate, latency = figures["requests_per_second"], figures["latency_ms"]
        return [
            ("requests/s", f"{rate['median']:,.0f} median ({rate['min']:,.0f} to {rate['max']:,.0f})"),
            (
                "latency",
                f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, {CONNECTIONS} connections",
            ),
            ("client", f"{figures['client_cores']['median']:.2f} of a core"),
        ]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One request that the two sides answered differently; `asked` says what for."""

    request: Request
    asked: str
    model: Verdict | Settled
    sidecar: Verdict | Settled | str

    def __str__(self) -> str:
        request = self.request
        asked = f"row {request.row}: {request.key} at {request.timestamp}, {self.asked}"
        ours, theirs = self.model.members(), self.sidecar
        if not isinstance(theirs, str):
            other = theirs.members()
            differ = [name for name in {**ours, **other} if ours.get(name) != other.get(name)]
            theirs = ", ".join(f"{name} {other.get(name)}" for name in differ)
            ours = {name: ours.get(name) for name in differ}
        expected = ", ".join(f"{name} {value}" for name, value in ours.items())
        return f"{asked}\n  model    {expected}\n  sidecar  {theirs}"


def faults_of(mismatches: Sequence[Mismatch], what: str) -> list[str]:
    """Say how many of `what` differ, and show the first of them: what follows may follow from those."""
    if not mismatches:
        return []
    first = sorted(mismatches, key=lambda mismatch: mismatch.request.row)[:_SHOWN]
    return [f"{len(mismatches):,} {what} differ from the model's, such as:", *map(str, first)]
