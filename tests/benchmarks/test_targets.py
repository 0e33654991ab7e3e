"""Targets are judged right, from figures that are made up."""

import copy

import pytest

from benchmarks import cli, plots, report, targets
from benchmarks.contestants import BUCKET, EMPTY, OURS, THROTTLED
from benchmarks.figures import Cell, Found
from benchmarks.runner import Benchmark, Result
from benchmarks.suite import accuracy, app, cluster, growth, grpc, history, http, memory, observers, shortcuts
from benchmarks.suite.library import ALONE, ALONE_THREE, ONE_EACH, RATE, THREAD, THREE_EACH

FIXED = "limits fixed window"
FAST = "the same ÷ redis-py with a bucket script of one's own"
LEASED = "hot key: leased ÷ coalesced decisions/s"
PEER = "256 tasks, 10,000 keys: decisions/s ÷ the fastest peer"


def found(*entries):
    """Figures of (cell, contestant, figure, rounds)."""
    figures = Found()
    for cell, name, figure, rounds in entries:
        for value in rounds:
            figures.note(cell, name, {figure: value})
    return figures


def cell(at, **rates):
    """A cell whose contestants made so many decisions a second, and took a thousandth of the rest."""
    names = {"ours": OURS, "empty": EMPTY, "bucket": BUCKET, "fixed": FIXED, "throttled": THROTTLED}
    rest = ("p50_ms", "p99_ms", "client_cpu_us", "redis_us", "redis_process_us")
    for short, rounds in rates.items():
        yield at, names[short], RATE, rounds
        for figure in rest:
            yield at, names[short], figure, [1000 / rate for rate in rounds]


def way(name, rounds, commands=(0, 0)):
    yield shortcuts.CELL, name, RATE, rounds
    yield shortcuts.CELL, name, "redis_commands", commands


def sweep(label, *names):
    return [(Cell(label, at=n), name, "redis_us", [n, n + 1]) for name in names for n in (1, 10)]


def grown(name, most, least, rounds):
    ends = [(growth.RATIOS[name], OURS, "most", [most]), (growth.RATIOS[name], OURS, "least", [least])]
    return [*ends, (growth.RATIOS[name], OURS, "ratio", rounds)]


@pytest.fixture
def made_up():
    library = (
        *cell(ONE_EACH, ours=[90, 80], empty=[12, 12], bucket=[10, 10], fixed=[10, 5], throttled=[5, 10]),
        *cell(THREE_EACH, ours=[50, 50], fixed=[5, 4]),
        *cell(ALONE, ours=[10, 10], empty=[12, 12], throttled=[10, 10]),
        *cell(ALONE_THREE, ours=[8, 8]),
        *cell(THREAD, ours=[10, 10], empty=[11, 11], fixed=[9, 9]),
    )
    active = [(memory.ACTIVE, OURS, "bytes_per_key", [212.0]), (memory.ACTIVE, OURS, "keys", [1_000_000])]
    sweeps = (
        *sweep("keys", OURS, THROTTLED),
        *sweep("limits", OURS),
        *sweep("bursts, half used", OURS),
        *sweep("costs", OURS, "pyrate-limiter log"),
        *grown("keys", 1_000_000, 1_000, [1.1, 1.2]),
        *grown("bursts", 10**9, 10, [1.0, 1.1]),
    )
    ways = (
        *way("denied, blocking", [400_000, 410_000]),
        *way("denied, asyncio", [200_000, 210_000]),
        *way("coalesced", [100, 200]),
        *way("leased", [400, 500]),
    )
    routes = (
        (http.BUSIEST, "check", "ratio", [1.3, 1.4, 1.5]),
        (http.BUSIEST, "authorize", "ratio", [1.9, 2.0, 2.1]),
        (http.HALF, "check", "p99_ms", [5, 9.9, 12]),
        (http.HALF, "authorize", "p99_ms", [3, 4, 5]),
    )
    calls = (
        (grpc.FULL, grpc.OURS, "ratio", [0.6, 0.7]),
        (grpc.HALF, grpc.OURS, "share_after_20_ms", [0, 0, 0.1]),
    )
    machines = (
        (cluster.RATIO, cluster.THREE, "decisions_per_second", [0.6, 0.7]),
        (cluster.RATIO, cluster.THREE, "redis_process_us", [1.2, 1.3]),
    )
    applications = (
        (app.CELL, "middleware", "to_hand", [0.9, 1.1]),
        *((app.CELL, name, "lost_to_ours", [3, 4]) for name in app.PEERS),
    )
    return {
        "app": found(*applications),
        "cluster": found(*machines),
        "history": found((history.CELL, OURS, history.RATE, [20_000, 30_000])),
        "library": found(*library),
        "accuracy": found((accuracy.DAILY_CELL, OURS, "admitted_to_allowed", [1, 1])),
        "memory": found(*active, (memory.IDLE, OURS, "keys_left", [0])),
        "growth": found(*sweeps),
        "shortcuts": found(*ways),
        "http": found(*routes),
        "grpc": found(*calls),
        "observers": found((observers.LIBRARY, "metrics", "share", [0.03, 0.04])),
    }


