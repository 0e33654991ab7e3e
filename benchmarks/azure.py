"""An hour of real requests through a running sidecar, every decision checked.

Each request goes to `POST /v1/check` of a sidecar of its own process on a real embedded
Valkey, with its own timestamp and the tokens it really used. Every decision must equal the
plain model's: allowed, violated, retry_after, timestamp, and of each limit remaining,
reset_after and retry_after.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from benchmarks import client
from benchmarks.model import Model, told
from benchmarks.replay import Mismatch, Pace, faults_of, lanes_of, open_trace, play
from benchmarks.report import Result, share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.client import Answer
    from benchmarks.model import Limit, Verdict
    from benchmarks.replay import Replay
    from benchmarks.trace import Request


def run(trace: Path | None = None, rounds: int = 5) -> Result:
    """Run the benchmark.

    Args:
        trace: the trace's file, as `open_trace` takes it.
        rounds: how often all requests are sent, each time with fresh keys.

    Raises:
        TraceError: the file is not the trace.
        SidecarError: the sidecar did not start.
        ClientError: the sidecar did not answer.
    """
    replay = open_trace(trace)
    start = time.perf_counter()
    expected = decide(replay.requests, replay.limits)
    plain = len(expected) / (time.perf_counter() - start)
    pace, mismatches = _measure(replay, expected, rounds)
    return _result(replay, expected, plain, pace, mismatches)


def decide(requests: Sequence[Request], limits: tuple[Limit, ...]) -> list[Verdict]:
    """Return what the plain model says of each request."""
    model = Model(limits)
    return [model.decide(request, request.tokens) for request in requests]


def _measure(replay: Replay, expected: list[Verdict], rounds: int) -> tuple[Pace, list[Mismatch]]:
    pace, mismatches = Pace(), list[Mismatch]()
    lanes = lanes_of(replay.requests)

    def talk(prefix: str) -> list[list[bytes]]:
        return [[_ask(request, replay.plan, prefix) for request in lane] for lane in lanes]

    for took in play("azure", rounds, len(expected), talk):
        pace.note(took)
        for lane, answers in zip(lanes, took.answers, strict=True):
            mismatches += _mismatches(lane, answers, expected)
    return pace, mismatches


def _ask(request: Request, plan: str, prefix: str) -> bytes:
    fields = {
        "key": prefix + request.key,
        "plan": plan,
        "timestamp": request.timestamp,
        "cost": {"tokens": request.tokens},
    }
    return client.post("/v1/check", json.dumps(fields).encode())


def _mismatches(lane: list[Request], answers: list[Answer], expected: list[Verdict]) -> list[Mismatch]:
    verdicts = [told(answer.status, answer.body) for answer in answers]
    return [
        Mismatch(request, f"{request.tokens} tokens", expected[request.row], verdict)
        for request, verdict in zip(lane, verdicts, strict=True)
        if verdict != expected[request.row]
    ]


def _result(
    replay: Replay, expected: list[Verdict], plain: float, pace: Pace, mismatches: list[Mismatch]
) -> Result:
    total, rounds = len(expected), len(pace.rates)
    denied = Counter(name for verdict in expected for name in verdict.violated)
    figures: dict[str, Any] = {
        **replay.figures(),
        "decisions": total * rounds,
        "decisions_a_round": total,
        "denied_a_round": sum(not verdict.allowed for verdict in expected),
        "denied_by_a_round": {state.name: denied[state.name] for state in expected[0].limits},
        "mismatches": len(mismatches),
        **pace.figures(),
        "plain_python_decisions_per_second": plain,
    }
    rows = [*replay.rows(), *_rows(figures), *pace.rows()]
    rows.append(("plain Python", f"{plain:,.0f} decisions/s, in process"))
    title = "The Azure trace through a running sidecar"
    return Result("azure", title, rows, figures, faults_of(mismatches, "decisions"))


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    total, denied = figures["decisions_a_round"], figures["denied_by_a_round"]
    by_limit = ", ".join(f"{name} {share(count, total)}" for name, count in denied.items())
    return [
        ("decisions", f"{figures['decisions']:,} in {figures['rounds']} rounds"),
        ("denied", f"{share(figures['denied_a_round'], total)} a round"),
        ("denied by limit", f"{by_limit}; some by several"),
        ("differ from the model", f"{figures['mismatches']:,}"),
    ]
