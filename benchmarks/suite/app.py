"""What a limiter costs a FastAPI application: ours in each way, and the peers, on one app and one store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import httpx

from benchmarks import load, programs
from benchmarks.apps import APPS, CPU, PATH
from benchmarks.figures import Cell, Found, ratio
from benchmarks.runner import Benchmark

CONNECTIONS: Final = 64
RATE: Final = "requests_per_second"
PER_CPU: Final = "requests_per_cpu_second"  # of the application: a busy machine changes it little
BARE, HAND = "bare", "by hand"
PEERS: Final = ("slowapi", "fastapi-limiter")
OURS: Final = ("middleware", "dependency")
CELL: Final = Cell(f"{CONNECTIONS} connections", contestants=tuple(APPS))
REQUESTS: Final = [load.get(PATH, {"X-Api-Key": f"sk-bench-{number:07}"}) for number in range(1000)]


@dataclass
class App(Benchmark):
    name = "app"
    title = "A FastAPI application, bare and with limiters, on one real Valkey"
    quick: ClassVar = {"rounds": 9, "flood": 0.15}
    cell = CELL
    rounds: int = 25
    flood: float = 0.3  # seconds of each

    def prepare(self) -> None:
        url = f"redis://{programs.HOST}:{self.server.port}"
        self._addresses = {name: self.stack.enter_context(programs.app(name, url)) for name in APPS}
        for address in self._addresses.values():
            load.flood(address, REQUESTS, CONNECTIONS, 0.3)  # to connect, and to load scripts

    def measure(self, _cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        self.server.empty()
        address = self._addresses[name]
        cpu = _read_cpu(address)
        taken = load.flood(address, REQUESTS, CONNECTIONS, self.flood)
        spent = _read_cpu(address) - cpu
        return {RATE: taken.rate, PER_CPU: len(taken.latencies) / spent}

    def notes(self) -> dict[str, object]:
        return {
            PER_CPU: "requests ÷ processor time of the application; what follows is made of it",
            "added_us": "processor time that a limiter adds to a request of the bare application",
            "to_hand": "what it adds ÷ what the same check by hand adds",
            "lost_to_ours": f"{PER_CPU} lost against the bare application ÷ those that our middleware loses",
        }

    def conclude(self, found: Found) -> Iterable[str]:
        rates = {name: found.rounds(CELL, name, PER_CPU) for name in APPS}
        bare = rates[BARE]
        lost = {name: [b - r for b, r in zip(bare, rates[name], strict=True)] for name in APPS}
        added = {name: [1e6 / r - 1e6 / b for b, r in zip(bare, rates[name], strict=True)] for name in APPS}
        for name in CELL.contestants[1:]:
            found.add(CELL, name, "added_us", added[name])
        for name in OURS:
            found.add(CELL, name, "to_hand", ratio(added[name], added[HAND]))
        for name in PEERS:
            found.add(CELL, name, "lost_to_ours", ratio(lost[name], lost["middleware"]))
        return ()


def _read_cpu(address: programs.Address) -> float:
    """Return the seconds of processor time that an application has taken."""
    host, port = address
    return float(httpx.get(f"http://{host}:{port}{CPU}", trust_env=False, timeout=30).text)
