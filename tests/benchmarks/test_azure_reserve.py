"""The Azure trace reserved and settled end to end: every answer and every bucket at the end is checked."""

import json

import pytest

from benchmarks import runner
from benchmarks.load import Answer
from benchmarks.model import Bucket, Model, limits_of, read_settlement, read_trace
from benchmarks.suite import azure


@pytest.fixture
def run(capfd, run_command):
    """Run the benchmark on the excerpt; gives exit code, figures by name and complaints."""

    def run():
        code = run_command("azure-reserve", "--trace", azure.EXCERPT, "--rounds", 1, "--json")
        printed, complaints = capfd.readouterr()
        figures = json.loads(printed)["azure-reserve"]["figures"]
        return code, {entry["figure"]: entry["rounds"][0] for entry in figures}, complaints

    return run


def test_every_answer_and_every_bucket_at_the_end_equals_the_plain_models(run):
    code, figures, complaints = run()
    assert (code, complaints) == (0, "")
    assert (figures["mismatches"], figures["bucket_mismatches"]) == (0, 0)
    assert figures["decisions_a_round"] == 500
    assert figures["denied_a_round"] > 100
    assert figures["settlements_a_round"] == 500 - figures["denied_a_round"]
    assert figures["buckets_a_round"] > 200
    over, under, exact = (figures[name] for name in ("over_count", "under_count", "exact"))
    assert over > 100
    assert under >= 1
    assert over + under + exact == figures["settlements_a_round"]
    more, less = figures["over_tokens"], figures["under_tokens"]
    assert more - less == figures["output_estimated"] - figures["output_used"]


def test_estimates_that_are_mostly_too_little_leave_the_same_debts_on_both_sides(run, monkeypatch):
    monkeypatch.setattr(azure, "ESTIMATE", 5)
    code, figures, complaints = run()
    assert (code, complaints) == (0, "")
    assert figures["under_count"] > 100


def _no_refund(settle):
    return lambda model, request, more: settle(model, request, max(more, 0))


def _a_token_more(settle):
    return lambda model, request, more: settle(model, request, more + (request.row == 0))


@pytest.mark.parametrize("wrong", [_no_refund, _a_token_more])
def test_a_model_that_settles_wrongly_is_caught(wrong, run, monkeypatch):
    monkeypatch.setattr(Model, "settle", wrong(Model.settle))
    code, figures, complaints = run()
    assert code == 1
    assert figures["mismatches"] > 0
    assert "answers differ from the model's" in complaints
    assert "row 0: vk_" in complaints
    assert "4818 tokens settled for 5320" in complaints
    assert "\n  sidecar  tokens.remaining" in complaints


def test_a_model_whose_decisions_are_wrong_is_caught(run, monkeypatch):
    decide = Model.decide
    monkeypatch.setattr(Model, "decide", lambda model, request, tokens: decide(model, request, tokens + 1))
    code, figures, complaints = run()
    assert code == 1
    assert figures["mismatches"] > 0
    assert "row 0: vk_" in complaints
    assert "5320 tokens" in complaints


def test_a_bucket_that_ends_otherwise_is_caught_even_if_every_answer_was_right(run, monkeypatch):
    expect = azure.AzureReserve.expect

    def wrong(benchmark):
        expect(benchmark)
        place = next(place for place in benchmark.model.buckets if place[1] == "tokens")
        bucket = benchmark.model.buckets[place]
        benchmark.model.buckets[place] = bucket._replace(used=bucket.used + 1e-9)

    monkeypatch.setattr(azure.AzureReserve, "expect", wrong)
    code, figures, complaints = run()
    assert code == 1
    assert (figures["mismatches"], figures["bucket_mismatches"]) == (0, 1)
    assert "1 buckets differ from the model's at the end" in complaints
    assert "tokens: model Bucket(used=" in complaints


