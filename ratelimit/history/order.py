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
    yield from heapq.merge(*map(_sort_lines, recorded), key=_find_time)


def _find_time(numbered: NumberedLine) -> int:
    return numbered.line.timestamp


def _may_be_repeated(line: HistoryLine) -> bool:
    """Whether a line may repeat an earlier answer, with the time of that one."""
    return line.used is None or line.request_id is not None


def _sort_lines(lines: Iterable[NumberedLine]) -> Iterator[NumberedLine]:
    """Return lines in the order of their timestamps; lines with the same one stay in their order.

    Where the store's clock was set back, the lines after that follow those before it.
    """
    waiting: list[tuple[int, int, NumberedLine]] = []
    latest = 0
    for order, numbered in enumerate(lines):
        t = numbered.line.timestamp
        if t < latest - _MAX_DELAY:
            while waiting:
                yield heapq.heappop(waiting)[2]
            if _may_be_repeated(numbered.line):
                yield numbered
                continue
            latest = t
        latest = max(latest, t)
        heapq.heappush(waiting, (t, order, numbered))
        while waiting[0][0] < latest - _MAX_DELAY:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]
