"""The children that play the contestants, from the parent's side."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Self

from benchmarks.contestants import CONTESTANTS
from benchmarks.drive import Sample
from benchmarks.sidecar import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.server import Server
    from benchmarks.worker import Order

WARM: Final = 2
"""Calls of each thread or task before the clock starts: connections are made, scripts are known."""


PATIENCE = 120.0
"""Seconds for one order; the longest takes some ten. A contestant may wait in a call for ever."""


class CrewError(RuntimeError):
    """A child ended before it was told to, or hangs."""


class Worker:
    """One child that plays one contestant."""

    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self._met: set[tuple[object, ...]] = set()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", name, mode],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, order: Order) -> Self:
        """Send an order; `end` waits for what comes of it."""
        assert self._child.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):  # `end` says it better
            self._child.stdin.write(order.write() + "\n")
            self._child.stdin.flush()
        return self

    def end(self) -> Sample:
        """Return what came of the order.

        Raises:
            CrewError: the child is gone, and has said why on standard error; or it says nothing at all.
        """
        assert self._child.stdout is not None  # noqa: S101 - it was asked for
        if not select.select([self._child.stdout], [], [], PATIENCE)[0]:
            self._child.kill()
            raise CrewError(f"the process that plays {self.name} said nothing for {PATIENCE:g} s")
        line = self._child.stdout.readline()
        if not line:
            raise CrewError(f"the process that plays {self.name} ended with {self._child.wait()}")
        return Sample(**json.loads(line))

    def run(self, order: Order) -> Sample:
        """Carry out an order."""
        return self.begin(order).end()

    def warm(self, order: Order) -> None:
        """Do the same for a moment, to a key that is not measured, for what only the first calls cost."""
        self.run(replace(order, prefix=f"warm-{order.prefix}", keys=1, calls=WARM * order.concurrency))

    def meet(self, order: Order) -> None:
        """Ask for every key of an order once, so that nobody's first sight of a key is measured."""
        met = (order.quotas, order.prefix, order.keys)
        if met not in self._met:
            self._met.add(met)
            self.run(replace(order, calls=order.keys))

    def close(self) -> None:
        """Let the child close what it has open, and end."""
        self._child.communicate()


@contextlib.contextmanager
def hired(names: Sequence[str], mode: str) -> Iterator[list[Worker]]:
    """Start a child for each name, all at once."""
    workers = [Worker(name, mode) for name in names]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()


@dataclass(frozen=True, slots=True)
class Measured:
    """A sample, and what the server did for it.

    Attributes:
        sample: the child's side.
        redis: microseconds inside Redis a decision, in scripts and the contestant's own commands.
        process: microseconds of the server a decision, sockets and parsing too.
    """

    sample: Sample
    redis: float
    process: float


def measure(server: Server, worker: Worker, order: Order) -> Measured:
    """Carry out an order while nobody else uses the server."""
    worker.warm(order)
    server.forget()
    sample = worker.run(order)
    spent = server.spent()
    redis = spent.on(*CONTESTANTS[worker.name].direct)
    return Measured(sample, redis / sample.calls, spent.process / sample.calls)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names in the order of a round, so that nobody is always first after the same one."""
    by %= len(names)
    return [*names[by:], *names[:by]]
