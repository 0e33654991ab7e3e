"""An hour of real requests through a running sidecar, every decision checked.

Each request goes to `POST /v1/check` of a sidecar of its own process on a real embedded
Valkey, with its own timestamp (`max_skew: none`) and the tokens it really used. Every decision
must equal the plain model's: allowed, violated, retry_after, timestamp, and of each
limit remaining, reset_after and retry_after.

A key's requests must arrive in the trace's order for that, so one key always travels on one
connection. Connections run beside each other: keys share no buckets.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import client, sidecar
from benchmarks.model import Model, limits_of, told
from benchmarks.report import Result, percentile, progress, spread
from benchmarks.trace import KEYS, RULE, read_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.client import Answer, Run
    from benchmarks.model import Limit, Verdict
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
class Mismatch:
    """One request that the two sides answered differently."""

    request: Request
    model: Verdict
    sidecar: Verdict | str

    def __str__(self) -> str:
        request = self.request
        asked = f"row {request.row}: {request.key} at {request.timestamp}, {request.tokens} tokens"
        ours, theirs = self.model.members(), self.sidecar
        if not isinstance(theirs, str):
            other = theirs.members()
            differ = [name for name in {**ours, **other} if ours.get(name) != other.get(name)]
            theirs = ", ".join(f"{name} {other.get(name)}" for name in differ)
            ours = {name: ours.get(name) for name in differ}
        expected = ", ".join(f"{name} {value}" for name, value in ours.items())
        return f"{asked}\n  model    {expected}\n  sidecar  {theirs}"


@dataclass(slots=True)
class Measured:
    """What the rounds add up to."""

    rates: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    mismatches: list[Mismatch] = field(default_factory=list)


def run(trace: Path | None = None, rounds: int = 5) -> Result:
    """Run the benchmark.

    Args:
        trace: the trace's file; unless given, the whole trace beside the checkout, or else
            the excerpt that is part of the project.
        rounds: how often all requests are sent, each time with fresh keys.

    Raises:
        TraceError: the file is not the trace.
        SidecarError: the sidecar did not start.
        ClientError: the sidecar did not answer.
    """
    path = trace or (TRACE if TRACE.is_file() else EXCERPT)
    requests = read_trace(path)
    plan = "minutes" if requests[-1].at - requests[0].at < _SHORT else "hour"
    start = time.perf_counter()
    expected = decide(requests, limits_of(POLICY, plan))
    plain = len(requests) / (time.perf_counter() - start)
    measured = _measure(requests, expected, plan, rounds)
    source = f"{path.name}: {len(requests):,} requests"
    if trace is None and path == EXCERPT:
        source += f"; the whole trace is not at ../shared/data/{TRACE.name}, name it with --trace"
    return _result(source, plan, expected, plain, measured)


def decide(requests: Sequence[Request], limits: tuple[Limit, ...]) -> list[Verdict]:
    """Return what the plain model says of each request."""
    model = Model(limits)
    return [model.decide(request) for request in requests]


def _measure(requests: list[Request], expected: list[Verdict], plan: str, rounds: int) -> Measured:
    measured = Measured()
    lanes = lanes_of(requests, CONNECTIONS)
    with (
        sidecar.running(POLICY, max_skew="none", deadline=_DEADLINE) as target,
        progress() as bar,
    ):
        task = bar.add_task("azure", total=rounds * len(requests))
        for number in range(rounds):
            asked = [[_ask(request, plan, f"r{number}-") for request in lane] for lane in lanes]
            took = client.send(
                target.host, target.port, asked, on_answers=lambda more: bar.advance(task, more)
            )
            _note(measured, took, lanes, expected)
    return measured


def lanes_of(requests: Sequence[Request], lanes: int) -> list[list[Request]]:
    """Share the keys out over connections: the busiest first, each to the one with least to do."""
    load = [0] * lanes
    lane_of: dict[str, int] = {}
    for key, count in Counter(request.key for request in requests).most_common():
        lane_of[key] = load.index(min(load))
        load[lane_of[key]] += count
    return [[request for request in requests if lane_of[request.key] == lane] for lane in range(lanes)]


def _ask(request: Request, plan: str, prefix: str) -> bytes:
    fields = {
        "key": prefix + request.key,
        "plan": plan,
        "timestamp": request.timestamp,
        "cost": {"tokens": request.tokens},
    }
    return client.post("/v1/check", json.dumps(fields).encode())


def _note(measured: Measured, took: Run, lanes: list[list[Request]], expected: list[Verdict]) -> None:
    count = sum(len(lane) for lane in lanes)
    measured.rates.append(count / took.seconds)
    measured.client_cores.append(took.cpu / took.seconds)
    for lane, answers in zip(lanes, took.answers, strict=True):
        measured.latencies += (answer.latency for answer in answers)
        measured.mismatches += _mismatches(lane, answers, expected)


def _mismatches(lane: list[Request], answers: list[Answer], expected: list[Verdict]) -> list[Mismatch]:
    verdicts = [told(answer.status, answer.body) for answer in answers]
    return [
        Mismatch(request, expected[request.row], verdict)
        for request, verdict in zip(lane, verdicts, strict=True)
        if verdict != expected[request.row]
    ]


def _result(source: str, plan: str, expected: list[Verdict], plain: float, measured: Measured) -> Result:
    total, rounds = len(expected), len(measured.rates)
    denied = Counter(name for verdict in expected for name in verdict.violated)
    figures: dict[str, Any] = {
        "trace": source,
        "keys": {"count": KEYS, "rule": RULE},
        "plan": plan,
        "rounds": rounds,
        "connections": CONNECTIONS,
        "decisions": total * rounds,
        "decisions_a_round": total,
        "denied_a_round": sum(not verdict.allowed for verdict in expected),
        "denied_by_a_round": {state.name: denied[state.name] for state in expected[0].limits},
        "mismatches": len(measured.mismatches),
        "requests_per_second": {**spread(measured.rates), "rounds": measured.rates},
        "latency_ms": {f"p{p}": 1000 * percentile(measured.latencies, p) for p in (50, 99)},
        "client_cores": spread(measured.client_cores),
        "plain_python_decisions_per_second": plain,
    }
    first = sorted(measured.mismatches, key=lambda mismatch: mismatch.request.row)[:_SHOWN]
    faults = [f"{len(measured.mismatches):,} decisions differ from the model's, such as:"] if first else []
    faults += [str(mismatch) for mismatch in first]
    return Result("azure", "The Azure trace through a running sidecar", _rows(figures), figures, faults)


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    total, rate, latency = figures["decisions_a_round"], figures["requests_per_second"], figures["latency_ms"]

    def share(count: int) -> str:
        return f"{count:,} ({count / total:.0%})"

    by_limit = ", ".join(f"{name} {share(count)}" for name, count in figures["denied_by_a_round"].items())
    return [
        ("trace", figures["trace"]),
        ("keys", figures["keys"]["rule"]),
        ("policy", f"{POLICY.name}, plan {figures['plan']}"),
        ("decisions", f"{figures['decisions']:,} in {figures['rounds']} rounds"),
        ("denied", f"{share(figures['denied_a_round'])} a round"),
        ("denied by limit", f"{by_limit}; some by several"),
        ("differ from the model", f"{figures['mismatches']:,}"),
        ("requests/s", f"{rate['median']:,.0f} median ({rate['min']:,.0f} to {rate['max']:,.0f})"),
        ("latency", f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, {CONNECTIONS} connections"),
        ("client", f"{figures['client_cores']['median']:.2f} of a core"),
        ("plain Python", f"{figures['plain_python_decisions_per_second']:,.0f} decisions/s, in process"),
    ]
