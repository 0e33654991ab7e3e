"""How long checks take while the store is frozen: before, at first, while calls are paused, and after."""

import os
import signal
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple

from benchmarks import load, programs
from benchmarks.figures import Cell, Found, percentile
from benchmarks.runner import Benchmark
from benchmarks.suite.http import KEYS, POLICY

CONNECTIONS: Final = 32
CHECK: Final = "check"
FROZEN: Final = Cell("frozen store", contestants=(CHECK,))
DEADLINE: Final = "50ms"
_OUTAGE: Final = b'"source":"outage"'
_SETTLING: Final = 0.3  # seconds after which calls are paused, and at most the deadline before


class _Answer(NamedTuple):
    sent: float  # seconds, of `time.perf_counter`
    received: float
    is_by_outage: bool


class _Freeze(NamedTuple):
    begin: float  # seconds, of `time.perf_counter`
    end: float


@dataclass
class Frozen(Benchmark):
    name = "frozen"
    title = "A check while the store is frozen, milliseconds"
    quick: ClassVar = {"rounds": 1, "before": 0.5, "frozen": 1.0, "after": 1.5}
    rounds: int = 5
    before: float = 2.0  # seconds of each part
    frozen: float = 3.0
    after: float = 2.0

    def cells(self) -> list[Cell]:
        return [FROZEN]

    def prepare(self) -> None:
        sidecar = programs.sidecar(POLICY, redis=self.server.url, deadline=DEADLINE)
        self._address = self.stack.enter_context(sidecar)

    def measure(self, _cell: Cell, _name: str, _number: int) -> Mapping[str, float]:
        freezes: list[_Freeze] = []
        thread = threading.Thread(target=lambda: freezes.append(self._freeze()))
        thread.start()
        until = time.perf_counter() + self.before + self.frozen + self.after
        answers: list[_Answer] = []
        load.send(self._address, [self._ask(number, until, answers) for number in range(CONNECTIONS)])
        thread.join()
        return _compare(answers, freezes[0])

    def _freeze(self) -> _Freeze:
        process = int(self.server.client.info("server")["process_id"])
        time.sleep(self.before)
        os.kill(process, signal.SIGSTOP)
        begin = time.perf_counter()
        try:
            time.sleep(self.frozen)
        finally:
            os.kill(process, signal.SIGCONT)
        return _Freeze(begin, time.perf_counter())

    @staticmethod
    def _ask(number: int, until: float, answers: list[_Answer]) -> Generator[bytes, bytes, None]:
        request = load.post("/v1/check", {"key": KEYS[number], "plan": "one"})
        while (sent := time.perf_counter()) < until:
            received = yield request
            answers.append(_Answer(sent, time.perf_counter(), _OUTAGE in received))

    def notes(self) -> dict[str, object]:
        return {
            "load": f"{CONNECTIONS} connections, the next check as soon as one is answered",
            "deadline": DEADLINE,
            "first": f"asked at most 50 ms before the store froze, or less than {_SETTLING} s after",
            "back": "from SIGCONT to the first answer of the store",
        }

    def conclude(self, found: Found) -> Iterable[str]:
        if min(found.rounds(FROZEN, CHECK, "by outage")) < 1:
            yield "frozen: some checks waited for the store although it was frozen for a second"


def _compare(answers: list[_Answer], freeze: _Freeze) -> dict[str, float]:
    begin, end = freeze
    parts = {
        "before": [one for one in answers if one.received < begin],
        "first": [one for one in answers if begin - 0.05 <= one.sent < begin + _SETTLING < end],
        "paused": [one for one in answers if begin + _SETTLING <= one.sent and one.received < end],
        "after": [one for one in answers if one.sent > end and not one.is_by_outage],
    }
    figures = {
        f"{part} p{percent:g}": 1e3 * percentile([one.received - one.sent for one in those], percent)
        for part, those in parts.items()
        for percent in (50, 99, 99.9)
    }
    paused = parts["paused"]
    figures["by outage"] = sum(one.is_by_outage for one in paused) / len(paused)
    figures["back"] = 1e3 * (min(one.received for one in parts["after"]) - end)
    return figures
