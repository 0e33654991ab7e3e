"""What Envoy's rate-limit service costs, beside a method of grpcio that does nothing."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from benchmarks import grpc_load, programs
from benchmarks.figures import Cell, Found, percentile
from benchmarks.runner import Benchmark
from benchmarks.suite.http import BASE, KEYS, POLICY, RATE

OURS: Final = "ShouldRateLimit"
TASKS: Final = 64
TIMEOUT: Final = 0.020  # seconds: Envoy's own default
MESSAGES: Final = [grpc_load.message(key) for key in KEYS]
FULL: Final = Cell(f"{TASKS} calls at once", contestants=(BASE, OURS))
HALF: Final = Cell("half load over gRPC", phase="half load", contestants=(OURS,))


@dataclass
class Grpc(Benchmark):
    name = "grpc"
    title = "Envoy's rate-limit service beside a method of grpcio that does nothing"
    quick: ClassVar = {"rounds": 3, "flood": 0.7, "pace": 1.0}
    rounds: int = 5
    flood: float = 1.0  # seconds of each
    pace: float = 2.0  # likewise

    def cells(self) -> list[Cell]:
        return [FULL, HALF]

    def prepare(self) -> None:
        port = programs.free_port()
        self.stack.enter_context(programs.sidecar(POLICY, grpc_port=str(port)))
        _, noop = self.stack.enter_context(programs.noop("grpc_noop"))
        self._ports, self._most = {OURS: port, BASE: noop}, defaultdict[str, list[float]](list)

    def measure(self, cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        port = self._ports[name]
        if cell.label == HALF.label:
            rate = statistics.median(self._most[name]) / 2
            load = grpc_load.pace(port, MESSAGES, TASKS, self.pace, rate)
            late = sum(latency > TIMEOUT for latency in load.latencies) / len(load.latencies)
            return {
                RATE: load.rate,
                "p99_ms": 1000 * percentile(load.latencies, 99),
                "share_after_20_ms": late,
            }
        load = grpc_load.flood(port, MESSAGES, TASKS, self.flood)
        self._most[name].append(load.rate)
        p50 = 1000 * percentile(load.latencies, 50)
        return {RATE: load.rate, "p50_ms": p50, "client_cores": load.client_cores}

    def conclude(self, found: Found) -> Iterable[str]:
        found.add(FULL, OURS, "ratio", found.ratio(FULL, OURS, BASE, RATE))
        return ()
