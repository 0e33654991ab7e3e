"""`python -m benchmarks [NAME …]`: only a run of all writes the page and plots and judges the targets.

Exit 0: done, even if a target was missed, because machines are noisy. 1: a fault. 2: a wrong option or trace.
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
from benchmarks.suite import (
    accuracy,
    azure,
    cluster,
    gateways,
    growth,
    grpc,
    http,
    library,
    memory,
    observers,
    scale,
    shortcuts,
)
from benchmarks.suite import app as application
from ratelimit import StoreUnavailable

_BENCHMARKS: Final[tuple[type[Benchmark], ...]] = (
    *(
        library.Library,
        accuracy.Accuracy,
        memory.Memory,
        growth.Growth,
        shortcuts.Shortcuts,
        http.Http,
        application.App,
    ),
    *(grpc.Grpc, observers.Observers, cluster.OverMachines, scale.Scale),
    *(gateways.Gateways, azure.Azure, azure.AzureReserve),
)
FULL: Final = {benchmark.name: benchmark() for benchmark in _BENCHMARKS}
QUICK: Final = {benchmark.name: benchmark(**benchmark.quick) for benchmark in _BENCHMARKS}

app: Final = typer.Typer(add_completion=False)


def main(arguments: Sequence[str] | None = None) -> None:
    app(arguments, prog_name="python -m benchmarks")


@app.command(help="Make the project's figures.")
def command(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help=f"Of: {', '.join(FULL)}.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Three minutes: fewer rounds, smaller sizes.")
    ] = False,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each replay (5; quick: 1).")] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Azure trace (../shared/data/, else an excerpt).")
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder for the figures.")] = HERE / "results",
) -> None:
    if unknown := ", ".join(name for name in names or () if name not in FULL):
        raise typer.BadParameter(f"there is no benchmark {unknown}; any of: {', '.join(FULL)}")
    found, documents = dict[str, Result](), dict[str, Any]()
    for name in names or FULL:
        benchmark: Any = (QUICK if quick else FULL)[name]
        replay = {"trace": trace, "rounds": rounds or benchmark.rounds}
        options = replay if isinstance(benchmark, azure.Azure) else {}
        try:
            result = found[name] = run(dataclasses.replace(benchmark, **options))
        except (TraceError, BenchmarkError, StoreUnavailable) as error:
            stderr.print(f"{name}: {error}", markup=False, soft_wrap=True)
            raise typer.Exit(2 if isinstance(error, TraceError) else 1) from None
        documents[name] = report.document(result)
        report.save(name, documents[name], results)
        benchmark.draw(result.found, results)
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
