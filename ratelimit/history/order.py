"""Puts the lines of histories in the order in which the store decided them.

A store decides in the order of its clock. Processes write their lines a little later, each in its own time.
So lines that say whose clock their timestamp is from are put in the order of their timestamps. Other lines
are taken in the order in which they stand.
"""

from __future__ import annotations

import heapq
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Final

from ratelimit.history.lines import read_lines
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ratelimit.history.lines import HistoryLine, NumberedLine

_MOST_WRITTEN_LATE: Final = 20
"""How many lines in a row may be written so late after the store's clock was set forwards."""

_MOST_ASIDE: Final = 5_000
"""How many lines are put aside until it is clear why they are so old."""

_MAX_DELAY: Final = 30 * MICROSECONDS
"""By how much a line may be out of order, microseconds: longer than a process waits for the store."""


def read_history(paths: Iterable[Path]) -> Iterator[NumberedLine]:
    """Read histories: the lines of all files in the order of the decisions.

    Args:
        paths: the files, such as those of several sidecars.

    Raises:
        InvalidRequest: a line cannot be read; see `read_line`.
        OSError: a file cannot be read.
    """
    with ExitStack() as files:
        opened = [(files.enter_context(path.open("rb")), path.name) for path in paths]
        yield from merge_lines(*(read_lines(file, name) for file, name in opened))


def merge_lines(*histories: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
    """Return the lines of several histories in the order of the decisions.

    Histories whose lines do not say whose clock their timestamps are from are taken one after another.
    """
    recorded: list[Iterable[NumberedLine]] = []
    others: list[Iterable[NumberedLine]] = []
    for history in histories:
        iterator = iter(history)
        first = next(iterator, None)
        if first is not None:
            lines = chain([first], iterator)
            (others if first.line.clock is None else recorded).append(lines)
    yield from chain.from_iterable(others)
    yield from heapq.merge(*(_Sorter().sort(lines) for lines in recorded), key=_find_time)


def _find_time(numbered: NumberedLine) -> int:
    return numbered.line.timestamp


class _Sorter:
    """Sorts lines by their timestamps; lines with the same one stay in their order.

    A line that is much older than the latest one is an old answer that was repeated, or was written late, or
    the store's clock was set back. Which of these it is shows in the lines that follow, so it is put aside
    until then. If the clock was set back, what comes after that follows what came before.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, NumberedLine]] = []
        self._aside: list[NumberedLine] = []
        self._latest = 0
        self._count = 0
        self._told = 0  # how many of the lines that were put aside tell the store's time

    def sort(self, lines: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
        """Return the lines in the order of the decisions."""
        for numbered in lines:
            yield from self._take(numbered)
        while self._waiting or self._aside:
            yield from self._start_again()

    def _take(self, numbered: NumberedLine) -> Iterator[NumberedLine]:
        """Take one line; return those whose place is known now."""
        t = numbered.line.timestamp
        if t < self._latest - _MAX_DELAY:
            self._aside.append(numbered)
            if self._is_clock_set_back():
                yield from self._start_again()
            return
        if self._aside and _tells_the_time(numbered.line):
            yield from sorted(self._aside, key=_find_time)
            self._aside.clear()
            self._told = 0
        self._count += 1
        heapq.heappush(self._waiting, (t, self._count, numbered))
        if not self._latest or t <= self._latest + _MAX_DELAY or _tells_the_time(numbered.line):
            self._latest = max(self._latest, t)
        while self._waiting[0][0] < self._latest - _MAX_DELAY:
            yield heapq.heappop(self._waiting)[2]

    def _start_again(self) -> Iterator[NumberedLine]:
        """Return all that was taken, and take what was put aside as if it came first."""
        while self._waiting:
            yield heapq.heappop(self._waiting)[2]
        self._latest = self._told = 0
        aside, self._aside = self._aside, []
        for numbered in aside:
            yield from self._take(numbered)

    def _is_clock_set_back(self) -> bool:
        """Whether more was put aside than a process can have written late."""
        self._told += _tells_the_time(self._aside[-1].line)
        return self._told > _MOST_WRITTEN_LATE or len(self._aside) > _MOST_ASIDE


def _tells_the_time(line: HistoryLine) -> bool:
    """Whether a line has the time of the store's clock when it was decided.

    What a process decides without the store has the time that it expects there, and a repeated answer has the
    time of the first one.
    """
    return line.used is not None and line.request_id is None
