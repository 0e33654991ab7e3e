"""A child process that plays one contestant: `python -m benchmarks.worker NAME blocking|asyncio`.

Orders come in as JSON, a line each; samples go out likewise. Processor time is then the contestant's
own, and its threads, garbage and event loop are nobody else's. All contestants have the same loop:
uvloop where it is installed, as it is in the sidecar.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks import drive
from benchmarks.contestants import CONTESTANTS
from benchmarks.workload import Quota, endless

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.contestants import Asyncio, Blocking, Contestant
    from benchmarks.drive import Sample

try:
    import uvloop
except ImportError:  # not everywhere
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

LOOP: Final = new_event_loop.__module__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure.

    Attributes:
        url: the server.
        quotas: the limits of every key.
        keys: how many there are; they are visited in the same order by everyone, each order going
            on where the last one over the same keys ended.
        prefix: what tells these keys from others.
        concurrency: threads or tasks.
        cost: of every call.
        seconds: how long, unless `calls` says it.
        calls: how many, unless 0.
    """

    url: str
    quotas: tuple[Quota, ...]
    keys: int = 1
    prefix: str = ""
    concurrency: int = 1
    cost: int = 1
    seconds: float = 0.0
    calls: int = 0

    @classmethod
    def read(cls, line: str) -> Order:
        """Read what `write` wrote."""
        fields = json.loads(line)
        return cls(**{**fields, "quotas": tuple(Quota(**quota) for quota in fields["quotas"])})

    def write(self) -> str:
        """Return the order as a line."""
        return json.dumps(asdict(self))


class _Player(Protocol):
    """Carries orders out, and keeps the contestant open between orders that suit it."""

    def play(self, order: Order) -> Sample: ...

    def close(self) -> None: ...


class _Threads:
    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._open: dict[object, Blocking] = {}
        self._keys = _Keys()

    def play(self, order: Order) -> Sample:
        plays = order.url, order.quotas
        if plays not in self._open:
            self._open[plays] = self._contestant.blocking(*plays)
        check, cost = self._open[plays].check, order.cost
        return drive.threads(
            lambda key: check(key, cost), self._keys.of(order), order.concurrency, _seconds(order)
        )

    def close(self) -> None:
        for opened in self._open.values():
            opened.close()


class _Tasks:
    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._open: dict[object, Asyncio] = {}
        self._keys = _Keys()
        self._runner = asyncio.Runner(loop_factory=new_event_loop)

    def play(self, order: Order) -> Sample:
        return self._runner.run(self._play(order))

    async def _play(self, order: Order) -> Sample:
        plays = order.url, order.quotas
        if plays not in self._open:
            self._open[plays] = self._contestant.asyncio(*plays)
            await self._open[plays].open()
        check, cost = self._open[plays].check, order.cost
        return await drive.tasks(
            lambda key: check(key, cost), self._keys.of(order), order.concurrency, _seconds(order)
        )

    def close(self) -> None:
        for opened in self._open.values():
            self._runner.run(opened.close())
        self._runner.close()


class _Keys:
    """Where each walk over some keys has come to."""

    def __init__(self) -> None:
        self._walks: dict[tuple[str, int], Iterator[str]] = {}

    def of(self, order: Order) -> Iterator[str]:
        place = (order.prefix, order.keys)
        if place not in self._walks:
            self._walks[place] = endless(*place)
        return itertools.islice(self._walks[place], order.calls or None)


def _seconds(order: Order) -> float:
    return float("inf") if order.calls else order.seconds


PLAYERS: dict[str, Callable[[Contestant], _Player]] = {"blocking": _Threads, "asyncio": _Tasks}


def main(name: str, mode: str) -> None:
    """Carry out orders until there are no more."""
    player = PLAYERS[mode](CONTESTANTS[name])
    for line in sys.stdin:
        print(json.dumps(asdict(player.play(Order.read(line)))), flush=True)
    player.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
