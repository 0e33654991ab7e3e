"""An hour of real requests through a running sidecar, every answer checked: `azure` and `azure-reserve`."""

import re
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import polars as pl

from benchmarks import model, programs
from benchmarks.figures import Cell, Found, percentile
from benchmarks.load import Answer, post, send
from benchmarks.model import Buckets, Facts, Model, Request, read_decision, read_settlement
from benchmarks.runner import Benchmark

TRACE: Final = programs.ROOT.parent / "shared" / "data" / "azure_llm_inference_2023_code.csv"
EXCERPT: Final = programs.HERE / "data" / "azure_excerpt.csv"
POLICY: Final = programs.HERE / "policies" / "azure.yaml"
SIDECAR: Final = "sidecar"
ESTIMATE: Final = 512  # output tokens that each request reserves, however long its answer will be
CONNECTIONS: Final = 8  # keep one sidecar busy; with more, the busiest key's would work alone at the end
_SHORT: Final = 30 * 60 * model.MICROSECONDS  # a shorter part of the trace gets the plan `minutes`
_SHOWN: Final = 5
_NOT_SETTLED: Final[Facts] = {"answer": "no reservation"}


def mismatch(request: Request, what: str, model: Facts, sidecar: Facts) -> str:
    differ = [name for name in {**model, **sidecar} if model.get(name) != sidecar.get(name)]
    sides = [", ".join(f"{name} {side.get(name)}" for name in differ) for side in (model, sidecar)]
    place = f"row {request.row}: {request.key} at {request.timestamp}, {what}"
    return f"{place}\n  model    {sides[0]}\n  sidecar  {sides[1]}"


def lanes_of(requests: Sequence[Request], lanes: int = CONNECTIONS) -> list[list[Request]]:
    """Share the keys out over connections: the busiest first, each to the one with least to do."""
    load = [0] * lanes
    lane_of: dict[str, int] = {}
    for key, count in Counter(request.key for request in requests).most_common():
        lane_of[key] = load.index(min(load))
        load[lane_of[key]] += count
    return [[request for request in requests if lane_of[request.key] == lane] for lane in range(lanes)]


