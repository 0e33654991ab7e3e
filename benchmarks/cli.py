"""`python -m benchmarks [NAME …]`: only a run of all writes the page and plots and judges the targets.

Exit 0: done, even if a target was missed, because machines are noisy. 1: a benchmark found a fault. 2: the
command line or the trace is wrong.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks import BenchmarkError, plots, report, targets
from benchmarks.figures import Found
from benchmarks.model import TraceError
from benchmarks.programs import HERE
from benchmarks.runner import Benchmark, Result, run, stderr
from benchmarks.suite import accuracy, azure, gateways, growth, http, library, memory, shortcuts
from ratelimit import StoreUnavailable

_BENCHMARKS: Final[tuple[type[Benchmark], ...]] = (
    *(library.Library, accuracy.Accuracy, memory.Memory, growth.Growth, shortcuts.Shortcuts, http.Http),
    *(gateways.Gateways, azure.Azure, azure.AzureReserve),
)
FULL: Final = {benchmark.name: benchmark() for benchmark in _BENCHMARKS}
QUICK: Final = {benchmark.name: benchmark(**benchmark.quick) for benchmark in _BENCHMARKS}

app: Final = typer.Typer(add_completion=False)


def _check_names(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in FULL:
            raise typer.BadParameter(f"there is no benchmark {name!r}; any of: {', '.join(FULL)}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    app(arguments, prog_name="python -m benchmarks")


Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", callback=_check_names, help=f"Of: {', '.join(FULL)}.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Quick = Annotated[bool, typer.Option("--quick", help="A minute: fewer rounds, smaller sizes.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Repeat each replay N times (5; quick: 1).")]
Trace = Annotated[Path | None, typer.Option(help="The Azure trace (../shared/data/, else the excerpt).")]
Results = Annotated[Path, typer.Option(help="Folder for the figures.")]


@app.command(help="Make the project's figures.")
def command(
    names: Names = None,
    *,
    as_json: Json = False,
    quick: Quick = False,
    rounds: Rounds = None,
    trace: Trace = None,
    results: Results = HERE / "results",
) -> None:
    found, documents = dict[str, Result](), dict[str, Any]()
    for name in names or FULL:
        benchmark = _with_options((QUICK if quick else FULL)[name], rounds, trace)
        try:
            result = found[name] = run(benchmark)
        except (TraceError, BenchmarkError, StoreUnavailable) as error:
            stderr.print(f"{name}: {error}", markup=False, soft_wrap=True)
            raise typer.Exit(2 if isinstance(error, TraceError) else 1) from None
        documents[name] = report.document(result)
        report.save(name, documents[name], results)
        if not as_json:
            report.show(report.section(result))
        for fault in result.faults:
            stderr.print(fault, markup=False, soft_wrap=True)
    if as_json:
        print(json.dumps(documents, indent=2))
    if not names:
        figures = Found(item for result in found.values() for item in result.found.items())
        verdicts = targets.judge(figures)
        report.save("targets", verdicts, results)
        (results / "table.md").write_text(report.page(found, documents, verdicts), encoding="utf-8")
        plots.draw(figures, results)
        if not as_json:
            report.show(report.target_section(verdicts))
    raise typer.Exit(int(any(result.faults for result in found.values())))


def _with_options(benchmark: Benchmark, rounds: int | None, trace: Path | None) -> Benchmark:
    """Return a fresh benchmark; the options are those of the replays of the trace."""
    if isinstance(benchmark, azure.Azure):
        return dataclasses.replace(benchmark, trace=trace, rounds=rounds or benchmark.rounds)
    return dataclasses.replace(benchmark)  # type: ignore[type-var]  # all are dataclasses
