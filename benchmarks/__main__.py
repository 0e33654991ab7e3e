"""`python -m benchmarks [NAME …]`: run them all, or those that are named.

Exit 0: done. 1: a benchmark found something wrong. 2: it was asked wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks import azure, azure_reserve, gateways, report
from benchmarks.client import ClientError
from benchmarks.sidecar import SidecarError
from benchmarks.trace import TraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BENCHMARKS: Final[dict[str, Callable[[argparse.Namespace], report.Result]]] = {
    "azure": lambda given: azure.run(given.trace, given.rounds),
    "azure-reserve": lambda given: azure_reserve.run(given.trace, given.rounds),
    "gateways": lambda given: gateways.run(given.rounds),
}


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
        except (SidecarError, ClientError) as error:
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
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Make the project's figures.")
    # Not `choices`: argparse holds the empty list of "all of them" against those.
    parser.add_argument("names", nargs="*", type=_name, metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--rounds", type=_positive, default=5, metavar="N", help="repeat each N times (5)")
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
