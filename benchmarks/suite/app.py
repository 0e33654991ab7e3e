"""What a limiter costs a FastAPI application: ours in each way, and the peers, on one app and one store."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from benchmarks import load, programs
from benchmarks.apps import APPS, PATH
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark

CONNECTIONS: Final = 64
RATE: Final = "requests_per_second"
BARE, HAND = "bare", "by hand"
PEERS: Final = ("slowapi", "fastapi-limiter")
OURS: Final = ("middleware", "dependency")
CELL: Final = Cell(f"{CONNECTIONS} connections", contestants=tuple(APPS))
REQUESTS: Final = [load.get(PATH, {"X-Api-Key": f"sk-bench-{number:07}"}) for number in range(1000)]


@dataclass
class App(Benchmark):
    name = "app"
    title = "A FastAPI application, bare and with limiters, on one real Valkey"
    quick: ClassVar = {"rounds": 3, "flood": 0.7}
    cell = CELL
    rounds: int = 7
    flood: float = 1.5  # seconds of each

    def prepare(self) -> None:
        url = f"redis://{programs.HOST}:{self.server.port}"
        self._addresses = {name: self.stack.enter_context(programs.app(name, url)) for name in APPS}
        for address in self._addresses.values():
            load.flood(address, REQUESTS, CONNECTIONS, 0.3)  # to connect, and to load scripts

    def measure(self, _cell: Cell, name: str, _number: int) -> Mapping[str, float]:
        self.server.empty()
        taken = load.flood(self._addresses[name], REQUESTS, CONNECTIONS, self.flood)
        return {RATE: taken.rate, "client_cores": taken.client_cores}

    def notes(self) -> dict[str, object]:
        return {
            "added_us": "microseconds that a limiter adds to a request of the bare application",
            "to_hand": "what it adds ÷ what the same check by hand adds",
            "lost_to_ours": "requests/s lost against the bare application ÷ those that our middleware loses",
        }

    def conclude(self, found: Found) -> Iterable[str]:
        bare = found.rounds(CELL, BARE, RATE)
        lost = {
            name: [b - r for b, r in zip(bare, found.rounds(CELL, name, RATE), strict=True)] for name in APPS
        }
        added = {
            name: [1e6 / r - 1e6 / b for b, r in zip(bare, found.rounds(CELL, name, RATE), strict=True)]
            for name in APPS
        }
        for name in CELL.contestants[1:]:
            found.add(CELL, name, "added_us", added[name])
        for name in OURS:
            found.add(CELL, name, "to_hand", _ratio(added[name], added[HAND]))
        for name in PEERS:
            found.add(CELL, name, "lost_to_ours", _ratio(lost[name], lost["middleware"]))
        return ()


def _ratio(above: list[float], below: list[float]) -> list[float]:
    """Divide round by round. On a busy machine a limited application may seem faster than the bare one."""
    return [a / max(b, 1e-9) for a, b in zip(above, below, strict=True)]
