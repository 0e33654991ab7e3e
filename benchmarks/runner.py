"""The runner of every benchmark: starts child processes, takes turns, measures, shows progress."""

import contextlib
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

import polars as pl
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn

from benchmarks import BenchmarkError, server
from benchmarks.contestants import CONTESTANTS
from benchmarks.figures import Cell, Found, percentile, tables
from benchmarks.worker import Mode, Order, Sample, play

WARM: Final = 2  # calls of each thread or task before the clock starts: to connect and to load scripts
PATIENCE = 120.0  # seconds for one order; the longest takes about ten, but a call may wait for ever
_SPAWN: Final = multiprocessing.get_context("spawn")  # a fork would inherit all that the parent has imported
stderr: Final = Console(stderr=True, highlight=False)


class Worker:
    def __init__(self, name: str, mode: Mode) -> None:
        self.name = name
        self._met: set[tuple[object, ...]] = set()
        self._pipe, theirs = _SPAWN.Pipe()
        self._child = _SPAWN.Process(target=play, args=(name, mode, theirs), daemon=True)
        self._child.start()
        theirs.close()

    def run(self, order: Order) -> Sample:
        """Carry out an order; BenchmarkError if the child does not answer or has ended with a traceback."""
        try:
            self._pipe.send(order)
            if self._pipe.poll(PATIENCE):
                sample: Sample = self._pipe.recv()
                return sample
            self._child.kill()
            problem = f"gave no answer for {PATIENCE:g} s"
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._child.join()
            problem = f"ended with {self._child.exitcode}"
        raise BenchmarkError(f"the process that plays {self.name} {problem}")

    def warm(self, order: Order) -> None:  # on a key that is not measured: the first calls cost more
        self.run(replace(order, prefix=f"warm-{order.prefix}", keys=1, calls=WARM * order.concurrency))

    def meet(self, order: Order) -> None:
        """Check every key of an order once, so that the first use of a key is not measured."""
        met = (order.quotas, order.prefix, order.keys)
        if met not in self._met:
            self._met.add(met)
            self.run(replace(order, calls=order.keys, seconds=float("inf")))

    def measure(self, target: server.Server, order: Order) -> dict[str, float]:
        """Carry out an order while no other contestant uses the server; return the figures of both sides.

        Microseconds are per decision: `redis_us` inside scripts and the contestant's own commands,
        `redis_process_us` of the whole server, sockets and parsing included.
        """
        self.warm(order)
        target.forget()
        sample = self.run(order)
        spent = target.spent()
        return {
            "decisions_per_second": sample.rate,
            "p50_ms": 1e3 * percentile(sample.latencies, 50),
            "p99_ms": 1e3 * percentile(sample.latencies, 99),
            "client_cpu_us": 1e6 * sample.cpu / sample.calls,
            "redis_us": spent.on(*CONTESTANTS[self.name].direct) / sample.calls,
            "redis_process_us": spent.process / sample.calls,
            "refused": sample.calls - sample.admitted,
        }

    def close(self) -> None:
        self._child.kill()  # some peers' threads would not let it end by itself
        self._child.join()
        self._pipe.close()


class Crew(contextlib.ExitStack):
    """The child processes of a benchmark: all contestants of a phase, ready beside each other."""

    _hired: tuple[object, ...] = ()

    def hire(self, names: Sequence[str], mode: Mode, each: int = 1) -> Mapping[str, list[Worker]]:
        """Return `each` children for every name; those of another phase end, the same ones stay."""
        if self._hired != (names, mode, each):
            self.close()
            self._workers = {
                name: [self.enter_context(contextlib.closing(Worker(name, mode))) for _ in range(each)]
                for name in names
            }
            self._hired = (names, mode, each)
        return self._workers


class Benchmark:
    """One benchmark: a subclass, a dataclass, declares the cells and how to measure one."""

    name: ClassVar[str]
    title: ClassVar[str]
    quick: ClassVar[Mapping[str, Any]]  # the fields of a run in small
    cell: ClassVar[Cell]  # the only cell, unless `cells` returns others
    rounds: int = 1

    @cached_property
    def stack(self) -> contextlib.ExitStack:  # what is open until the benchmark ends
        return contextlib.ExitStack()

    @cached_property
    def server(self) -> server.Server:  # the real server, started when it is first used
        return self.stack.enter_context(server.running())

    @cached_property
    def crew(self) -> Crew:
        _ = self.server  # it must be there first, to end after the children that use it
        return self.stack.enter_context(Crew())

    def cells(self) -> Iterable[Cell]:  # in the order in which the first round visits them
        return [self.cell]

    def prepare(self) -> None:
        """Start what is measured."""

    def measure(self, cell: Any, contestant: str, number: int) -> Mapping[str, float]:  # in a round
        raise NotImplementedError

    def conclude(self, found: Found) -> Iterable[str]:
        """Add the figures that follow from others; return the faults, a paragraph each."""
        raise NotImplementedError

    def notes(self) -> dict[str, object]:  # what a reader must know beside how much was measured
        return {}

    def tables(self, found: Found) -> Iterable[tuple[str, pl.DataFrame]]:
        return tables(found.frame())

    def draw(self, found: Found, folder: Path) -> None:
        """Draw pictures of its own, if it has any."""


class Result(NamedTuple):
    benchmark: Benchmark
    found: Found
    faults: list[str]


def run(benchmark: Benchmark) -> Result:
    """Run a benchmark; BenchmarkError if it could not measure."""
    cells = [replace(cell, rounds=cell.rounds or benchmark.rounds) for cell in benchmark.cells()]
    found, turns = Found(), list(_turns(cells))
    columns = (SpinnerColumn(), *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(benchmark.name, total=len(turns))
        with benchmark.stack:
            benchmark.prepare()
            for number, cell, contestant in turns:
                found.note(cell, contestant, benchmark.measure(cell, contestant, number))
                bar.advance(task)
            return Result(benchmark, found, list(benchmark.conclude(found)))


def _turns(cells: Sequence[Cell]) -> Iterator[tuple[int, Cell, str]]:
    """Give the round, cell and contestant of each turn; noise should slow all alike.

    Each round begins with another contestant, and every other round goes backwards through the cells.
    """
    for phase in dict.fromkeys(cell.phase for cell in cells):
        among = [cell for cell in cells if cell.phase == phase]
        for number in range(max(cell.rounds for cell in among)):
            for cell in among[::-1] if number % 2 else among:
                first = number % len(cell.contestants)
                names = cell.contestants[first:] + cell.contestants[:first] if number < cell.rounds else ()
                yield from ((number, cell, name) for name in names)
