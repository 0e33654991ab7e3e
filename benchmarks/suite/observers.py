"""What metrics, the log and the sketches cost a check, as a share of the time of `POST /v1/check`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from benchmarks import load, programs
from benchmarks.contestants import OBSERVED, OURS
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark
from benchmarks.suite.http import KEYS, POLICY, RATE, REQUESTS
from benchmarks.worker import Order
from benchmarks.workload import THREE

CONNECTIONS: Final = 64
LIBRARY: Final = Cell("64 tasks, 3 limits", contestants=(OURS, *OBSERVED))
SIDECAR: Final = Cell("POST /v1/check", contestants=("check_three_limits",))


@dataclass
class Observers(Benchmark):
    name = "observers"
    title = "What metrics, the log of denials and the sketches cost a check"
    quick: ClassVar = {"rounds": 3, "seconds": 0.3}
    rounds: int = 5
    seconds: float = 0.7  # of each

    def cells(self) -> list[Cell]:
        return [LIBRARY, SIDECAR]

    def prepare(self) -> None:
        self._sidecar = self.stack.enter_context(programs.sidecar(POLICY))

    def measure(self, cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        if cell.label == SIDECAR.label:
            rate = load.flood(self._sidecar, REQUESTS[name], CONNECTIONS, self.seconds).rate
            return {RATE: rate, "microseconds": 1e6 / rate}
        [worker] = self.crew.hire(LIBRARY.contestants, "asyncio")[name]
        order = Order(self.server.url, THREE, len(KEYS), "observed-", CONNECTIONS, seconds=self.seconds)
        worker.meet(order)
        figures = worker.measure(self.server, order)
        return {name: figures[name] for name in ("decisions_per_second", "client_cpu_us")}

    def notes(self) -> dict[str, object]:
        return {
            "share": "processor time that the observers add to a check ÷ time of a request to the sidecar"
        }

    def conclude(self, found: Found) -> Iterable[str]:
        plain = found.rounds(LIBRARY, OURS, "client_cpu_us")
        [sidecar] = SIDECAR.contestants
        request = found.rounds(SIDECAR, sidecar, "microseconds")
        for name in OBSERVED:
            watched = found.rounds(LIBRARY, name, "client_cpu_us")
            added = [with_it - without for with_it, without in zip(watched, plain, strict=True)]
            found.add(LIBRARY, name, "added_us", added)
            shares = [more / whole for more, whole in zip(added, request, strict=True)]
            found.add(LIBRARY, name, "share", shares)
        return ()
