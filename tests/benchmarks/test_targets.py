"""Targets are judged right, from figures that are made up."""

import copy

import pytest

from benchmarks import __main__ as command
from benchmarks import plots, report, table, targets
from benchmarks.contestants import BUCKET, EMPTY, OURS, THROTTLED
from benchmarks.library import ALONE, ALONE_THREE, ONE_EACH, THREAD, THREE_EACH
from benchmarks.report import spread_of_rounds

FIXED = "limits fixed window"
FAST = "the same ÷ redis-py with a bucket script of one's own"
LEASED = "hot key: leased ÷ coalesced decisions/s"
PEER = "256 tasks, 10,000 keys: decisions/s ÷ the fastest peer"


def _cell(cell, **rates):
    """A cell whose contestants made so many decisions a second, and took a thousandth of the rest."""
    names = {"ours": OURS, "empty": EMPTY, "bucket": BUCKET, "fixed": FIXED, "throttled": THROTTLED}
    return {
        "mode": cell.mode,
        "concurrency": cell.concurrency,
        "keys": cell.keys,
        "limits": cell.limits,
        "label": cell.label,
        "contestants": {
            names[short]: {
                "decisions_per_second": spread_of_rounds(rounds),
                **{
                    name: spread_of_rounds([1000 / rate for rate in rounds])
                    for name in ("p50_ms", "p99_ms", "client_cpu_us", "redis_us", "redis_process_us")
                },
            }
            for short, rounds in rates.items()
        },
    }


def _way(rounds, commands=(0, 0)):
    return {"decisions_per_second": spread_of_rounds(rounds), "redis_commands": list(commands), "sources": {}}


SERIES = {str(n): spread_of_rounds([n, n + 1]) for n in (1, 10)}
MADE_UP = {
    "library": {
        "event_loop": "uvloop",
        "seconds_each": 0.2,
        "cells": [
            _cell(ONE_EACH, ours=[90, 80], empty=[12, 12], bucket=[10, 10], fixed=[10, 5], throttled=[5, 10]),
            _cell(THREE_EACH, ours=[50, 50], fixed=[5, 4]),
            _cell(ALONE, ours=[10, 10], empty=[12, 12], throttled=[10, 10]),
            _cell(ALONE_THREE, ours=[8, 8]),
            _cell(THREAD, ours=[10, 10], empty=[11, 11], fixed=[9, 9]),
        ],
    },
    "accuracy": {"admitted_to_allowed": {OURS: spread_of_rounds([1, 1])}},
    "memory": {
        "contestants": {OURS: {"bytes_per_key": 212.0, "keys": 1_000_000}},
        "idle": {OURS: {"keys_left": 0}},
    },
    "growth": {
        "redis_us": {
            "keys": {OURS: SERIES, THROTTLED: SERIES},
            "limits": {OURS: SERIES},
            "bursts": {OURS: {burst: {"half used": points} for burst, points in SERIES.items()}},
            "costs": {OURS: SERIES, "pyrate-limiter log": SERIES},
        },
        "ratios": {
            "keys": {"of": [1_000_000, 1_000], **spread_of_rounds([1.1, 1.2])},
            "burst": {"of": [10**9, 10], **spread_of_rounds([1.0, 1.1])},
        },
    },
    "shortcuts": {
        "ways": {
            "denied, blocking": _way([400_000, 410_000]),
            "denied, asyncio": _way([200_000, 210_000]),
            "coalesced": _way([100, 200]),
            "leased": _way([400, 500]),
        }
    },
    "http": {
        "ratios": {
            "check": {"median": 1.4, "min": 1.3, "max": 1.5},
            "authorize": {"median": 2.0, "min": 1.9, "max": 2.1},
        },
        "half_load_p99_ms": {
            "check": {"median": 9.9, "min": 5, "max": 12},
            "authorize": {"median": 4, "min": 3, "max": 5},
        },
    },
}


@pytest.fixture
def made_up():
    return {
        name: report.document(report.Result(name, f"About {name}", [("a", "b|c")], copy.deepcopy(figures)))
        for name, figures in MADE_UP.items()
    }


