"""What the sidecar's two hot endpoints cost, beside an endpoint that decides nothing."""

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from benchmarks import load, noop, programs
from benchmarks.figures import Cell, Found, percentile
from benchmarks.runner import Benchmark

POLICY: Final = programs.HERE / "policies" / "http.yaml"
CONNECTIONS: Final = (1, 8, 64)
KEYS: Final = tuple(f"vk_bench_{number:07}" for number in range(1000))
BASE: Final = "noop"


def _requests(path: str, plan: str) -> list[bytes]:
    if path == "/v1/authorize":
        return [load.get(path, {"X-RateLimit-Key": key, "X-RateLimit-Plan": plan}) for key in KEYS]
    return [load.post(path, {"key": key, "plan": plan, "cost": {"requests": 1}}) for key in KEYS]


REQUESTS: Final = {
    BASE: _requests(noop.PATH, "one"),
    "check": _requests("/v1/check", "one"),
    "check_three_limits": _requests("/v1/check", "three"),
    "authorize": _requests("/v1/authorize", "one"),
    "authorize_three_limits": _requests("/v1/authorize", "three"),
}
BUSIEST: Final = Cell("connections", at=CONNECTIONS[-1], contestants=tuple(REQUESTS))
HALF: Final = Cell("half load", phase="half load", contestants=(BASE, "check", "authorize"))
RATE: Final = "requests_per_second"


@dataclass
class Http(Benchmark):
    name = "http"
    title = "The sidecar beside a FastAPI endpoint that decides nothing"
    quick: ClassVar = {"rounds": 2, "flood": 0.3, "pace": 0.8}
    rounds: int = 5
    flood: float = 0.7  # seconds of each
    pace: float = 1.2  # likewise

    def cells(self) -> list[Cell]:
        return [*(replace(BUSIEST, at=count) for count in CONNECTIONS), HALF]

    def prepare(self) -> None:
        target = self.stack.enter_context(programs.sidecar(POLICY))
        self._addresses = dict.fromkeys(REQUESTS, target) | {BASE: self.stack.enter_context(programs.noop())}
        self._most: dict[str, list[float]] = defaultdict(list)

    def measure(self, cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        where = self._addresses[name], REQUESTS[name]
        if cell.at is None:
            rate = statistics.median(self._most[name]) / 2
            taken = load.pace(*where, CONNECTIONS[-1], self.pace, rate)
            return {RATE: taken.rate, "p99_ms": 1000 * percentile(taken.latencies, 99)}
        taken = load.flood(*where, cell.at, self.flood)
        if cell.at == BUSIEST.at:
            self._most[name].append(taken.rate)
        p50 = 1000 * percentile(taken.latencies, 50)
        return {RATE: taken.rate, "p50_ms": p50, "client_cores": taken.client_cores}

    def notes(self) -> dict[str, object]:
        return {"half load": f"{CONNECTIONS[-1]} connections, counted from when a request was due"}

    def conclude(self, found: Found) -> Iterable[str]:
        for cell, name in itertools.product(self.cells()[:-1], BUSIEST.contestants[1:]):
            found.add(cell, name, "ratio", found.ratio(cell, name, BASE, RATE))
        return ()
