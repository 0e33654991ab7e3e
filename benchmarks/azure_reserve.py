"""The same hour as a gateway meters it: reserved by an estimate, settled with what was really used.

How long an answer will be is not known when its request arrives. So each request reserves its
context tokens and `ESTIMATE` tokens of output with `POST /v1/check`, and once it is admitted
`POST /v1/settle` says what was really generated, with the request's own timestamp. Every
decision and every settlement must equal the plain model's, and at the end every bucket in the
store must equal the model's to the last bit.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks import client, estimates
from benchmarks.model import Model, told, told_settled
from benchmarks.replay import Mismatch, Pace, faults_of, lanes_of, open_trace, play
from benchmarks.report import Result, share
from ratelimit.engine.bucket import Bucket
from ratelimit.engine.layout import make_owner_store_key
from ratelimit.engine.limit_status import unpack_buckets
from ratelimit.stores import connect

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.client import Answer
    from benchmarks.model import Limit, Settled, Verdict
    from benchmarks.replay import Replay
    from benchmarks.trace import Request

ESTIMATE: Final = 512
"""Output tokens that each request reserves, however long its answer will be."""

_PATIENCE: Final = 5.0  # seconds that the store may take to show a key's buckets
_SHOWN: Final = 5

Buckets = dict[tuple[str, str], Bucket]
"""Buckets by key and limit."""


@dataclass(slots=True)
class Exchange:
    """A request and what the sidecar answered: to the check, and to the settlement if there was one."""

    request: Request
    check: Answer
    settled: Answer | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """What the plain model says: of each request's check, of its settlement, and of the end."""

    verdicts: list[Verdict]
    settled: dict[int, Settled]
    buckets: Buckets


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
    expected = expect(replay.requests, replay.limits)
    pace, mismatches, ends = Pace(), list[Mismatch](), list[str]()
    for exchanges, found in _rounds(replay, expected, rounds, pace):
        for exchange in exchanges:
            mismatches += _mismatches(exchange, expected)
        ends += differences(expected.buckets, found)
    return _result(replay, expected, pace, mismatches, ends)


def expect(requests: Sequence[Request], limits: tuple[Limit, ...]) -> Expected:
    """Return what the plain model says."""
    expected = Expected([], {}, {})
    model = Model(limits, expected.buckets)
    for request in requests:
        verdict = model.decide(request, request.context + ESTIMATE)
        expected.verdicts.append(verdict)
        if verdict.allowed:
            expected.settled[request.row] = model.settle(request, request.generated - ESTIMATE)
    return expected


def _rounds(
    replay: Replay, expected: Expected, rounds: int, pace: Pace
) -> Iterator[tuple[list[Exchange], Buckets]]:
    """Send everything; give each round's exchanges and the buckets that it left in the store."""
    lanes = lanes_of(replay.requests)
    exchanges: list[Exchange] = []

    def talk(prefix: str) -> list[Iterable[bytes]]:
        exchanges.clear()  # those of the round before have been looked at
        return [_converse(lane, replay.plan, prefix, exchanges) for lane in lanes]

    keys = {request.key for request in replay.requests}
    with tempfile.TemporaryDirectory(prefix="azure-") as folder:
        store = f"embedded://{folder}"
        answers = len(expected.verdicts) + len(expected.settled)
        for number, took in enumerate(play("azure-reserve", rounds, answers, talk, redis=store)):
            pace.note(took)
            yield exchanges, stored_buckets(store, keys, f"r{number}-")


def _converse(
    lane: list[Request], plan: str, prefix: str, exchanges: list[Exchange]
) -> Generator[bytes, Answer, None]:
    """Check each request, and settle it before the next if the sidecar reserved something for it."""
    for request in lane:
        exchange = Exchange(request, (yield _check(request, plan, prefix)))
        reservation = _reservation(exchange.check)
        if reservation is not None:
            exchange.settled = yield _settle(request, reservation)
        exchanges.append(exchange)


def _check(request: Request, plan: str, prefix: str) -> bytes:
    fields = {
        "key": prefix + request.key,
        "plan": plan,
        "timestamp": request.timestamp,
        "cost": {"tokens": request.context + ESTIMATE},
        "reserve": True,
    }
    return client.post("/v1/check", json.dumps(fields).encode())