def merged(run):
    return Found(item for figures in run.values() for item in figures.items())


def judged(run):
    return {verdict["what"]: verdict for verdict in targets.judge(merged(run))}


def test_everything_that_is_reached_is_met(made_up):
    assert {verdict["met"] for verdict in targets.judge(merged(made_up))} == {True}
    assert len(targets.TARGETS) == 30


def test_ratios_are_taken_round_by_round_against_the_fastest_of_the_round(made_up):
    assert judged(made_up)[PEER]["reached"] == {"median": 8.5, "min": 8, "max": 9}
    assert judged(made_up)[LEASED]["reached"] == {"median": 3.25, "min": 2.5, "max": 4}


def replace_one_each(library, **rates):
    for place in [place for place in library if place.cell == ONE_EACH.label]:
        del library[place]
    library |= found(*cell(ONE_EACH, **rates))


def test_the_median_decides(made_up):
    replace_one_each(made_up["library"], ours=[90, 50, 70], bucket=[10, 10, 10])
    verdict = judged(made_up)[FAST]
    assert (verdict["reached"], verdict["met"]) == ({"median": 7, "min": 5, "max": 9}, True)
    replace_one_each(made_up["library"], ours=[50, 50], bucket=[10, 10], fixed=[10, 5], throttled=[5, 10])
    missed = [what for what, verdict in judged(made_up).items() if verdict["met"] is False]
    assert missed == [PEER, FAST]
    row = report.target_table(targets.judge(merged(made_up))).row(1)
    assert row == (FAST, "≥ 6", "5", "no")


def test_what_must_be_exact_must_be_so_in_every_round(made_up):
    made_up["accuracy"] = found((accuracy.DAILY_CELL, OURS, "admitted_to_allowed", [1, 1, 1.001]))
    made_up["shortcuts"] |= found(*way("denied, asyncio", [200_000, 210_000], commands=(0, 1)))
    verdicts = judged(made_up)
    assert verdicts["4 processes at one key: admitted ÷ allowed"]["met"] is False
    assert verdicts["denials from memory: Redis commands"]["met"] is False


def test_what_was_not_measured_is_neither_met_nor_missed(made_up):
    del made_up["http"]
    made_up["shortcuts"] = found(*way("denied, blocking", [400_000]), *way("denied, asyncio", [200_000]))
    unknown = {what: verdict["note"] for what, verdict in judged(made_up).items() if verdict["met"] is None}
    assert unknown.pop(LEASED) == "not measured: no decisions, leased, decisions_per_second in this run"
    assert all(
        note.startswith(("not measured: no connections", "not measured: no half load"))
        for note in unknown.values()
    )
    assert len(unknown) == 4
    assert {verdict["met"] for verdict in targets.judge(Found())} == {None}
    assert report.target_table(targets.judge(Found())).row(0)[2:] == (
        f"not measured: no {ONE_EACH.label}, {FIXED}, {RATE} in this run",
        "-",
    )


def results(run):
    """The made-up figures as results of benchmarks that only carry them."""
    made = {}
    for name, figures in run.items():
        benchmark = copy.copy(cli.FULL[name])
        made[name] = Result(benchmark, figures, [])
    return made


def test_the_page_and_the_pictures_are_made_of_the_figures(made_up, tmp_path):
    made_up["library"] |= found((ONE_EACH, OURS, "a|b", [1]))
    made = results(made_up)
    documents = {name: report.document(result) for name, result in made.items()}
    page = report.page(made, documents, targets.judge(merged(made_up)))
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert f"| {PEER} | ≥ 8 | 8.50 (8 to 9) | yes |" in lines
    assert "| bytes per active key with 3 limits | ≤ 220 | 212, with 1,000,000 keys | yes |" in lines
    assert any(line.startswith(f"| **{OURS}** | 85 (80 to 90) |") for line in lines)
    assert any(line.startswith("| limits fixed window | 7.50 (5 to 10) |") for line in lines)
    assert "a\\|b" in page
    drawn = plots.draw(merged(made_up), tmp_path)
    assert drawn == ["decisions", "redis-cpu", "growth"]
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text().count(OURS) >= 1
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_a_whole_run_succeeds_with_targets_missed_and_shows_so(
    made_up, tmp_path, monkeypatch, capfd, run_command
):
    made_up["memory"] |= found((memory.ACTIVE, OURS, "bytes_per_key", [999.0]))
    made = results(made_up)
    benchmarks = {name: result.benchmark for name, result in made.items()}
    monkeypatch.setattr(cli, "QUICK", benchmarks)
    monkeypatch.setattr(cli, "FULL", benchmarks)
    monkeypatch.setattr(cli, "run", lambda benchmark: made[benchmark.name])
    assert run_command("--quick") == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "999, with 1,000,000 keys" in printed
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"table.md", "targets.json", "memory.json", "growth.svg"}


def test_every_benchmark_says_what_it_is():
    for benchmark in cli.FULL.values():
        assert isinstance(benchmark, Benchmark)
        assert benchmark.name in cli.QUICK
        assert benchmark.title
