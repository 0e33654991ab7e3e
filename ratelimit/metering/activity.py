"""What keys, tenants, models and plans do, as processes tell the store, and as `ratelimit top` reads it.

Time is divided into intervals. In each of them, every process that has something to tell has a report in the
store: one field of a hash, which is replaced every second and expires by itself.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ratelimit.engine.check_script import pack_header
from ratelimit.metering.sketch import Sketch, merge_sketches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ratelimit.engine.check_script import ScriptArgument
    from ratelimit.engine.keyspace import Keyspace

Dimension = Literal["key", "tenant", "model", "plan"]
Measure = Literal["checks", "denied", "tokens"]

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
MEASURES: Final[tuple[Measure, ...]] = get_args(Measure)

INTERVAL_SECONDS: Final = 5
MAX_WINDOW: Final = 60
"""Seconds that can be looked back."""

CAPACITY: Final = 50
"""Items that a report keeps for certain, for each dimension and measure. It has 12 such lists."""

Names = tuple[str, str, str, str]
"""Key, tenant, model (empty without one) and plan."""

_EXPIRY: Final = (MAX_WINDOW + 2 * INTERVAL_SECONDS) * 1000


class IntervalCounts:
    """What one process has counted in one interval.

    Attributes:
        totals: the sums of all.
        sketches: a sketch for each dimension and measure.
    """

    def __init__(self) -> None:
        self.totals: dict[Measure, float] = dict.fromkeys(MEASURES, 0.0)
        self.sketches = {
            (dimension, measure): Sketch(CAPACITY) for dimension in DIMENSIONS for measure in MEASURES
        }

    def add(self, counted: Mapping[Names, Sequence[float]]) -> None:
        """Add amounts, one for each measure, by their names, one for each dimension."""
        for place, dimension in enumerate(DIMENSIONS):
            sums: dict[str, list[float]] = {}
            for names, (checks, denied, tokens) in counted.items():
                of_name = sums.get(names[place])
                if of_name is None:
                    sums[names[place]] = [checks, denied, tokens]
                else:
                    of_name[0] += checks
                    of_name[1] += denied
                    of_name[2] += tokens
            for number, measure in enumerate(MEASURES):
                amounts = [(name, row[number]) for name, row in sums.items() if row[number]]
                self.sketches[dimension, measure].add(amounts)
                if place == 0:
                    self.totals[measure] += sum(amount for _, amount in amounts)


def write_report(counts: IntervalCounts) -> str:
    """Return the report of what a process has counted in an interval so far, as text."""
    report: dict[str, Any] = dict(counts.totals.items())
    for (dimension, measure), sketch in counts.sketches.items():
        sketch.trim()
        if sketch.counts:
            report.setdefault(dimension, {})[measure] = [sketch.error, sketch.counts]
    return json.dumps(report, separators=(",", ":"))


def encode_report(
    keyspace: Keyspace, process: str, interval: int, text: str
) -> tuple[list[str], list[ScriptArgument]]:
    """Return KEYS and ARGV of lua/report.lua, which tells the store a process's report of an interval."""
    return [make_interval_store_key(keyspace, interval)], [pack_header(None), process, text, _EXPIRY]


def make_interval_store_key(keyspace: Keyspace, interval: int) -> str:
    """Return the store key of the reports of an interval."""
    return f"{keyspace.everything}:top:{interval}"


def list_intervals(now: float, window: float) -> list[int]:
    """Return the intervals of the last `window` seconds before `now`, seconds since the epoch."""
    return list(range(int((now - window) // INTERVAL_SECONDS) + 1, int(now // INTERVAL_SECONDS) + 1))


@dataclass(frozen=True, slots=True)
class Row:
    """What one key, tenant, model or plan has done.

    Each number is a lower bound. At most `errors` of the measure are missing, usually none.
    """

    name: str
    checks: int
    denied: int
    tokens: int


@dataclass(frozen=True, slots=True)
class ActivitySummary:
    """What all processes have told of a window.

    Attributes:
        seconds: the length of the window.
        processes: how many processes have told something.
        totals: exact sums, by measure.
        rows: for each dimension all names that have one of the largest counts, in no order.
        errors: for each dimension and measure, how much may be missing of a row's number.
    """

    seconds: float
    processes: int
    totals: dict[Measure, int]
    rows: dict[Dimension, list[Row]]
    errors: dict[Dimension, dict[Measure, int]]


def summarise_reports(
    intervals: Iterable[Mapping[bytes | str, bytes | str]], seconds: float
) -> ActivitySummary:
    """Return the sum of the reports of several intervals. What cannot be read is left out.

    Args:
        intervals: the hash of each interval.
        seconds: the length of the window.
    """
    reports: list[dict[str, Any]] = []
    processes: set[bytes | str] = set()
    for interval in intervals:
        for process, text in interval.items():
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                reports.append(_parse_report(text))
                processes.add(process)
    rows: dict[Dimension, list[Row]] = {}
    errors: dict[Dimension, dict[Measure, int]] = {}
    for dimension in DIMENSIONS:
        merged = {measure: _merge(reports, dimension, measure) for measure in MEASURES}
        names = dict.fromkeys(name for sketch in merged.values() for name in sketch.counts)
        rows[dimension] = [
            Row(name, *(round(merged[measure].counts.get(name, 0)) for measure in MEASURES)) for name in names
        ]
        errors[dimension] = {measure: round(merged[measure].error) for measure in MEASURES}
    return ActivitySummary(seconds, len(processes), _sum_totals(reports), rows, errors)


def _parse_report(text: bytes | str) -> dict[str, Any]:
    """Return a report. One of the errors that `summarise_reports` expects is raised if it is none."""
    report: dict[str, Any] = json.loads(text)
    _sum_totals([report])
    for dimension in DIMENSIONS:
        for error, counts in report.get(dimension, {}).values():
            sum(counts.values(), float(error))
    return report


def _sum_totals(reports: list[dict[str, Any]]) -> dict[Measure, int]:
    return {measure: round(sum(float(report.get(measure, 0)) for report in reports)) for measure in MEASURES}


def _merge(reports: list[dict[str, Any]], dimension: Dimension, measure: Measure) -> Sketch:
    parts = [report[dimension][measure] for report in reports if measure in report.get(dimension, {})]
    return merge_sketches(((counts, error) for error, counts in parts), CAPACITY)
