"""What the sidecar's two hot endpoints cost, beside an endpoint that decides nothing.

`POST /v1/check` and `/v1/authorize` on a real embedded Valkey are held against a no-op FastAPI
endpoint with the same models on the same server with the same flags, in turn, so that a busy
moment of the machine meets them all. First as much as each takes, then p99 at half of that, sent on
a schedule that does not wait for answers.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import client, load, noop, sidecar
from benchmarks.load import Load
from benchmarks.replay import HERE
from benchmarks.report import Result, percentile, progress, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

POLICY: Final = HERE / "policies" / "http.yaml"
CONNECTIONS: Final = (1, 8, 64)
KEYS: Final = 1000
BASE: Final = "noop"
PACED: Final = (BASE, "check", "authorize")
"""Whose p99 is taken at half load."""

_DEADLINE: Final = "5s"  # a busy machine is not an outage, whose answers would be cheaper


@dataclass(frozen=True, slots=True)
class Size:
    """How much to measure: rounds, and seconds of each measurement in one."""

    rounds: int = 5
    flood: float = 0.7
    pace: float = 1.2


QUICK: Final = Size(2, 0.3, 0.8)


@dataclass(frozen=True, slots=True)
class Contestant:
    """One endpoint: where it is, and what it is asked."""

    name: str
    address: tuple[str, int]
    requests: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Measured:
    """All loads: floods by connections and name, paces by name, a load a round."""

    floods: dict[int, dict[str, list[Load]]]
    paces: dict[str, list[Load]]


def run(quick: bool = False, size: Size | None = None) -> Result:  # noqa: FBT001, FBT002 - a command's flag
    """Run the benchmark, in about 75 seconds, or 15 if it is to be quick.

    Raises:
        SidecarError: a server did not start.
        ClientError: an answer was missing, or not 200.
    """
    size = size or (QUICK if quick else Size())
    with noop.running() as base, sidecar.running(POLICY, deadline=_DEADLINE) as target:
        measured = _measure(_contestants(base, (target.host, target.port)), size)
    figures = _figures(measured)
    title = "The sidecar beside a FastAPI endpoint that decides nothing"
    return Result("http", title, _rows(figures), figures)


def _contestants(base: tuple[str, int], target: tuple[str, int]) -> list[Contestant]:
    keys = [f"vk_bench_{number:07}" for number in range(KEYS)]
    return [
        Contestant(BASE, base, [_post(noop.PATH, key, "one") for key in keys]),
        Contestant("check", target, [_post("/v1/check", key, "one") for key in keys]),
        Contestant("check_three_limits", target, [_post("/v1/check", key, "three") for key in keys]),
        Contestant("authorize", target, [_get(key, "one") for key in keys]),
        Contestant("authorize_three_limits", target, [_get(key, "three") for key in keys]),
    ]


def _post(path: str, key: str, plan: str) -> bytes:
    return client.post(path, json.dumps({"key": key, "plan": plan, "cost": {"requests": 1}}).encode())


def _get(key: str, plan: str) -> bytes:
    lines = ("GET /v1/authorize HTTP/1.1", "Host: sidecar", f"X-RateLimit-Key: {key}")
    return "\r\n".join((*lines, f"X-RateLimit-Plan: {plan}", "", "")).encode()


def _measure(contestants: Sequence[Contestant], size: Size) -> Measured:
    floods = {count: {one.name: list[Load]() for one in contestants} for count in CONNECTIONS}
    paces = {name: list[Load]() for name in PACED}
    steps = size.rounds * (len(CONNECTIONS) * len(contestants) + len(paces))
    with progress() as bar:
        task = bar.add_task("http", total=steps)
        for _ in range(size.rounds):
            for count in CONNECTIONS:
                for one in contestants:
                    taken = load.flood(one.address, one.requests, count, size.flood)
                    floods[count][one.name].append(taken)
                    bar.advance(task)
        for _ in range(size.rounds):
            for one in contestants:
                if one.name in paces:
                    most = statistics.median(_rates(floods[CONNECTIONS[-1]][one.name]))
                    taken = load.pace(one.address, one.requests, CONNECTIONS[-1], size.pace, most / 2)
                    paces[one.name].append(taken)
                    bar.advance(task)
    return Measured(floods, paces)


def _rates(loads: Sequence[Load]) -> list[float]:
    return [taken.rate for taken in loads]


def _ratios(loads: dict[str, list[Load]]) -> dict[str, dict[str, float]]:
    """Return how many times the no-op's rate of the same round each had."""
    base = _rates(loads[BASE])
    return {
        name: spread([rate / other for rate, other in zip(_rates(taken), base, strict=True)])
        for name, taken in loads.items()
        if name != BASE
    }


def _figures(measured: Measured) -> dict[str, Any]:
    half = {
        name: spread([1000 * percentile(taken.latencies, 99) for taken in loads])
        for name, loads in measured.paces.items()
    }
    return {
        "rounds": len(measured.paces[BASE]),
        "keys": KEYS,
        "ratios": _ratios(measured.floods[CONNECTIONS[-1]]),
        "half_load_p99_ms": half,
        "half_load_requests_per_second": {
            name: statistics.median(_rates(loads)) for name, loads in measured.paces.items()
        },
        "by_connections": {
            str(count): {
                name: {
                    "requests_per_second": spread(_rates(taken)),
                    "ratio": _ratios(loads).get(name),
                    "p50_ms": _each(taken, lambda one: 1000 * percentile(one.latencies, 50)),
                    "client_cores": _each(taken, lambda one: one.client_cores),
                }
                for name, taken in loads.items()
            }
            for count, loads in measured.floods.items()
        },
    }


def _each(loads: Sequence[Load], figure: Callable[[Load], float]) -> float:
    return statistics.median([figure(taken) for taken in loads])


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("requests/s", f"median of {figures['rounds']} rounds; ratio to the no-op's of the same round")]
    for count, contestants in figures["by_connections"].items():
        rows.append(("1 connection" if count == "1" else f"{count} connections", ""))
        rows += [(f"  {_said(name)}", _row(one)) for name, one in contestants.items()]
    rows.append(("p99 at half load", f"{CONNECTIONS[-1]} connections, counted from when a request was due"))
    for name, p99 in figures["half_load_p99_ms"].items():
        rate = figures["half_load_requests_per_second"][name]
        told = f"{p99['median']:.1f} ms ({p99['min']:.1f} to {p99['max']:.1f}) at {rate:,.0f} requests/s"
        rows.append((f"  {_said(name)}", told))
    return rows


def _said(name: str) -> str:
    return name.replace("_", " ")


def _row(one: dict[str, Any]) -> str:
    rate, ratio = one["requests_per_second"]["median"], one["ratio"]
    times = f", {ratio['median']:.2f} times ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else ""
    return f"{rate:,.0f}{times}; p50 {one['p50_ms']:.2f} ms, client {one['client_cores']:.2f} of a core"
