"""What commands print: results on standard output, errors in one line on standard error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from ratelimit.policy.rate import Rate
from ratelimit.request.timestamp import MICROSECONDS

if TYPE_CHECKING:
    from ratelimit import Decision, LimitState

console = Console(highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

WRONG_USAGE = 2
"""The exit code for wrong usage."""


def fail(message: object, code: int = WRONG_USAGE) -> NoReturn:
    """Print an error and exit."""
    typer.echo(f"ratelimit: {message}", err=True)
    raise typer.Exit(code)


def show_json(value: Any) -> None:  # noqa: ANN401 - JSON of any kind
    """Print JSON for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_decision(decision: Decision, *, as_json: bool) -> None:
    """Print a decision, for programs or for people."""
    if as_json:
        show_json(decision.as_dict())
        return
    verdict = "allowed" if decision else f"denied by {', '.join(decision.violated)}"
    console.print(f"{decision.key} on plan {decision.plan}: [bold]{verdict}[/], {_describe_result(decision)}")
    table = Table("limit", "unit", "rate", "burst", "remaining", "full in", "mode", box=None, pad_edge=False)
    for state in decision.limits:
        table.add_row(
            state.name,
            state.unit,
            _format_rate(state),
            str(state.burst),
            str(state.remaining),
            f"{state.reset_after:.3f} s",
            state.mode,
        )
    console.print(table)


def _format_rate(state: LimitState) -> str:
    if not state.period:
        return f"{state.limit} at once"
    return str(Rate(state.limit, round(state.period * MICROSECONDS)))


def _describe_result(decision: Decision) -> str:
    return f"decided by {decision.source}" if decision else decision.advice
