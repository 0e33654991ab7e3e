"""The figures of a whole run as one Markdown page: `results/table.md`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from benchmarks.contestants import OURS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.targets import Verdict

HEADLINE: Final = 256
"""Of the cells with so many tasks, and those of a lone caller, every figure is shown."""


HEADS: Final = (
    *("", "decisions/s", "ours ÷ it", "p50 ms", "p99 ms"),
    *("client CPU µs", "in Redis µs", "Redis process µs"),
)


def write(documents: Mapping[str, Any], verdicts: Sequence[Verdict], folder: Path) -> None:
    """Write the page and, for machines, what the targets came to."""
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps([verdict.as_dict() for verdict in verdicts], indent=2, ensure_ascii=False)
    (folder / "targets.json").write_text(told + "\n", encoding="utf-8")
    (folder / "table.md").write_text(page(documents, verdicts), encoding="utf-8")


def page(documents: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """Return the page."""
    blocks = ["# Figures", *_machine(documents), "## Targets"]
    blocks.append(_table(("", "required", "reached", "met"), (verdict.cells for verdict in verdicts)))
    for name, document in documents.items():
        blocks.append(f"## {document['title']}")
        blocks += _library(document) if name == "library" else [_rows(document)]
    return "\n\n".join(blocks) + "\n"


def _machine(documents: Mapping[str, Any]) -> Iterator[str]:
    for document in documents.values():
        on, versions = document["machine"], document["versions"]
        loads = [other["machine"]["load"] for other in documents.values()]
        yield (
            f"{on['processor']}, {on['cores']} cores, {on['system']}, load {min(loads)} to {max(loads)}, "
            f"finished {document['finished']}."
        )
        yield ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
        yield "Medians, with the least and the most of all rounds in brackets."
        return  # all are of one run


def _rows(document: Mapping[str, Any]) -> str:
    return _table(("", ""), document["rows"])


def _library(document: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Each contestant in a process of its own, {document['seconds_each']:g} s a round, "
        f"one after the other in every round; event loop of all: {document['event_loop']}. Time in Redis is "
        "of scripts and whatever else a contestant calls, by `INFO commandstats`; that of the Redis process "
        "is its processor time, sockets and parsing included."
    )
    for limits in (1, 3):
        cells = [cell for cell in document["cells"] if cell["limits"] == limits]
        if cells:
            yield f"### Decisions a second, {limits} limit{'s' if limits > 1 else ''} a check"
            yield _matrix(cells)
    for cell in document["cells"]:
        if cell["keys"] > 1 and cell["concurrency"] in {1, HEADLINE}:
            yield f"### {cell['label']}"
            yield _cell(cell)


def _matrix(cells: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for cell in cells for name in cell["contestants"])
    heads = [cell["label"].rpartition(",")[0] for cell in cells]
    return _table(
        ("", *heads),
        (
            [
                _bold(name),
                *(
                    f"{cell['contestants'][name]['decisions_per_second']['median']:,.0f}"
                    if name in cell["contestants"]
                    else ""
                    for cell in cells
                ),
            ]
            for name in names
        ),
    )


def _cell(cell: Mapping[str, Any]) -> str:
    ours = cell["contestants"][OURS]["decisions_per_second"]["median"]
    return _table(HEADS, (_line(name, found, ours) for name, found in cell["contestants"].items()))


def _line(name: str, found: Mapping[str, Any], ours: float) -> list[str]:
    rate = found["decisions_per_second"]
    return [
        _bold(name),
        f"{rate['median']:,.0f} ({rate['min']:,.0f} to {rate['max']:,.0f})",
        "" if name == OURS else f"{ours / rate['median']:.2f}",
        f"{found['p50_ms']['median']:.3f}",
        f"{found['p99_ms']['median']:.3f}",
        f"{found['client_cpu_us']['median']:.1f}",
        f"{found['redis_us']['median']:.1f}",
        f"{found['redis_process_us']['median']:.1f}",
    ]


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else name


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ([cell.replace("|", "\\|") for cell in line] for line in (heads, ["---"] * len(heads), *rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
