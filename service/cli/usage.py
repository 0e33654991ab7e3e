"""`ratelimit usage`: what was used for each key and model, or each usage record as it is settled."""

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
from service.cli.stream import LOWEST_ID, UsageStream, open_stream, parse_records

if TYPE_CHECKING:
    from ratelimit.metering.usage_records import Record, Summary, Totals

Since = Annotated[
    str | None,
    typer.Option(
        help="Only records settled since then: 30m, 2h or 7d ago, or a time such as 2026-02-20T15:30:00Z.",
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
    follow: Follow = False,  # noqa: FBT002 - typer makes a flag of it
    json: Json = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Show requests, tokens, errors (status 400 and up) and latency per key and model.

    With --follow, print each record as it is settled instead, beginning with those that --since and
    --last select. Keys are masked, except with --json, which is for billing.
    """
    try:
        with open_stream(redis, waits=follow) as (stream, store):
            after = LOWEST_ID if since is None else _find_id_before(stream, since)
            if follow:
                count = 0 if last is None and since is None else last
                with contextlib.suppress(KeyboardInterrupt):
                    _follow_stream(stream, after, count, json=json)
            else:
                entries = stream.read_entries(after) if last is None else stream.read_newest(after, last)
                _print_summary(summarise(parse_records(entries)), store, since, json=json)
    except RateLimitError as error:
        fail(error)


def _find_id_before(stream: UsageStream, since: str) -> str:
    try:
        return stream.find_id_before(since)
    except ValueError as error:
        fail(f"--since {since}: {error}, or 30m, 2h, 7d")


def _follow_stream(stream: UsageStream, after: str, count: int | None, *, json: bool) -> None:
    """Print the newest `count` records after an id, or all if None, and then each new one, for ever."""
    stream.start_after(after)
    newest = [] if count is None else stream.read_newest(after, count)
    if not json:
        # Printed only now: every record that is settled after the heading appears will be printed.
        typer.echo(_format_line("time (UTC)", "key", "status", "input", "output", "latency", "model"))
    for record in parse_records(newest):
        _print_record(record, json=json)
    while True:
        for record in parse_records(stream.read_new()):
            _print_record(record, json=json)
        stream.wait_for_entry()


def _print_record(record: Record, *, json: bool) -> None:
    if json:
        typer.echo(json_.dumps(record.as_dict()))
        return
    latency = _format_milliseconds(record.latency_ms)
    typer.echo(
        _format_line(
            f"{record.timestamp:%m-%d %H:%M:%S}",
            mask(record.key),
            "-" if record.status is None else str(record.status),
            _format_count(record.input_tokens),
            _format_count(record.output_tokens),
            latency if record.latency_ms is None else f"{latency} ms",
            record.model or "-",
        )
    )


def _format_line(*cells: str) -> str:
    # The model comes last and is never cut, however long it is: people search these lines for it.
    time, key, status, input_tokens, output_tokens, latency, model = cells
    return f"{time:<14}  {key:<10}  {status:>6}  {input_tokens:>7}  {output_tokens:>7}  {latency:>9}  {model}"


def _print_summary(summary: Summary, store: str, since: str | None, *, json: bool) -> None:
    if json:
        show_json([_make_row(*group) for group in summary.ranked()])
    elif summary.first is None or summary.last is None:
        console.print(f"no usage records in {store}{f' since {since}' if since else ''}", markup=False)
    else:
        span = f"{summary.first:%Y-%m-%d %H:%M:%S} to {summary.last:%Y-%m-%d %H:%M:%S} UTC"
        console.print(f"requests from {span}, with their tokens")
        console.print(_make_table(summary))


def _make_row(key: str, model: str | None, totals: Totals) -> dict[str, Any]:
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


def _make_table(summary: Summary) -> Table:
    """Make the table. Models stand below their key, so that most of their names fit into 80 columns."""
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("key, model", "total", overflow="fold")
    for heading, total in zip(_HEADINGS, _format_totals(summary.total), strict=True):
        table.add_column(heading, total, justify="right", no_wrap=True)
    for key, groups in groupby(summary.ranked(), lambda group: group[0]):
        table.add_row(Text(mask(key)), *_format_totals(summary.keys[key]), style="bold")
        for _, model, totals in groups:
            # Text, because rich reads square brackets in a plain string as markup.
            name = Text("no model") if model is None else Text(model)
            table.add_row(Padding(name, _INDENT), *_format_totals(totals))
    return table


def _format_totals(totals: Totals) -> tuple[str, ...]:
    counts = (totals.requests, totals.input_tokens, totals.output_tokens, totals.errors)
    return (
        *map(_format_count, counts),
        *(_format_milliseconds(totals.latency(percent)) for percent in (50, 99)),
    )


def _format_count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _format_milliseconds(latency: float | None) -> str:
    return "-" if latency is None else f"{latency:,.0f}"
