"""The figures of a benchmark: a value for each round, and tables of their medians."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Cell:
    """One place where contestants are measured."""

    label: str
    _: KW_ONLY
    contestants: tuple[str, ...] = ()
    rounds: int = 0  # as many as the benchmark has, unless given
    at: int | None = None  # where in a sweep the cell is, if it is part of one
    phase: str = ""  # all rounds of a phase come before the next phase


class Place(NamedTuple):
    cell: str
    at: int | None
    contestant: str
    figure: str


class Found(dict[Place, list[float]]):
    """All figures of a benchmark, a value for each round."""

    def note(self, cell: Cell, contestant: str, figures: Mapping[str, float]) -> None:
        for figure, value in figures.items():
            self.setdefault(Place(cell.label, cell.at, contestant, figure), []).append(float(value))

    def add(self, cell: Cell, contestant: str, figure: str, rounds: Iterable[float]) -> None:
        for value in rounds:
            self.note(cell, contestant, {figure: value})

    def rounds(self, cell: Cell, contestant: str, figure: str) -> list[float]:
        """Return the rounds of a figure; KeyError if there is none."""
        return self[Place(cell.label, cell.at, contestant, figure)]

    def ratio(self, cell: Cell, above: str, below: str, figure: str) -> list[float]:
        return ratio(self.rounds(cell, above, figure), self.rounds(cell, below, figure))

    def frame(self) -> pl.DataFrame:
        """Return a row for each figure: its place, its rounds, and their median, min and max."""
        rows = [(*place, rounds) for place, rounds in self.items()]
        schema: dict[str, Any] = dict.fromkeys(Place._fields, pl.String) | {"at": pl.Int64}
        frame = pl.DataFrame(rows, schema | {"rounds": pl.List(pl.Float64)}, orient="row")
        rounds = pl.col("rounds").list
        return frame.with_columns(median=rounds.median(), min=rounds.min(), max=rounds.max())


def ratio(above: Iterable[float], below: Iterable[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that `percent` of all do not exceed (nearest rank)."""
    return float(np.percentile(values, percent, method="inverted_cdf"))


def tables(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Give a table for each cell; for a sweep one for each figure, with a column for each step."""
    for (cell,), part in frame.group_by("cell", maintain_order=True):
        if part["at"].null_count():  # the longer side of the table runs downwards
            sides = ("figure", "contestant") if part["figure"].n_unique() < 9 else ("contestant", "figure")
            yield str(cell), pivot(part, *sides)
        else:
            steps = part.sort("at").with_columns(pl.col("at").cast(pl.String))
            for (figure,), of_figure in steps.group_by("figure", maintain_order=True):
                yield f"{cell}: {figure}".replace("_", " "), pivot(of_figure, "at", "contestant")


def pivot(frame: pl.DataFrame, on: str, index: str) -> pl.DataFrame:
    texts = [spread_text(row) for row in frame.iter_rows(named=True)]
    return frame.with_columns(pl.Series("text", texts)).pivot(on=on, index=index, values="text")


def spread_text(spread: Mapping[str, Any]) -> str:
    """Write a median with the least and the most of all rounds, where they differ."""
    low, middle, high = (short(spread[name]) for name in ("min", "median", "max"))
    return middle if low == high else f"{middle} ({low} to {high})"


def short(value: float) -> str:
    """Write a value with three digits, or all before the point if those are more."""
    if value % 1 == 0 or abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:#.3g}"
