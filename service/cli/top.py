"""`ratelimit top`: who is denied most, who spends most tokens, who asks most; in all sidecars on a store."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ratelimit import RateLimitError
from ratelimit.metering.activity import (
    DIMENSIONS,
    INTERVAL_SECONDS,
    MAX_WINDOW,
    MEASURES,
    list_intervals,
    make_interval_store_key,
    summarise_reports,
)
from ratelimit.request.privacy import mask
from service.cli.key_press import KeyPresses
from service.cli.keys import DEADLINE, Store
from service.cli.output import Json, console, fail, show_json
from service.cli.store import open_store
from service.cli.stream import read_time
from service.settings import parse_duration

if TYPE_CHECKING:
    from ratelimit.metering.activity import ActivitySummary, Dimension, Row
    from service.cli.store import OpenedStore

By = Annotated[
    Literal["key", "tenant", "model", "plan"] | None,
    typer.Option(help="Show only keys, tenants, models or plans.", show_default=False),
]
Sort = Annotated[Literal["checks", "denied", "tokens"], typer.Option(help="What the rows are sorted by.")]
Window = Annotated[str, typer.Option(help=f"How far to look back, 5s to {MAX_WINDOW}s.", metavar="DURATION")]
Count = Annotated[int, typer.Option("-n", help="Rows of each table.", min=1, max=50)]
Once = Annotated[bool, typer.Option("--once", help="Print once and exit.")]

_REFRESH: Final = 1.0
"""Seconds between two looks at the store."""

_MASKED: Final = frozenset({"key", "tenant"})
_NAMES_WITHOUT: Final = {"model": "no model"}


def top(
    redis: Store,
    by: By = None,
    sort: Sort = "denied",
    window: Window = "10s",
    count: Count = 10,
    once: Once = False,  # noqa: FBT002 - typer makes a flag of it
    json: Json = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Show who is denied most, who spends most tokens and who asks most, in all sidecars on the store.

    Without --once the screen is renewed every second, until q or Ctrl-C. Keys and tenants are masked, except
    with --json. A number with + is a lower bound: there were too many names to count each of them exactly.
    """
    seconds = _parse_window(window)
    dimensions = DIMENSIONS if by is None else (by,)
    try:
        with open_store(redis, DEADLINE) as store:
            if json:
                _print_json(store, seconds, dimensions, sort, count, once=once)
            elif once or not console.is_terminal:
                console.print(_render(_read(store, seconds), store.name, dimensions, sort, count))
            else:
                _show_live(store, seconds, dimensions, sort, count)
    except RateLimitError as error:
        fail(error)


def _parse_window(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        fail(f"--window: {error}")
    if not isinstance(seconds, float) or not INTERVAL_SECONDS <= seconds <= MAX_WINDOW:
        fail(f"--window {text}: must be from {INTERVAL_SECONDS}s to {MAX_WINDOW}s")
    return seconds


def _read(store: OpenedStore, window: float) -> ActivitySummary:
    whole, micro = read_time(store.client)
    now = whole + micro / 1_000_000
    intervals = list_intervals(now, window)
    pipeline: Any = store.client.pipeline(transaction=False)
    for interval in intervals:
        pipeline.hgetall(make_interval_store_key(store.keyspace, interval))
    return summarise_reports(pipeline.execute(), now - intervals[0] * INTERVAL_SECONDS)


def _sort_rows(summary: ActivitySummary, dimension: Dimension, sort: str, count: int) -> list[Row]:
    others = [measure for measure in MEASURES if measure != sort]

    def make_sort_key(row: Row) -> tuple[object, ...]:
        return (-getattr(row, sort), *(-getattr(row, measure) for measure in others), row.name)

    return sorted(summary.rows[dimension], key=make_sort_key)[:count]


def _print_json(
    store: OpenedStore,
    window: float,
    dimensions: tuple[Dimension, ...],
    sort: str,
    count: int,
    *,
    once: bool,
) -> None:
    while True:
        summary = _read(store, window)
        show_json(_as_dict(summary, store.name, dimensions, sort, count))
        if once:
            return
        time.sleep(_REFRESH)


def _as_dict(
    summary: ActivitySummary, store: str, dimensions: tuple[Dimension, ...], sort: str, count: int
) -> dict[str, Any]:
    return {
        "store": store,
        "window": round(summary.seconds, 3),
        "processes": summary.processes,
        **dict(summary.totals.items()),
        "missing": {dimension: summary.errors[dimension] for dimension in dimensions},
        "by": {
            dimension: [
                {
                    "name": row.name or None,
                    **{measure: getattr(row, measure) for measure in MEASURES},
                }
                for row in _sort_rows(summary, dimension, sort, count)
            ]
            for dimension in dimensions
        },
    }


def _show_live(
    store: OpenedStore, window: float, dimensions: tuple[Dimension, ...], sort: str, count: int
) -> None:
    with (
        contextlib.suppress(KeyboardInterrupt),  # Ctrl-C may come at any step, not only while it waits
        KeyPresses() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(_render(_read(store, window), store.name, dimensions, sort, count), refresh=True)
            if keys.wait_for("q", _REFRESH):
                return


def _render(
    summary: ActivitySummary, store: str, dimensions: tuple[Dimension, ...], sort: str, count: int
) -> Group:
    seconds = summary.seconds
    rates = {measure: summary.totals[measure] / seconds for measure in MEASURES}
    head = Text(
        f"{store}, {summary.processes} process{'es' if summary.processes > 1 else ''}, last {seconds:.0f} s\n"
        f"{rates['checks']:,.1f} checks/s, {rates['denied']:,.1f} denied/s,"
        f" {rates['tokens'] * 60:,.0f} tokens/min"
    )
    if not summary.processes:
        return Group(head, Text("nothing happened; sidecars tell every second what they do"))
    if dimensions == DIMENSIONS and summary.rows["tenant"] == summary.rows["key"]:
        dimensions = ("key", "model", "plan")  # without tenants, each key is its own
    tables = (_make_table(summary, dimension, sort, count) for dimension in dimensions)
    return Group(head, *(Padding(table, (1, 0, 0, 0)) for table in tables))


def _make_table(summary: ActivitySummary, dimension: Dimension, sort: str, count: int) -> Table:
    table = Table(box=None, pad_edge=False, title_justify="left", padding=(0, 2, 0, 0))
    table.add_column(dimension, width=30, no_wrap=True)
    for measure in MEASURES:
        table.add_column(measure, justify="right", style="bold" if measure == sort else "", no_wrap=True)
    for row in _sort_rows(summary, dimension, sort, count):
        name = row.name or _NAMES_WITHOUT.get(dimension, "")
        shown = mask(name) if dimension in _MASKED else name
        table.add_row(
            Text(shown, overflow="ellipsis"),
            *(
                f"{getattr(row, measure):,}{'+' if summary.errors[dimension][measure] else ''}"
                for measure in MEASURES
            ),
        )
    return table
