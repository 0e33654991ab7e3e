"""Sends requests through every gateway in turn, and watches what they do to the store.

A limiter that is not asked is fast, so nothing is believed unseen. Every answer of a round must
be a 200, and at the end some keys are driven over their limit: a bucket of `burst` that was asked
about u times must deny exactly u of the next `burst` requests, or some of the rounds' requests
went past it.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis

from benchmarks import client
from benchmarks.gateways import arena
from benchmarks.report import percentile, progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.client import Run
    from benchmarks.gateways.arena import Contestant

CONNECTIONS: Final = 16
DRIVEN: Final = 16
"""Keys that are driven over their limit."""

_SPARE: Final = 50  # requests that each key could still have made after all rounds
_FASTER: Final = 3
"""Times as many requests where nobody is asked, or a round would be over too soon. Not more: nginx closes a
connection after 1,000 requests."""
_SCRIPTS: Final = {"cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall"}
_OURS: Final = {"cmdstat_info", "cmdstat_config|resetstat"}  # what this benchmark itself asks the store


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is sent: so many rounds, and in each of them every key so many times."""

    rounds: int
    keys: int = 1000
    times: int = 4

    @property
    def uses(self) -> int:
        """How often each key has been used after all rounds, and once before to warm up."""
        return 1 + self.rounds * self.times

    @property
    def burst(self) -> int:
        """What each key may do."""
        return self.uses + _SPARE


@dataclass(slots=True)
class Measured:
    """What was seen of a contestant: a value for each round, in the same order for all.

    Attributes:
        rates: requests a second.
        p50s: milliseconds to the answer, the median.
        latencies: seconds to every answer.
        client_cores: what the client took of a core.
        scripts: calls of scripts a request.
        commands: all commands a request, those of scripts included.
        script_us: microseconds in scripts a request.
        store_us: microseconds of the store's processor time a request, reading and writing included.
        wrong: answers of rounds that were no 200, by status.
        driven: answers to the keys driven over their limit, by status.
    """

    rates: list[float] = field(default_factory=list)
    p50s: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    client_cores: list[float] = field(default_factory=list)
    scripts: list[float] = field(default_factory=list)
    commands: list[float] = field(default_factory=list)
    script_us: list[float] = field(default_factory=list)
    store_us: list[float] = field(default_factory=list)
    wrong: Counter[int] = field(default_factory=Counter)
    driven: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Seen:
    """Contestants by name, and what was seen of each."""

    contestants: dict[str, Contestant]
    measured: dict[str, Measured]


def measure(scale: Scale) -> Seen:
    """Measure all contestants, interleaved.

    Raises:
        SidecarError: a program is not installed or did not start.
        ClientError: a gateway did not answer.
    """
    with arena.opened(scale.burst) as ready, progress() as bar, redis.Redis(port=ready.store) as store:
        contestants = list(ready.contestants)
        seen = Seen(
            {contestant.name: contestant for contestant in contestants},
            {contestant.name: Measured() for contestant in contestants},
        )
        task = bar.add_task("gateways", total=len(contestants) * (2 + scale.rounds))
        for contestant in contestants:
            _send(contestant, _shuffled(contestant, scale.keys, 1))
            bar.advance(task)
        for number in range(scale.rounds):
            # There and back, so that what changes meanwhile on the machine favours nobody.
            for contestant in contestants if number % 2 == 0 else reversed(contestants):
                _round(contestant, scale, store, seen.measured[contestant.name])
                bar.advance(task)
        for contestant in contestants:
            if contestant.limits:
                run = _send(contestant, _shuffled(contestant, min(DRIVEN, scale.keys), scale.burst))
                seen.measured[contestant.name].driven = _statuses(run)
            bar.advance(task)
    return seen


def _round(contestant: Contestant, scale: Scale, store: redis.Redis, measured: Measured) -> None:
    requests = _shuffled(contestant, scale.keys, scale.times * (1 if contestant.limits else _FASTER))
    before = _processor(store)
    store.config_resetstat()
    run = _send(contestant, requests)
    commands: dict[str, Any] = store.info("commandstats")
    measured.store_us.append(1e6 * (_processor(store) - before) / len(requests))
    commands = {name: stat for name, stat in commands.items() if name not in _OURS}
    scripts = [stat for name, stat in commands.items() if name in _SCRIPTS]
    measured.commands.append(sum(stat["calls"] for stat in commands.values()) / len(requests))
    measured.scripts.append(sum(stat["calls"] for stat in scripts) / len(requests))
    measured.script_us.append(sum(stat["usec"] for stat in scripts) / len(requests))

    latencies = [answer.latency for lane in run.answers for answer in lane]
    measured.rates.append(len(latencies) / run.seconds)
    measured.client_cores.append(run.cpu / run.seconds)
    measured.p50s.append(1000 * percentile(latencies, 50))
    measured.latencies += latencies
    measured.wrong += Counter({status: n for status, n in _statuses(run).items() if status != 200})  # noqa: PLR2004


def _shuffled(contestant: Contestant, keys: int, times: int) -> list[bytes]:
    """Return requests that ask each key so many times; contestants share no keys, and so no buckets."""
    requests = [contestant.request(f"vk_{contestant.name}_{key:04}") for key in range(keys)] * times
    random.Random(times).shuffle(requests)
    return requests


def _send(contestant: Contestant, requests: Sequence[bytes]) -> Run:
    lanes: list[Iterable[bytes]] = [requests[lane::CONNECTIONS] for lane in range(CONNECTIONS)]
    return client.send("127.0.0.1", contestant.port, lanes)


def _statuses(run: Run) -> Counter[int]:
    return Counter(answer.status for lane in run.answers for answer in lane)


def _processor(store: redis.Redis) -> float:
    """Return the seconds of processor time that the store has taken so far."""
    used: dict[str, Any] = store.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
