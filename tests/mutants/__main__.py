"""Breaks each guard of the promises in a copy of the project, and shows which test goes red.

python -m tests.mutants [--list] [--only P3 --only P4.2] [--jobs 2] [--write]
"""

import argparse
import queue
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from .page import write_page
from .promised_tests import find_tests
from .runner import Copy
from .table import ROOT, read_mutants

console = Console(width=None if sys.stdout.isatty() else 180)


def main():
    """Run the mutants; return 1 if one survives, or if its run went wrong."""
    options = _parse_arguments()
    mutants = _choose(options.only)
    if options.list:
        for mutant in mutants:
            console.print(f"{mutant.name}  {mutant.file}  {mutant.guard}", markup=False)
        return 0
    if options.write and options.only:
        sys.exit("--write needs a run of all mutants, without --only")
    started, commit = time.monotonic(), _read_commit()
    with tempfile.TemporaryDirectory(prefix="rlm-", ignore_cleanup_errors=True) as folder:
        outcomes, false_red = _run(mutants, options.jobs, Path(folder))
    _print_outcomes(outcomes)
    survivors = [outcome for outcome in outcomes if not outcome.test]
    for outcome in survivors:
        console.print(f"{outcome.mutant.name} {outcome.error or 'survives'}", style="red", markup=False)
    if false_red:
        console.print(f"{false_red} is red without any mutant", style="red", markup=False)
    elapsed = time.monotonic() - started
    console.print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} caught in {elapsed:.0f} s")
    if survivors or false_red:
        return 1
    if options.write:
        write_page(outcomes, f"{datetime.now(UTC):%Y-%m-%d}", commit)
    return 0


def _parse_arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", action="append", default=[], help="a promise (P3) or a mutant (P3.2)")
    parser.add_argument("--list", action="store_true", help="list the mutants and run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many run at the same time (2)")
    parser.add_argument("--write", action="store_true", help="write docs/promises.md if none survives")
    return parser.parse_args()


def _choose(only):
    mutants = read_mutants()
    wanted = {name.upper() for name in only}
    if unknown := wanted - {name for mutant in mutants for name in (mutant.promise, mutant.name)}:
        sys.exit(f"no such promise or mutant: {', '.join(sorted(unknown))}")
    return [mutant for mutant in mutants if not wanted or wanted & {mutant.promise, mutant.name}]


def _run(mutants, jobs, folder):
    """Return what became of each mutant, and a test that is red without any of them, or None."""
    tests = find_tests()
    all_copies = [_make_copy(folder / str(number)) for number in range(jobs)]
    copies = queue.SimpleQueue()
    for copy in all_copies:
        copies.put(copy)

    def run_one(mutant):
        copy = copies.get()
        try:
            return copy.run_mutant(mutant, tests[mutant.promise])
        finally:
            copies.put(copy)

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("mutants", total=len(mutants) + 1)
        futures = [pool.submit(run_one, mutant) for mutant in mutants]
        try:
            for future in as_completed(futures):
                progress.advance(task)
                if not (future.result().test and console.is_terminal):  # elsewhere there is no progress bar
                    progress.console.print(_describe(future.result()), markup=False, highlight=False)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for copy in all_copies:
                copy.stop()
            raise
        outcomes = [future.result() for future in futures]
        red = sorted({outcome.test for outcome in outcomes if outcome.test})
        parts = [red[number::jobs] for number in range(jobs)]
        found = list(pool.map(Copy.run_unchanged, all_copies, parts))
        progress.advance(task)
    return outcomes, next(filter(None, found), None)


def _make_copy(folder):
    copy = Copy(folder)
    package = copy.find_package()
    if not package.startswith(str(folder)):
        sys.exit(f"the tests would import {package}, not the copy")
    return copy


def _describe(outcome):
    red = outcome.test or outcome.error or "nothing"
    return f"{outcome.mutant.name} {red}{' (hangs)' if outcome.hangs else ''} {outcome.seconds:.0f} s"


def _print_outcomes(outcomes):
    table = Table("mutant", "what was broken", "caught by", "seconds")
    for outcome in outcomes:
        red = f"{outcome.test}{' (hangs)' if outcome.hangs else ''}" if outcome.test else "nothing"
        table.add_row(outcome.mutant.name, outcome.mutant.guard, red, f"{outcome.seconds:.0f}")
    console.print(table, markup=False)


def _read_commit():
    """Return the commit of the project, and whether it has changes that are not committed."""
    describe = ["git", "describe", "--always", "--dirty=-changed", "--exclude=*"]
    done = subprocess.run(describe, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