@dataclass
class Azure(Benchmark):
    name = "azure"
    title = "The Azure trace through a running sidecar"
    quick: ClassVar = {"rounds": 1}
    cell = Cell("replay", contestants=(SIDECAR,))
    reserves: ClassVar = False  # whether a check reserves an estimate, which is settled afterwards
    trace: Path | None = None  # unless given, the whole trace beside the checkout, or else the excerpt
    rounds: int = 5  # each with fresh keys
    mismatches: list[tuple[int, str]] = field(init=False, default_factory=list)  # with the row of each
    decisions: list[Facts] = field(init=False, default_factory=list)  # what the model expects
    settlements: dict[int, Facts] = field(init=False, default_factory=dict)  # likewise, by row
    ends: list[str] = field(init=False, default_factory=list)  # buckets that differ at the end of a round
    _latencies: list[float] = field(init=False, default_factory=list)

    def prepare(self) -> None:
        path = self.trace or (TRACE if TRACE.is_file() else EXCERPT)
        self.requests = model.read_trace(path)
        self._lanes = lanes_of(self.requests)
        self.plan = "minutes" if self.requests[-1].at - self.requests[0].at < _SHORT else "hour"
        self._source = f"{path.name}: {len(self.requests):,} requests"
        if self.trace is None and path == EXCERPT:
            self._source += f"; the whole trace is not at ../shared/data/{TRACE.name}, name it with --trace"
        self.model = Model(model.limits_of(POLICY, self.plan))
        start = time.perf_counter()
        self.expect()
        self._plain = len(self.requests) / (time.perf_counter() - start)
        sidecar = programs.sidecar(POLICY, max_skew="none", redis=self.server.url)
        self._address = self.stack.enter_context(sidecar)

    def expect(self) -> None:
        for request in self.requests:
            self.decisions.append(self.model.decide(request, self.cost_of(request)))
            if self.reserves and self.decisions[-1]["allowed"]:
                more = request.tokens - self.cost_of(request)
                self.settlements[request.row] = self.model.settle(request, more)

    def cost_of(self, request: Request) -> int:
        return request.context + ESTIMATE if self.reserves else request.tokens

    def measure(self, _cell: Cell, _contestant: str, number: int) -> Mapping[str, float]:
        prefix = f"r{number}-"
        load = send(self._address, [self.talk(lane, prefix) for lane in self._lanes])
        self._latencies += load.latencies
        for lane, answers in zip(self._lanes, load.answers, strict=True):
            self.compare(lane, answers)
        store = model.stored_buckets(self.server.client, {request.key for request in self.requests}, prefix)
        self.ends += differences(self.model.buckets, store)
        return {"requests_per_second": load.rate, "client_cores": load.client_cores}

    def talk(self, lane: list[Request], prefix: str) -> Generator[bytes, bytes, None]:
        """Check each request, and settle it before the next if the sidecar reserved something for it."""
        for request in lane:
            check: dict[str, object] = {
                "key": prefix + request.key,
                "plan": self.plan,
                "timestamp": request.timestamp,
            }
            check |= {"cost": {"tokens": self.cost_of(request)}} | (
                {"reserve": True} if self.reserves else {}
            )
            if reservation := reservation_in((yield post("/v1/check", check))):
                tokens = {"input_tokens": request.context, "output_tokens": request.generated}
                fields = {"reservation": reservation, "timestamp": request.timestamp, "status": 200}
                yield post("/v1/settle", fields | tokens)

    def compare(self, lane: list[Request], answers: list[Answer]) -> None:
        """Note answers that differ from the model's; where the check does, its settlement is not compared."""
        left = iter(answers)
        for request in lane:
            check, cost = next(left), f"{self.cost_of(request)} tokens"
            settled = read_settlement(next(left)) if reservation_in(check.body) else _NOT_SETTLED
            decision, settlement = (
                self.decisions[request.row],
                self.settlements.get(request.row, _NOT_SETTLED),
            )
            if decision != (sidecar := read_decision(check)):
                self.mismatches.append((request.row, mismatch(request, cost, decision, sidecar)))
            elif settlement != settled:
                what = f"{request.tokens} tokens settled for {cost}"
                self.mismatches.append((request.row, mismatch(request, what, settlement, settled)))

    def conclude(self, found: Found) -> Iterator[str]:
        denied = [facts["violated"] for facts in self.decisions if not facts["allowed"]]
        by_limit = Counter(name for names in denied if isinstance(names, list) for name in names)
        figures = {
            **{f"p{p}_ms": 1000 * percentile(self._latencies, p) for p in (50, 99)},
            "decisions": self.rounds * len(self.decisions),
            "decisions_a_round": len(self.decisions),
            "denied_a_round": len(denied),
            **{f"denied_by_{limit.name}_a_round": by_limit[limit.name] for limit in self.model.limits},
            "plain_python_decisions_per_second": self._plain,
            "mismatches": len(self.mismatches),
            "buckets_a_round": len(self.model.buckets),
            "bucket_mismatches": len(self.ends),
        }
        if self.reserves:
            figures |= misses(ESTIMATE, [self.requests[row].generated for row in self.settlements])
        found.note(self.cell, SIDECAR, figures)
        if self.mismatches:  # what follows may follow from the first
            yield f"{len(self.mismatches):,} answers differ from the model's, such as:"
            yield from (text for _, text in sorted(self.mismatches)[:_SHOWN])
        if self.ends:
            yield f"{len(self.ends):,} buckets differ from the model's at the end, such as:"
            yield from self.ends[:_SHOWN]

    def notes(self) -> dict[str, object]:
        notes = {"trace": self._source, "keys": f"{model.KEYS}: {model.RULE}", "plan": self.plan}
        return {**notes, "connections": CONNECTIONS, **({"estimate": ESTIMATE} if self.reserves else {})}


class AzureReserve(Azure):
    name = "azure-reserve"
    title = "The Azure trace, reserved and settled"
    reserves = True


def reservation_in(answer: bytes) -> str | None:
    found = re.search(rb'"reservation": *"([^"]+)"', answer)
    return found[1].decode() if found else None


def differences(model: Buckets, store: Buckets) -> list[str]:
    """Return a line for each bucket that is not the same on both sides, or is on one side only."""
    return [
        f"{' '.join(place)}: model {model.get(place)}, store {store.get(place)}"
        for place in sorted({*model, *store})
        if model.get(place) != store.get(place)
    ]


def misses(estimate: int, generated: list[int]) -> dict[str, float]:
    """Return how often an estimate of output tokens was too much (over) or too little, and by how many."""
    errors, settled = estimate - pl.Series(generated, dtype=pl.Int64), len(generated)
    figures: dict[str, Any] = {"settlements_a_round": settled, "output_estimated": estimate * settled}
    figures |= {"output_used": sum(generated), "exact": (errors == 0).sum()}
    for name, missed in (("over", errors.filter(errors > 0)), ("under", -errors.filter(errors < 0))):
        figures |= {f"{name}_count": len(missed), f"{name}_share": len(missed) / max(1, settled)}
        figures |= {f"{name}_tokens": missed.sum(), f"{name}_median": missed.median() or 0}
        figures[f"{name}_most"] = missed.max() or 0
    return figures
