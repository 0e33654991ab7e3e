"""The tables of docs/scale.md, made of the figures of one run.

`python -m benchmarks.scale.page` writes those of the last run of `python -m benchmarks scale` into the page,
and puts its figures and pictures beside it.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import polars as pl

from benchmarks.contestants import OURS
from benchmarks.figures import short
from benchmarks.report import DOCS, RESULTS, fill_marked, markdown
from benchmarks.scale.sizing import BUSY, HTTP_US, LEASED_US, MAX_PRIMARIES, Costs, size

PAGE: Final = DOCS / "scale.md"
FIGURES: Final = DOCS / "figures"
EITHER: Final = ("without leases", "with leases")
LEASES: Final = {"without leases": "none", "with leases": "5 %", "with small leases": "50 % ÷ sidecars"}


class Figures:
    """Looks up medians."""

    def __init__(self, frame: pl.DataFrame) -> None:
        rows = frame.select("cell", "at", "contestant", "figure", "median").iter_rows()
        self._found = {(cell, at, name, figure): median for cell, at, name, figure, median in rows}

    def steps(self, cell: str) -> list[int]:
        return sorted({at for found, at, _, _ in self._found if found == cell and at is not None})

    def names(self, cell: str) -> list[str]:
        return list(dict.fromkeys(name for found, _, name, _ in self._found if found == cell))

    def get(self, cell: str, at: int | None, name: str) -> Callable[[str], float]:
        return lambda figure: self._found[cell, at, name, figure]

    @property
    def costs(self) -> Costs:
        find = self.get("cost", None, OURS)
        return Costs(find("call_us"), find("check_us"), find("client_call_us"), find("client_check_us"))


def make_tables(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return every table by its name; those without figures are left out."""
    figures = Figures(frame)
    tables = {name: make(figures) for name, make in _TABLES.items()}
    return {name: table for name, table in tables.items() if len(table)}


def _table(*columns: str) -> Callable[[Callable[[Figures], Iterator[tuple[str, ...]]]], Any]:
    def wrap(make: Callable[[Figures], Iterator[tuple[str, ...]]]) -> Callable[[Figures], pl.DataFrame]:
        return lambda figures: pl.DataFrame(
            [*make(figures)], schema=dict.fromkeys(columns, pl.String), orient="row"
        )

    return wrap


def _percent(value: float) -> str:
    return f"{value:.1%}" if value else "0"


@_table(
    "sidecars",
    "leases",
    "calls per check",
    "decided from leases",
    "admitted",
    "denied, tokens out on lease",
    "most out on lease ÷ burst",
    "over-admitted",
)
def _sidecars(figures: Figures) -> Iterator[tuple[str, ...]]:
    for at in figures.steps("sidecars"):
        for name, leases in LEASES.items():
            find = figures.get("sidecars", at, name)
            yield (
                f"{at:,}",
                leases,
                short(find("calls_per_check")),
                _percent(find("leased_share")),
                _percent(find("admitted_share")),
                _percent(find("needless_share")),
                f"{find('most_leased') / 1000:.2f}",
                short(find("over_admitted")),
            )


@_table(
    "checks/s of a sidecar", "checks per call, asking", "calls per check, asking", "with leases", "leased"
)
def _rates(figures: Figures) -> Iterator[tuple[str, ...]]:
    cell = "checks a second of a sidecar"
    for at in figures.steps(cell):
        asking, leasing = (figures.get(cell, at, name) for name in EITHER)
        yield (
            f"{at:,}",
            short(asking("checks_per_call")),
            short(asking("calls_per_check")),
            short(leasing("calls_per_check")),
            _percent(leasing("leased_share")),
        )


@_table("nodes", "nodes without work", "hottest node ÷ mean", "its share of all calls", "with leases")
def _nodes(figures: Figures) -> Iterator[tuple[str, ...]]:
    for at in figures.steps("nodes"):
        asking, leasing = (figures.get("nodes", at, name) for name in EITHER)
        yield (
            f"{at:,}",
            short(asking("idle_nodes")),
            short(asking("hottest_node")),
            _percent(asking("hottest_node") / at),
            _percent(leasing("hottest_node") / at),
        )


@_table(
    "lease, of the burst",
    "calls per check at 80 %",
    "denied, tokens out on lease",
    "calls per check at 120 %",
    "limit used at 120 %",
    "denied at 120 %, tokens out on lease",
    "most out on lease ÷ burst",
)
def _lease_sizes(figures: Figures) -> Iterator[tuple[str, ...]]:
    for at in figures.steps("lease size"):
        below, above = (figures.get("lease size", at, name) for name in figures.names("lease size"))
        yield (
            f"{at / 10:g} %",
            short(below("calls_per_check")),
            _percent(below("needless_share")),
            short(above("calls_per_check")),
            _percent(above("used_of_limit")),
            _percent(above("needless_share")),
            f"{above('most_leased') / 2_000:.2f}",
        )


