"""The Azure trace reserved and settled end to end: every answer and every bucket at the end is checked."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import azure_reserve, replay
from benchmarks.client import Answer
from benchmarks.estimates import rows, shots
from benchmarks.model import Model, Settled, State, told_settled
from benchmarks.trace import read_trace
from ratelimit.engine.bucket import Bucket


@pytest.fixture
def run(tmp_path, capfd):
    """Run the benchmark on the excerpt; gives exit code, printed figures and complaints."""

    def run():
        arguments = ["azure-reserve", "--trace", str(replay.EXCERPT), "--rounds", "1", "--json"]
        code = command.main([*arguments, "--results", str(tmp_path)])
        printed, complaints = capfd.readouterr()
        return code, json.loads(printed)["azure-reserve"], complaints

    return run


def test_every_answer_and_every_bucket_at_the_end_equals_the_plain_models(run):
    code, figures, complaints = run()
    assert (code, complaints) == (0, "")
    assert (figures["mismatches"], figures["bucket_mismatches"]) == (0, 0)
    assert figures["decisions_a_round"] == 500
    assert figures["denied_a_round"] > 100
    assert figures["settlements_a_round"] == 500 - figures["denied_a_round"]
    assert figures["buckets_a_round"] > 200
    estimates = figures["estimates"]
    over, under = estimates["over"], estimates["under"]
    assert over["count"] > 100
    assert under["count"] >= 1
    assert over["count"] + under["count"] + estimates["exact"] == figures["settlements_a_round"]
    assert over["tokens"] - under["tokens"] == estimates["output_estimated"] - estimates["output_used"]


def test_estimates_that_are_mostly_too_little_leave_the_same_debts_on_both_sides(run, monkeypatch):
    monkeypatch.setattr(azure_reserve, "ESTIMATE", 5)
    code, figures, complaints = run()
    assert (code, complaints) == (0, "")
    assert figures["estimates"]["under"]["count"] > 100


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
    assert "5320 tokens reserved" in complaints


def test_a_bucket_that_ends_otherwise_is_caught_even_if_every_answer_was_right(run, monkeypatch):
    expect = azure_reserve.expect

    def wrong(requests, limits):
        expected = expect(requests, limits)
        place = next(place for place in expected.buckets if place[1] == "tokens")
        bucket = expected.buckets[place]
        expected.buckets[place] = bucket._replace(used=bucket.used + 1e-9)
        return expected

    monkeypatch.setattr(azure_reserve, "expect", wrong)
    code, figures, complaints = run()
    assert code == 1
    assert (figures["mismatches"], figures["bucket_mismatches"]) == (0, 1)
    assert "1 buckets differ from the model's at the end" in complaints
    assert "tokens: model Bucket(used=" in complaints


@pytest.mark.skipif(
    not replay.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{replay.TRACE.name}"
)
def test_the_whole_trace_ends_with_the_plain_models_buckets():
    result = azure_reserve.run(replay.TRACE, rounds=1)
    assert result.faults == []
    assert result.figures["settlements_a_round"] > 5_000
    assert result.figures["estimates"]["under"]["count"] > 10


def test_a_bucket_on_one_side_only_is_a_difference():
    bucket, other = Bucket(1.0, 5), Bucket(2.0, 5)
    both = {("a", "tokens"): bucket}
    assert azure_reserve.differences(both, dict(both)) == []
    assert len(azure_reserve.differences(both, {})) == 1
    assert len(azure_reserve.differences({}, both)) == 1
    assert len(azure_reserve.differences(both, {("a", "tokens"): other, ("b", "tokens"): bucket})) == 2


def _answer(status=200, **fields):
    return Answer(status, json.dumps(fields).encode(), 0.0)


def test_an_admitted_check_that_reserved_nothing_is_a_mismatch():
    request, *_ = read_trace(replay.EXCERPT)
    limits = replay.open_trace(replay.EXCERPT).limits
    expected = azure_reserve.expect([request], limits)
    verdict = expected.verdicts[0]
    told = {
        "allowed": True,
        "source": "store",
        "violated": [],
        "retry_after": 0.0,
        "timestamp": verdict.timestamp,
        "limits": [
            {
                "name": state.name,
                "remaining": state.remaining,
                "reset_after": state.reset_after / 1e6,
                "retry_after": state.retry_after / 1e6,
            }
            for state in verdict.limits
        ],
    }
    exchange = azure_reserve.Exchange(request, _answer(**told))
    [mismatch] = azure_reserve._mismatches(exchange, expected)
    assert mismatch.sidecar == "no reservation"


@pytest.mark.parametrize(
    ("member", "other"), [("settled", False), ("replayed", True), ("limits", []), ("limits", None)]
)
def test_every_member_of_a_settlement_is_compared(member, other):
    limit = {"name": "tokens", "remaining": 7, "reset_after": 1.5, "retry_after": 0.0}
    answer = {"settled": True, "replayed": False, "limits": [limit]}
    told = told_settled(200, json.dumps(answer).encode())
    assert told == Settled(True, False, (State("tokens", 7, 1_500_000, 0),))
    assert told_settled(200, json.dumps({**answer, member: other}).encode()) != told
    assert told_settled(404, json.dumps(answer).encode()).startswith("HTTP 404: ")


def test_over_and_under_shoot_are_told_apart():
    figures = shots(10, [4, 10, 8, 13])
    assert figures["over"] == {"count": 2, "share": 0.5, "tokens": 8, "median": 4, "most": 6}
    assert figures["under"] == {"count": 1, "share": 0.25, "tokens": 3, "median": 3, "most": 3}
    assert (figures["exact"], figures["output_estimated"], figures["output_used"]) == (1, 40, 35)
    assert dict(rows(figures))["over-shot"] == "2 (50%) by 8 tokens; median 4, most 6"
    assert shots(10, [])["over"]["median"] == 0
