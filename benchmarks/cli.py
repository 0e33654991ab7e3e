"""`python -m benchmarks [NAME …]`: run them all, or those that are named.

Everything at once also writes the page and the plots, and compares the figures with what they
have to reach; a benchmark that is run alone shows its own figures only.

Exit 0: done, whether or not every target was met: machines are noisy. 1: a benchmark found
something wrong. 2: the command line or the trace is wrong.
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

_MODULES: Final = (library, accuracy, memory, growth, shortcuts, http, gateways, azure)
FULL: Final = {benchmark.name: benchmark for module in _MODULES for benchmark in module.FULL}
QUICK: Final = {benchmark.name: benchmark for module in _MODULES for benchmark in module.QUICK}

app: Final = typer.Typer(add_completion=False)


def _known(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in FULL:
            raise typer.BadParameter(f"there is no benchmark {name!r}; any of: {', '.join(FULL)}")
    return names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    app(arguments, prog_name="python -m benchmarks")


@app.command(help="Make the project's figures.")
def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", callback=_known, help=f"Of: {', '.join(FULL)}.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A minute: fewer rounds, smaller sizes.")] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Repeat each replay N times (5; quick: 1).")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="The Azure trace (../shared/data/, else the excerpt).")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder for the figures.")] = HERE / "results",
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
            report.show(result)
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
            report.show_targets(verdicts)
    raise typer.Exit(int(any(result.faults for result in found.values())))


def _with_options(benchmark: Benchmark, rounds: int | None, trace: Path | None) -> Benchmark:
    """Return a fresh benchmark with what the command line says of it."""
    options = (
        {"trace": trace, "rounds": rounds or benchmark.rounds} if isinstance(benchmark, azure.Azure) else {}
    )
    fresh: Benchmark = dataclasses.replace(benchmark, **options)  # type: ignore[type-var]  # all are dataclasses
    return fresh
