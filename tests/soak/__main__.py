"""`python -m tests.soak`: run a soak, say what it showed, and write docs/soak.md with `--write`."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .page import write_page
from .plot import draw_soak
from .soak import run_soak
from .verdict import list_faults

ROOT = Path(__file__).parents[2]
console = Console(highlight=False)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long the load lasts (600)")
    parser.add_argument("--failover-every", type=int, default=60, help="seconds between failovers (60)")
    parser.add_argument("--write", action="store_true", help="write docs/soak.md and its picture")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = _run_with_progress(folder, arguments)
    faults = list_faults(result, is_long=arguments.seconds >= 300)
    console.print(_describe(result))
    for fault in faults:
        console.print(f"[bold]fault:[/] {fault}")
    if arguments.write:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        draw_soak(result, ROOT / "docs" / "figures" / "soak")
        write_page(ROOT / "docs" / "soak.md", result, time.strftime("%Y-%m-%d"), commit.stdout.strip())
    return 1 if faults else 0


def _run_with_progress(folder, arguments):
    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=arguments.seconds)

        def note(sample):
            text = f"{sample.answers}/s, p99 {sample.p99:.1f} ms, {sample.sidecar:.0f} MB"
            progress.update(task, completed=sample.at, description=text)

        return run_soak(folder, arguments.seconds, failover_every=arguments.failover_every, note=note)


def _describe(result):
    return (
        f"{result.rate:.0f} requests a second of {result.maximum:.0f}; statuses {result.statuses};"
        f" {len(result.failovers)} failovers, {result.reloads} edits of the policy;"
        f" history: {result.history['decisions']} decisions, {result.history['fault_counts'] or 'sound'}"
    )


if __name__ == "__main__":
    sys.exit(main())
