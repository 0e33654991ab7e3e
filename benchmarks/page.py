"""The tables of docs/benchmarks.md and of the README, made of the figures of one run.

`python -m benchmarks.page` writes those of the last `make bench` into the pages, and puts its figures and
pictures beside them.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl

from benchmarks import targets
from benchmarks.contestants import OURS
from benchmarks.figures import short, spread_text
from benchmarks.report import DOCS, RESULTS, ROOT, fill_marked, markdown, target_table
from benchmarks.suite import app, frozen, gateways, http, library
from benchmarks.suite import cluster as machines

PAGES: Final = (DOCS / "benchmarks.md", ROOT / "README.md")
FIGURES: Final = DOCS / "figures" / "benchmarks.json"
PICTURES: Final = ("decisions.svg", "redis-cpu.svg", "growth.svg")
_VERDICT: Final = ("what", "required", "reached", "note", "met")
_COLUMNS: Final = ("cell", "at", "contestant", "figure", "median", "min", "max")
_LIBRARY: Final = {
    "one-limit": library.ONE_EACH.label,
    "three-limits": library.THREE_EACH.label,
    "one-task": library.ALONE.label,
    "one-thread": library.THREAD.label,
}
_PLAIN: Final = {"cluster": machines.CELL.label, "frozen": frozen.FROZEN.label}
_CELLS: Final = {
    *_LIBRARY.values(),
    *_PLAIN.values(),
    app.CELL.label,
    http.BUSIEST.label,
    gateways.CELL.label,
}
_GATEWAYS: Final = {
    "nginx": "nginx alone",
    "nginx-sidecar": "nginx, sidecar",
    "nginx-sidecar-unix": "nginx, sidecar by Unix socket",
    "caddy": "Caddy alone",
    "caddy-sidecar": "Caddy, sidecar",
    "haproxy": "HAProxy alone",
    "haproxy-sidecar": "HAProxy, sidecar",
    "envoy": "Envoy alone",
    "envoy-sidecar-http": "Envoy, sidecar over HTTP",
    "envoy-sidecar-grpc": "Envoy, sidecar over gRPC",
    "traefik": "Traefik alone",
    "traefik-own": "Traefik, its own limiter",
    "traefik-sidecar": "Traefik, sidecar, one limit",
    "traefik-sidecar-three": "Traefik, sidecar, three limits",
}

_REACHED: Final = {
    "three_limits": targets.THREE_LIMITS,
    "thread": targets.THREAD_TO_PEER,
    "leases": targets.LEASES,
    "check": targets.CHECK,
    "check_p99": targets.CHECK_P99,
    "slowapi": targets.SLOWAPI,
    "fastapi_limiter": targets.FASTAPI_LIMITER,
    "bytes": targets.BYTES,
}
_RATES: Final = {"three_limits_rate": library.THREE_EACH.label, "thread_rate": library.THREAD.label}
_SUMMARY: Final = {
    "256 tasks, three limits a check": (
        "{three_limits_rate} decisions/s, {three_limits} times the fastest other limiter"
    ),
    "one thread, one limit a check": "{thread_rate} decisions/s, {thread} times the fastest other limiter",
    "a flooding key, denied from memory": "{denials} decisions/s, no Redis command",
    "a hot key on leases": "{leases} times the path that asks",
    "the sidecar, `POST /v1/check`": (
        "{check} times a FastAPI endpoint that decides nothing; p99 {check_p99} ms at half load"
    ),
    "the middleware in a FastAPI application": (
        "slowapi loses {slowapi} times as many requests/s, fastapi-limiter {fastapi_limiter} times"
    ),
    "a million keys with three limits": "{bytes} bytes each, and nothing once they are idle",
    "4 processes at one key": "exactly what is allowed",
}

Row = Mapping[str, Any]


class Figures:
    """The figures of a run, as `python -m benchmarks` writes them."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._rows: dict[tuple[object, ...], Row] = {
            (row["cell"], row["at"], row["contestant"], row["figure"]): row for row in document["figures"]
        }

    def names(self, cell: str) -> list[str]:
        """Return the contestants of a cell."""
        return list(dict.fromkeys(str(name) for found, _, name, _ in self._rows if found == cell))

    def find(self, cell: str, name: str, figure: str, at: int | None = None) -> Row | None:
        return self._rows.get((cell, at, name, figure))

    def write(self, cell: str, name: str, figure: str, *, spread: bool = False) -> str:
        """Write the median of a figure; nothing if it was not measured."""
        row = self.find(cell, name, figure)
        if row is None:
            return ""
        return spread_text(row) if spread else short(row["median"])


def read_results() -> dict[str, Any]:
    """Return what a run has written to its folder, without the single rounds."""
    files = [
        file for file in sorted(RESULTS.glob("*.json")) if file.stem != "scale"
    ]  # it has a page of its own
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    runs = [document for document in documents if isinstance(document, dict)]
    [verdicts] = [document for document in documents if isinstance(document, list)]
    first = min(runs, key=lambda run: run["finished"])
    last = max(runs, key=lambda run: run["finished"])
    found = [row for run in runs for row in run["figures"] if row["cell"] in _CELLS]
    return {
        "started": first["finished"],
        "finished": last["finished"],
        "machine": first["machine"],
        "versions": first["versions"],
        "targets": [{name: verdict[name] for name in _VERDICT} for verdict in verdicts],
        "figures": [{name: row[name] for name in _COLUMNS} for row in found],
    }


