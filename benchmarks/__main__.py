"""`python -m benchmarks [NAME …]`: run them all, or those that are named.

Everything at once also writes the table and the plots, and holds the figures against what they
have to reach; a benchmark that is run alone tells its own figures only.

Exit 0: done, whether or not every target was met: machines are noisy. 1: a benchmark found
something wrong. 2: it was asked wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import (
    accuracy,
    azure,
    azure_reserve,
    gateways,
    growth,
    http,
    library,
    memory,
    plots,
    report,
    shortcuts,
    table,
    targets,
)
from benchmarks.client import ClientError
from benchmarks.crew import CrewError
from benchmarks.sidecar import SidecarError
from benchmarks.trace import TraceError
from ratelimit import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BENCHMARKS: Final[dict[str, Callable[[argparse.Namespace], report.Result]]] = {
    "library": lambda given: library.run(library.QUICK if given.quick else library.FULL),
    "accuracy": lambda given: accuracy.run(accuracy.QUICK if given.quick else accuracy.FULL),
    "memory": lambda given: memory.run(memory.QUICK if given.quick else memory.FULL),
    "growth": lambda given: growth.run(growth.QUICK if given.quick else growth.FULL),
    "shortcuts": lambda given: shortcuts.run(shortcuts.QUICK if given.quick else shortcuts.FULL),
    "http": lambda given: http.run(quick=given.quick),
    "gateways": lambda given: gateways.run(quick=given.quick),
    "azure": lambda given: azure.run(given.trace, _rounds(given)),
    "azure-reserve": lambda given: azure_reserve.run(given.trace, _rounds(given)),
}

_WRONG: Final = (SidecarError, ClientError, CrewError, StoreUnavailable)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks, print what they found, and return the exit code."""
    given = _parser().parse_args(arguments)
    documents: dict[str, Any] = {}
    code = 0
    for name in given.names or BENCHMARKS:
        try:
            result = BENCHMARKS[name](given)
        except TraceError as error:
            report.stderr.print(f"{name}: {error}", markup=False, soft_wrap=True)
            return 2
        except _WRONG as error:
            report.stderr.print(f"{name}: {error}", markup=False, soft_wrap=True)
            return 1
        documents[name] = report.document(result)
        if not given.json:
            report.show(result)
        for fault in result.faults:
            code = 1
            report.stderr.print(fault, markup=False, soft_wrap=True)
    report.save(documents, given.results)
    if given.json:
        print(json.dumps(documents, indent=2))
    if not given.names:
        _sum_up(documents, given)
    return code


def _sum_up(documents: dict[str, Any], given: argparse.Namespace) -> None:
    verdicts = targets.judge(documents)
    table.write(documents, verdicts, given.results)
    plots.draw(documents, given.results)
    if not given.json:
        report.show_targets([verdict.cells for verdict in verdicts])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Make the project's figures.")
    # Not `choices`: argparse holds the empty list of "all of them" against those.
    parser.add_argument("names", nargs="*", type=_name, metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer rounds, smaller sizes")
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help="repeat each replay of the trace N times (5; quick: 1)"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="PATH", help="the Azure trace (../shared/data/, else the excerpt)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        default=Path(__file__).resolve().parent / "results",
        help="folder for the figures as JSON (benchmarks/results)",
    )
    return parser


def _rounds(given: argparse.Namespace) -> int:
    return given.rounds or (1 if given.quick else 5)


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no benchmark {text!r}; any of: {', '.join(BENCHMARKS)}")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