@pytest.mark.skipif(
    not azure.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{azure.TRACE.name}"
)
def test_the_whole_trace_ends_with_the_plain_models_buckets():
    benchmark = azure.AzureReserve(azure.TRACE, rounds=1)
    result = runner.run(benchmark)
    assert result.faults == []
    assert result.found.rounds(benchmark.cell, azure.SIDECAR, "settlements_a_round")[0] > 5_000
    assert result.found.rounds(benchmark.cell, azure.SIDECAR, "under_count")[0] > 10


def test_a_bucket_on_one_side_only_is_a_difference():
    bucket, other = Bucket(1.0, 5), Bucket(2.0, 5)
    both = {("a", "tokens"): bucket}
    assert azure.differences(both, dict(both)) == []
    assert len(azure.differences(both, {})) == 1
    assert len(azure.differences({}, both)) == 1
    assert len(azure.differences(both, {("a", "tokens"): other, ("b", "tokens"): bucket})) == 2


def _answer(status=200, **fields):
    return Answer(status, json.dumps(fields).encode())


def _as_the_model_decides(facts, limits):
    """The sidecar's answer that has these facts."""
    entries = [
        {
            "name": limit.name,
            "remaining": facts[f"{limit.name}.remaining"],
            "reset_after": facts[f"{limit.name}.reset_after"] / 1e6,
            "retry_after": facts[f"{limit.name}.retry_after"] / 1e6,
        }
        for limit in limits
    ]
    members = {name: facts[name] for name in ("allowed", "violated", "timestamp")}
    retry_after = facts["retry_after"] / 1e6
    return {**members, "retry_after": retry_after, "source": "store", "limits": entries}


@pytest.fixture
def expecting():
    """A benchmark that expects something of the first request."""
    benchmark = azure.AzureReserve()
    benchmark.requests = read_trace(azure.EXCERPT)[:1]
    benchmark.model = Model(limits_of(azure.POLICY, "minutes"))
    benchmark.expect()
    return benchmark


def test_an_admitted_check_that_reserved_nothing_is_a_mismatch(expecting):
    answer = _as_the_model_decides(expecting.decisions[0], expecting.model.limits)
    expecting.compare(expecting.requests, [_answer(**answer)])
    [(row, told)] = expecting.mismatches
    assert row == 0
    assert "no reservation" in told


def test_a_denied_check_that_reserved_something_is_a_mismatch(expecting):
    answer = _as_the_model_decides(expecting.decisions[0], expecting.model.limits)
    expecting.settlements.clear()  # as if the model denied it
    expecting.compare(expecting.requests, [_answer(**answer, reservation="r"), _answer(404)])
    [(row, told)] = expecting.mismatches
    assert row == 0
    assert "model    answer no reservation" in told


@pytest.mark.parametrize(
    ("member", "other"), [("settled", False), ("replayed", True), ("limits", []), ("limits", None)]
)
def test_every_member_of_a_settlement_is_compared(member, other):
    limit = {"name": "tokens", "remaining": 7, "reset_after": 1.5, "retry_after": 0.0}
    answer = {"settled": True, "replayed": False, "limits": [limit]}
    facts = read_settlement(_answer(**answer))
    state = {"tokens.remaining": 7, "tokens.reset_after": 1_500_000, "tokens.retry_after": 0}
    assert facts == {"settled": True, "replayed": False, **state}
    assert read_settlement(_answer(**{**answer, member: other})) != facts
    assert read_settlement(_answer(404, **answer))["answer"].startswith("HTTP 404: ")


def test_over_and_under_shoot_are_told_apart():
    figures = azure.misses(10, [4, 10, 8, 13])
    over = {"count": 2, "share": 0.5, "tokens": 8, "median": 4, "most": 6}
    under = {"count": 1, "share": 0.25, "tokens": 3, "median": 3, "most": 3}
    for name, expected in (("over", over), ("under", under)):
        assert {what: figures[f"{name}_{what}"] for what in expected} == expected
    assert (figures["exact"], figures["output_estimated"], figures["output_used"]) == (1, 40, 35)
    assert azure.misses(10, [])["over_median"] == 0