def judged(documents):
    return {verdict.target.what: verdict for verdict in targets.judge(documents)}


def test_everything_that_is_reached_is_met(made_up):
    assert {verdict.met for verdict in targets.judge(made_up)} == {True}


def test_ratios_are_taken_round_by_round_against_the_fastest_of_the_round(made_up):
    assert judged(made_up)[PEER].found == {"median": 8.5, "min": 8, "max": 9}
    assert judged(made_up)["hot key: leased ÷ coalesced decisions/s"].found == {
        "median": 3.25,
        "min": 2.5,
        "max": 4,
    }


def test_the_median_decides(made_up):
    made_up["library"]["cells"][0] = _cell(ONE_EACH, ours=[90, 50, 70], bucket=[10, 10, 10])
    verdict = judged(made_up)[FAST]
    assert (verdict.found, verdict.met) == ({"median": 7, "min": 5, "max": 9}, True)


def test_a_target_that_is_missed_is_told(made_up):
    made_up["library"]["cells"][0] = _cell(ONE_EACH, ours=[50, 50], bucket=[10, 10], fixed=[10, 10])
    verdicts = judged(made_up)
    assert (verdicts[FAST].met, verdicts[PEER].met) == (False, False)
    assert verdicts[FAST].cells == (FAST, "≥ 6", "5", "no")
    assert [what for what, verdict in verdicts.items() if verdict.met is False] == [PEER, FAST]


def test_what_must_be_exact_must_be_so_in_every_round(made_up):
    made_up["accuracy"]["admitted_to_allowed"][OURS] = spread_of_rounds([1, 1, 1.001])
    made_up["shortcuts"]["ways"]["denied, asyncio"]["redis_commands"] = [0, 1]
    verdicts = judged(made_up)
    assert verdicts["4 processes at one key: admitted ÷ allowed"].met is False
    assert verdicts["denials from memory: Redis commands"].met is False


def test_what_was_not_measured_is_neither_met_nor_missed(made_up):
    del made_up["http"], made_up["shortcuts"]["ways"]["leased"]
    made_up["shortcuts"]["skipped"] = {"leased": "no leases here"}
    verdicts = judged(made_up)
    unknown = {what: verdict.cells[2] for what, verdict in verdicts.items() if verdict.met is None}
    assert unknown.pop(LEASED) == "not measured: no leases here"
    assert set(unknown.values()) == {"not measured: no http in this run"}
    assert len(unknown) == 4
    assert {verdict.met for verdict in targets.judge({})} == {None}


def test_the_page_and_the_pictures_are_made_of_the_documents(made_up, tmp_path):
    table.write(made_up, targets.judge(made_up), tmp_path)
    page = (tmp_path / "table.md").read_text()
    assert f"| {PEER} | ≥ 8 | 8.50 (8 to 9) | yes |" in page
    assert f"| **{OURS}** | 85 (80 to 90) |  |" in page
    assert "| limits fixed window | 8 (5 to 10) | 11.33 |" in page
    assert "| bytes per active key with 3 limits | ≤ 220 | 212, with 1,000,000 keys | yes |" in page
    assert "| a | b\\|c |" in page
    drawn = plots.draw(made_up, tmp_path)
    assert drawn == ["decisions", "redis-cpu", "growth"]
    for name in drawn:
        assert (tmp_path / f"{name}.svg").read_text().count(OURS) >= 1
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_a_whole_run_succeeds_with_targets_missed_and_tells_so(tmp_path, monkeypatch, capfd):
    found = copy.deepcopy(MADE_UP)
    found["memory"]["contestants"][OURS]["bytes_per_key"] = 999.0
    results = {name: report.Result(name, f"About {name}", [], figures) for name, figures in found.items()}
    monkeypatch.setattr(command, "BENCHMARKS", {name: lambda _, name=name: results[name] for name in results})
    assert command.main(["--quick", "--results", str(tmp_path)]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "999, with 1,000,000 keys" in printed
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"table.md", "targets.json", "memory.json", "growth.svg"}
