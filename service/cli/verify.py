"""`ratelimit verify`: check a history of decisions against the promises."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.progress import Progress

from ratelimit import InvalidRequest, Policy, PolicyError
from ratelimit.history import merge_lines, read_lines, verify_history
from service.cli.output import Json, console, fail, show_json
from service.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ratelimit.history import HistoryFault, HistoryReport, NumberedLine

SHOWN: Final = 20
"""How many faults are printed, and how many `--json` lists; all are counted."""

_MAX_REMEMBER: Final = 86_400

History = Annotated[
    list[Path],
    typer.Argument(
        metavar="HISTORY", help="The files, as `serve --history` writes them.", show_default=False
    ),
]


def verify(
    history: History,
    policy: Annotated[Path, typer.Option("--policy", "-p", help="The policy of these decisions.")],
    remember: Annotated[
        str, typer.Option(help="How long request ids were remembered.", show_default=True)
    ] = "10m",
    json: Json = False,  # noqa: FBT002 - typer makes a flag of it
) -> None:
    """Check the decisions in HISTORY against the promises P1, P2, P6 and P7 of POLICY.

    Exit 0 if no promise was broken, else 1 with the windows at fault and what would explain them.
    """
    seconds = _parse_remember(remember)
    try:
        report = verify_history(_read_with_progress(history), Policy.from_file(policy), remember=seconds)
    except (InvalidRequest, PolicyError, OSError) as error:
        fail(error)
    if json:
        show_json(report.as_dict(SHOWN))
    else:
        _print_report(report)
    if not report.is_sound:
        raise typer.Exit(1)


def _parse_remember(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        fail(f"--remember: {error}")
    if not isinstance(seconds, float) or not 0 <= seconds <= _MAX_REMEMBER:
        fail(f"--remember {text}: must be from 0s to 24h")
    return seconds


def _read_with_progress(paths: Sequence[Path]) -> Iterator[NumberedLine]:
    with ExitStack() as stack:
        progress = stack.enter_context(
            Progress(console=console, transient=True, disable=not console.is_terminal)
        )
        files = [stack.enter_context(progress.open(path, "rb", description=path.name)) for path in paths]
        histories = [read_lines(file, path.name) for file, path in zip(files, paths, strict=True)]
        yield from merge_lines(*histories)


def _print_report(report: HistoryReport) -> None:
    console.print(
        f"{report.decisions} decisions ({report.admitted} admitted), {report.settlements} settlements,"
        f" {report.repeated} repeated"
    )
    if report.outage_admissions:
        console.print(f"{report.outage_admissions} admitted by on_outage: no limit counts them")
    if report.windows_only:
        console.print(
            f"{report.windows_only} of {report.buckets + report.windows_only} buckets: only the windows were"
            " checked, because the order of their charges is not known"
        )
    if report.is_sound:
        console.print("[bold]no promise was broken[/]")
        return
    counts = ", ".join(
        f"{count} {kind}" for kind, count in Counter(fault.kind for fault in report.faults).items()
    )
    console.print(f"[bold]a promise was broken:[/] {counts}")
    for fault in report.faults[:SHOWN]:
        typer.echo(_describe_fault(fault))
    if len(report.faults) > SHOWN:
        console.print(f"and {len(report.faults) - SHOWN} more")


def _describe_fault(fault: HistoryFault) -> str:
    """Return a line that says what was wrong, and one that would explain it."""
    shown = fault.as_dict()
    about = " ".join(part for part in (fault.key, fault.limit) if part)
    text = f"{fault.source}:{fault.line}: {fault.promise} {fault.kind}: {about} at {shown['to']}"
    if fault.kind == "over-admitted":
        text += (
            f": {fault.admitted:g} {fault.unit} since {shown['from']}, {fault.amount:g} more than the"
            f" {fault.bound:g} that are allowed"
        )
    elif fault.unit:
        text += f": {fault.amount:g} {fault.unit}"
    return f"{text}\n    {fault.explanation}" if fault.explanation else text