def make_blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what the page marks, by name."""
    figures = Figures(document)
    return {name: make(figures) for name, make in _BLOCKS.items()}


def _run(figures: Figures) -> str:
    document = figures.document
    computer, versions = document["machine"], document["versions"]
    day = datetime.fromisoformat(document["finished"])
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{computer['processor']}, {computer['cores']} cores, {computer['system']}, {day:%Y-%m-%d}; {used}."
    )


def _targets(figures: Figures) -> str:
    return markdown(target_table(figures.document["targets"]).rename({"what": ""}))


def _table(columns: Mapping[str, str], rows: Iterator[tuple[str, ...]]) -> str:
    schema: dict[str, Any] = dict.fromkeys(columns.values(), pl.String)
    return markdown(pl.DataFrame([*rows], schema=schema, orient="row"))


def _bold(name: str) -> str:
    return f"**{name}**" if name == OURS else name


def _library(cell: str) -> Callable[[Figures], str]:
    """Return a function that writes the contestants of a cell, the fastest first."""
    columns = {
        library.RATE: "decisions/s",
        "ours_divided_by_it": "ours ÷ it",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
        "client_cpu_us": "client CPU µs",
        "redis_us": "in Redis µs",
    }

    def rows(figures: Figures) -> Iterator[tuple[str, ...]]:
        def rate(name: str) -> float:
            row = figures.find(cell, name, library.RATE)
            return -float(row["median"]) if row else 0.0

        for name in sorted(figures.names(cell), key=rate):
            texts = (figures.write(cell, name, figure, spread=figure == library.RATE) for figure in columns)
            yield _bold(name), *texts

    return lambda figures: _table({"": ""} | columns, rows(figures))


def _application(figures: Figures) -> str:
    cell = app.CELL.label
    columns = {
        app.RATE: "requests/s",
        app.PER_CPU: "requests per CPU second",
        "added_us": "added µs",
        "lost_to_ours": "lost ÷ lost by ours",
    }
    rows = (
        (name, *(figures.write(cell, name, figure, spread=True) for figure in columns))
        for name in figures.names(cell)
    )
    return _table({"": ""} | columns, rows)


def _sidecar(figures: Figures) -> str:
    cell, names = (
        http.BUSIEST.label,
        ("noop", "check", "check_three_limits", "authorize", "authorize_three_limits"),
    )
    columns = (
        "no-op",
        *("`/v1/check`", "`/v1/check`, three limits"),
        *("`/v1/authorize`", "`/v1/authorize`, three limits"),
    )

    def write(at: int, name: str) -> str:
        rate = figures.find(cell, name, http.RATE, at)
        ratio = figures.find(cell, name, "ratio", at)
        text = short(rate["median"]) if rate else ""
        return f"{text} ({short(ratio['median'])})" if ratio else text

    rows = ((f"{at}", *(write(at, name) for name in names)) for at in http.CONNECTIONS)
    return _table({"": "connections"} | dict(zip(names, columns, strict=True)), rows)


def _gateways(figures: Figures) -> str:
    cell = gateways.CELL.label
    columns = {gateways.RATE: "requests/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
    found = figures.names(cell)
    rows = (
        (text, *(figures.write(cell, name, figure, spread=figure == gateways.RATE) for figure in columns))
        for name, text in _GATEWAYS.items()
        if name in found
    )
    return _table({"": ""} | columns, rows)


def _plain(cell: str) -> Callable[[Figures], str]:
    """Return a function that writes every figure of a cell, with a column for each contestant."""

    def write(figures: Figures) -> str:
        names = figures.names(cell)
        found = dict.fromkeys(
            str(row["figure"]) for row in figures.document["figures"] if row["cell"] == cell
        )
        lines = (
            (figure.replace("_", " "), *(figures.write(cell, name, figure, spread=True) for name in names))
            for figure in found
        )
        return _table({"": ""} | {name: _bold(name) for name in names}, lines)

    return write


def _summary(figures: Figures) -> str:
    """Write the table of the README."""
    reached = {verdict["what"]: verdict["reached"]["median"] for verdict in figures.document["targets"]}
    values = {name: short(reached[what]) for name, what in _REACHED.items()}
    values["denials"] = _round(reached[targets.DENIALS])
    for name, cell in _RATES.items():
        row = figures.find(cell, OURS, library.RATE)
        values[name] = _round(row["median"]) if row else ""
    cores = figures.document["machine"]["cores"]
    rows = ((what, text.format(**values)) for what, text in _SUMMARY.items())
    return _table({"": f"on {cores} cores, one run", "reached": ""}, rows)


def _round(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{float(f'{value:.3g}'):,.0f}"


_BLOCKS: Final[dict[str, Callable[[Figures], str]]] = {
    "summary": _summary,
    "run": _run,
    "targets": _targets,
    **{name: _library(cell) for name, cell in _LIBRARY.items()},
    "application": _application,
    "sidecar": _sidecar,
    "gateways": _gateways,
    **{name: _plain(cell) for name, cell in _PLAIN.items()},
}


def main() -> None:
    document = read_results()
    members = (f"{json.dumps(name)}: {_write_member(value)}" for name, value in document.items())
    FIGURES.write_text("{\n" + ",\n".join(members) + "\n}\n", encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        page.write_text(fill_marked(text, make_blocks(document)), encoding="utf-8")
    for name in PICTURES:
        shutil.copy(RESULTS / name, FIGURES.with_name(name))


def _write_member(value: object) -> str:
    """Write JSON with a line for each item of a list, so that two runs can be compared."""
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
