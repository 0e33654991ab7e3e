"""`ratelimit usage`: what was used, per key and model, or record by record as it is settled."""

from __future__ import annotations

import contextlib
import json as json_
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ratelimit import RateLimitError
from ratelimit.metering.usage_records import summarise
from ratelimit.request.privacy import mask
from service.cli.keys import Store
from service.cli.output import Json, console, fail, show_json
from service.cli.stream import START, Stream, opened, records

if TYPE_CHECKING:
    from ratelimit.metering.usage_records import Record, Summary, Totals

Since = Annotated[
    str | None,
    typer.Option(
        help="Only what was settled since: 30m, 2h, 7d, or a time such as 2026-02-20T15:30:00Z.",
        show_default=False,
    ),
]
Last = Annotated[
    int | None, typer.Option(help="Only the newest N records.", metavar="N", min=1, show_default=False)
]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Print each record as it is settled, until Ctrl-C.")
]

_HEADINGS: Final = ("requests", "input", "output", "errors", "p50 ms", "p99 ms")
_INDENT: Final = (0, 0, 0, 2)


def usage(
    redis: Store,
    since: Since = None,
    last: Last = None,
    follow: Follow = False,  # noqa: FBT002 - typer's way of a flag
    json: Json = False,  # noqa: FBT002 - typer's way of a flag
) -> None:
    """Show requests, tokens, errors (status 400 and up) and latency per key and model.

    With --follow each record as it is settled instead; --since and --last then say which to
    begin with. People see masked keys; --json has them whole, for billing.
    """
    try:
        with opened(redis, waits=follow) as (stream, store):
            after = START if since is None else _before(stream, since)
            if follow:
                begin = 0 if last is None and since is None else last
                with contextlib.suppress(KeyboardInterrupt):
                    _follow(stream, after, begin, json=json)
            else:
                entries = stream.pages(after) if last is None else stream.newest(after, last)
                _show(summarise(records(entries)), store, since, json=json)
    except RateLimitError as error:
        fail(error)


def _before(stream: Stream, since: str) -> str:
    try:
        return stream.before(since)
    except ValueError as error:
        fail(f"--since {since}: {error}, or 30m, 2h, 7d")


def _follow(stream: Stream, after: str, last: int | None, *, json: bool) -> None:
    """Print the newest `last` after an id, or all of them if None, then each as it comes, for ever."""
    newest = [] if last is None else stream.newest(after, max(last, 1))
    after = newest[-1][0] if newest else after
    if not json:
        # Only now: from the heading on nothing is missed.
        typer.echo(_line("time (UTC)", "key", "status", "input", "output", "latency", "model"))
    for record in records(newest if last else []):
        _print(record, json=json)
    while True:
        for entry in stream.pages(after):
            after = entry[0]
            for record in records([entry]):
                _print(record, json=json)
        stream.wait(after)


def _print(record: Record, *, json: bool) -> None:
    if json:
        typer.echo(json_.dumps(record.as_dict()))
        return
    latency = _milliseconds(record.latency_ms)
    typer.echo(
        _line(
            f"{record.timestamp:%m-%d %H:%M:%S}",
            mask(record.key),
            "-" if record.status is None else str(record.status),
            _count(record.input_tokens),
            _count(record.output_tokens),
            latency if record.latency_ms is None else f"{latency} ms",
            record.model or "-",
        )
    )


def _line(*cells: str) -> str:
    # The model comes last and whole, however long: a line of a log is searched more often than looked at.
    time, key, status, used, made, latency, model = cells
    return f"{time:<14}  {key:<10}  {status:>6}  {used:>7}  {made:>7}  {latency:>9}  {model}"


def _show(summary: Summary, store: str, since: str | None, *, json: bool) -> None:
    if json:
        show_json([_row(*group) for group in summary.ranked()])
    elif summary.first is None or summary.last is None:
        console.print(f"no usage records in {store}{f' since {since}' if since else ''}", markup=False)
    else:
        span = f"{summary.first:%Y-%m-%d %H:%M:%S} to {summary.last:%Y-%m-%d %H:%M:%S} UTC"
        console.print(f"requests from {span}, with their tokens")
        console.print(_table(summary))


def _row(key: str, model: str | None, totals: Totals) -> dict[str, Any]:
    return {
        "key": key,
        "model": model,
        "requests": totals.requests,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "errors": totals.errors,
        "latency_p50_ms": totals.latency(50),
        "latency_p99_ms": totals.latency(99),
    }


def _table(summary: Summary) -> Table:
    """Put models below their key, so that 80 columns have room for most of their names."""
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("key, model", "total", overflow="fold")
    for heading, total in zip(_HEADINGS, _numbers(summary.total), strict=True):
        table.add_column(heading, total, justify="right", no_wrap=True)
    for key, groups in groupby(summary.ranked(), lambda group: group[0]):
        table.add_row(Text(mask(key)), *_numbers(summary.keys[key]), style="bold")
        for _, model, totals in groups:
            # Text, because a name may hold the brackets of markup.
            name = Text("no model") if model is None else Text(model)
            table.add_row(Padding(name, _INDENT), *_numbers(totals))
    return table


def _numbers(totals: Totals) -> tuple[str, ...]:
    counts = (totals.requests, totals.input_tokens, totals.output_tokens, totals.errors)
    return (*map(_count, counts), *(_milliseconds(totals.latency(percent)) for percent in (50, 99)))


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _milliseconds(latency: float | None) -> str:
    return "-" if latency is None else f"{latency:,.0f}"