def _settle(request: Request, reservation: str) -> bytes:
    fields = {
        "reservation": reservation,
        "timestamp": request.timestamp,
        "input_tokens": request.context,
        "output_tokens": request.generated,
        "status": 200,
    }
    return client.post("/v1/settle", json.dumps(fields).encode())


def _reservation(answer: Answer) -> str | None:
    try:
        reservation = json.loads(answer.body)["reservation"]
    except (ValueError, KeyError, TypeError):
        return None  # no decision at all, which is a mismatch
    return reservation if isinstance(reservation, str) else None


def _mismatches(exchange: Exchange, expected: Expected) -> Iterator[Mismatch]:
    """Compare both answers; where the check already differs there is no settlement to compare."""
    request, check = exchange.request, exchange.check
    verdict, answered = expected.verdicts[request.row], told(check.status, check.body)
    reserved = request.context + ESTIMATE
    if verdict != answered:
        yield Mismatch(request, f"{reserved} tokens reserved", verdict, answered)
    elif request.row in expected.settled:
        wanted, settled = expected.settled[request.row], exchange.settled
        got = "no reservation" if settled is None else told_settled(settled.status, settled.body)
        if wanted != got:
            yield Mismatch(request, f"{request.tokens} tokens settled for {reserved}", wanted, got)
    elif exchange.settled is not None:
        yield Mismatch(request, f"{reserved} tokens reserved", verdict, "a reservation for a denied check")


def stored_buckets(store: str, keys: Iterable[str], prefix: str) -> Buckets:
    """Read the buckets of some keys as they lie in the store, to the last bit.

    No answer of the sidecar shows as much: those are rounded to tokens and microseconds.
    """
    opened = connect(store, _PATIENCE)
    try:
        asked: Any = opened.client  # redis-py's types do not say that this client does not wait for asyncio
        found: Buckets = {}
        for key in keys:
            owner = prefix + key
            state: bytes = asked.get(make_owner_store_key("key", owner, owner)) or b""
            for name, (used, at) in unpack_buckets(state).items():
                found[key, name] = Bucket(used, at)
        return found
    finally:
        opened.client.close()
        opened.release()


def differences(model: Buckets, store: Buckets) -> list[str]:
    """Return a line for each bucket that is not the same on both sides, or is on one side only."""
    return [
        f"{key} {limit}: model {model.get((key, limit))}, store {store.get((key, limit))}"
        for key, limit in sorted({*model, *store})
        if model.get((key, limit)) != store.get((key, limit))
    ]


def _result(
    replay: Replay, expected: Expected, pace: Pace, mismatches: list[Mismatch], ends: list[str]
) -> Result:
    total, rounds = len(expected.verdicts), len(pace.rates)
    shots = estimates.shots(ESTIMATE, [replay.requests[row].generated for row in expected.settled])
    figures: dict[str, Any] = {
        **replay.figures(),
        "estimate": ESTIMATE,
        "decisions_a_round": total,
        "denied_a_round": total - len(expected.settled),
        "settlements_a_round": len(expected.settled),
        "buckets_a_round": len(expected.buckets),
        "mismatches": len(mismatches),
        "bucket_mismatches": len(ends),
        "estimates": shots,
        **pace.figures(),
    }
    rows = [
        *replay.rows(),
        ("reserved", f"context + {ESTIMATE} tokens; then settled with the generated"),
        ("rounds", f"{rounds}, each of {total:,} checks and {len(expected.settled):,} settlements"),
        ("denied", f"{share(total - len(expected.settled), total)} a round"),
        ("differ from the model", f"{len(mismatches):,} answers"),
        ("differ at the end", f"{len(ends):,} of {rounds * len(expected.buckets):,} buckets"),
        *estimates.rows(shots),
        *pace.rows(),
    ]
    faults = faults_of(mismatches, "answers")
    if ends:
        faults += [f"{len(ends):,} buckets differ from the model's at the end, such as:", *ends[:_SHOWN]]
    return Result("azure-reserve", "The Azure trace, reserved and settled", rows, figures, faults)