@_table(
    "the sidecar", "tokens on lease", "lost", "refilled after", "admitted in the next 4 s", "over-admitted"
)
def _death(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name in figures.names("a sidecar ends"):
        find = figures.get("a sidecar ends", None, name)
        yield (
            name,
            short(find("held")),
            short(find("lost")),
            f"{find('refilled_after_s'):g} s",
            short(find("admitted_afterwards")),
            short(find("over_admitted")),
        )


@_table(
    "`on_outage`",
    "its tenants admitted",
    "of these from leases",
    "others decided without a store",
    "last decision without it, after its return",
    "above the bound ÷ burst",
)
def _loss(figures: Figures) -> Iterator[tuple[str, ...]]:
    cell = "a node is lost and comes back empty"
    for name in figures.names(cell):
        find = figures.get(cell, None, name)
        yield (
            name,
            _percent(find("admitted_share_while_down")),
            _percent(find("leased_share_while_down")),
            short(find("others_without_store")),
            f"{find('recovered_after_ms'):.0f} ms",
            f"{find('above_bound') / find('burst'):.2f}",
        )


@_table(
    "",
    "admitted of 90 % of the limit",
    "calls between regions per check",
    "checks that waited for one",
    "for",
    "at 150 %: limit used",
    "above the bound ÷ burst",
    "denied, tokens out on lease",
)
def _regions(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name in figures.names("three regions"):
        find = figures.get("three regions", None, name)
        wait = find("far_wait_ms")
        yield (
            name,
            _percent(find("admitted_share")),
            short(find("far_calls_per_check")),
            _percent(find("far_wait_share")),
            f"{wait:.0f} ms" if wait else "-",
            _percent(find("admitted_of_limit")),
            f"{find('above_bound') / 600:.2f}",
            _percent(find("needless_share_above")),
        )


@_table("tasks", "checks per call", "store, µs a decision", "client, µs a decision")
def _cost(figures: Figures) -> Iterator[tuple[str, ...]]:
    for at in figures.steps("cost of a decision"):
        find = figures.get("cost of a decision", at, OURS)
        yield f"{at:,}", short(find("checks_per_call")), f"{find('node_us'):.1f}", f"{find('client_us'):.1f}"


@_table("of a processor", "a call", "a check in it")
def _fitted(figures: Figures) -> Iterator[tuple[str, ...]]:
    costs = figures.costs
    yield "store", f"{costs.call:.1f} µs", f"{costs.check:.1f} µs"
    yield "process with the library", f"{costs.client_call:.1f} µs", f"{costs.client_check:.1f} µs"
    yield "the same, from a lease", "0", f"{LEASED_US:g} µs"
    yield "sidecar, `POST /v1/check`, all of it", "", f"{HTTP_US:g} µs"


@_table(
    "sidecars",
    "leases",
    "calls per check",
    "admitted",
    "store, µs a decision",
    "cores busy in the store",
    f"primaries at {BUSY:.0%}",
    f"hottest of {MAX_PRIMARIES}, busy",
    "sidecar cores",
    "over-admitted",
)
def _million(figures: Figures) -> Iterator[tuple[str, ...]]:
    cell = "a million decisions a second"
    for at in figures.steps(cell):
        for name, leases in LEASES.items():
            find = figures.get(cell, at, name)
            needed = size(1e6, _pick(find), figures.costs)
            yield (
                f"{at:,}",
                leases,
                short(find("calls_per_check")),
                _percent(find("admitted_share")),
                f"{needed.node_us:.1f}",
                f"{needed.store_cores:.1f}",
                f"{needed.nodes}",
                f"{needed.busiest:.0%}",
                f"{needed.http_cores}",
                short(find("over_admitted")),
            )


def _pick(find: Callable[[str], float]) -> Mapping[str, float]:
    return {name: find(name) for name in ("calls_per_check", "to_store_share", "hottest_node")}


_TABLES: Final[dict[str, Callable[[Figures], pl.DataFrame]]] = {
    "million": _million,
    "fitted": _fitted,
    "cost": _cost,
    "sidecars": _sidecars,
    "rates": _rates,
    "nodes": _nodes,
    "lease-sizes": _lease_sizes,
    "death": _death,
    "loss": _loss,
    "regions": _regions,
}


def read_frame(document: Mapping[str, Any]) -> pl.DataFrame:
    """Return the figures of a result that was written as JSON."""
    return pl.DataFrame(document["figures"], infer_schema_length=None)


def fill(text: str, frame: pl.DataFrame) -> str:
    """Return the page with the tables of these figures; KeyError if it marks a table that there is not."""
    tables = make_tables(frame)
    return fill_marked(text, {name: markdown(table) for name, table in tables.items()})


def main() -> None:
    document = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), read_frame(document)), encoding="utf-8")
    for name in ("scale.json", "scale.svg", "scale-regions.svg"):
        shutil.copy(RESULTS / name, FIGURES / name)


if __name__ == "__main__":
    main()
