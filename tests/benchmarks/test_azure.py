"""The Azure benchmark end to end: a running sidecar, a real Valkey, every decision checked."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks import azure, replay
from benchmarks.model import Verdict, limits_of, told
from benchmarks.trace import TraceError, key_of, read_trace

LIMITS = {"requests", "tokens", "requests-daily"}


def test_every_decision_on_the_excerpt_equals_the_plain_models(tmp_path):
    arguments = [
        "azure",
        "--trace",
        str(replay.EXCERPT),
        "--rounds",
        "1",
        "--json",
        "--results",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=replay.HERE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads(done.stdout)["azure"]
    assert figures["decisions"] == 500
    assert figures["mismatches"] == 0
    assert set(figures["denied_by_a_round"]) == LIMITS
    assert all(count >= 25 for count in figures["denied_by_a_round"].values())
    assert json.loads((tmp_path / "azure.json").read_text()) == figures


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_model_whose_burst_is_off_by_one_is_caught(name, monkeypatch, capfd, tmp_path):
    def wrong(policy, plan):
        return tuple(
            replace(limit, shape=replace(limit.shape, burst=limit.shape.burst - 1))
            if limit.name == name
            else limit
            for limit in limits_of(policy, plan)
        )

    monkeypatch.setattr(replay, "limits_of", wrong)
    code = command.main(
        ["azure", "--trace", str(replay.EXCERPT), "--rounds", "1", "--results", str(tmp_path)]
    )
    printed, complaints = capfd.readouterr()
    assert code == 1
    assert "differ from the model" in printed
    assert "row 0: vk_" in complaints
    assert "\n  model    " in complaints
    assert "\n  sidecar  " in complaints


@pytest.mark.skipif(
    not replay.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{replay.TRACE.name}"
)
def test_every_decision_on_the_whole_trace_equals_the_plain_models():
    result = azure.run(replay.TRACE, rounds=1)
    assert result.faults == []
    assert result.figures["decisions"] == 8_819
    assert set(result.figures["denied_by_a_round"]) == LIMITS
    assert all(count >= 400 for count in result.figures["denied_by_a_round"].values())


@pytest.mark.skipif(
    not replay.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{replay.TRACE.name}"
)
def test_the_excerpt_is_the_beginning_of_the_trace():
    assert read_trace(replay.EXCERPT) == read_trace(replay.TRACE)[:500]


def test_without_the_trace_the_excerpt_stands_in_and_the_output_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(replay, "TRACE", tmp_path / "trace.csv")
    result = azure.run(rounds=1)
    assert result.faults == []
    assert "azure_excerpt.csv: 500 requests" in result.figures["trace"]
    assert "the whole trace is not at ../shared/data/trace.csv" in result.figures["trace"]


def test_an_answer_that_is_no_decision_of_the_store_differs_from_every_verdict():
    answer = {
        "allowed": True,
        "source": "store",
        "violated": [],
        "retry_after": 0.0,
        "timestamp": "",
        "limits": [],
    }
    outage = json.dumps({**answer, "source": "outage"}).encode()
    assert told(200, json.dumps(answer).encode()) == Verdict(True, (), 0, "", ())
    assert told(429, json.dumps(answer).encode()).startswith("HTTP 429: ")
    assert told(200, outage).startswith("HTTP 200: ")
    assert told(500, b"oops") == "HTTP 500: oops"


def _answer():
    limit = {"name": "tokens", "remaining": 7, "reset_after": 1.5, "retry_after": 0.25}
    return {
        "allowed": False,
        "source": "store",
        "violated": ["tokens"],
        "retry_after": 0.25,
        "timestamp": "2023-11-16T18:17:03.979960Z",
        "limits": [limit],
    }


@pytest.mark.parametrize(
    ("member", "other"),
    [("violated", []), ("retry_after", 0.250001), ("retry_after", None), ("timestamp", ""), ("limits", [])],
)
def test_every_member_of_a_decision_is_compared(member, other):
    assert told(429, json.dumps(_answer()).encode()) != told(
        429, json.dumps({**_answer(), member: other}).encode()
    )


@pytest.mark.parametrize(
    ("member", "other"), [("remaining", 8), ("reset_after", 1.500001), ("retry_after", None)]
)
def test_every_member_of_a_limit_is_compared(member, other):
    changed = _answer()
    changed["limits"][0][member] = other
    before, after = (told(429, json.dumps(answer).encode()) for answer in (_answer(), changed))
    differing = str(replay.Mismatch(read_trace(replay.EXCERPT)[0], "4818 tokens", before, after))
    assert before != after
    assert [line.split()[1] for line in differing.splitlines()[1:]] == [f"tokens.{member}"] * 2


def test_rows_are_assigned_to_a_hundred_uneven_keys_by_the_stated_rule():
    shares = Counter(key_of(row) for row in range(20_000))
    assert [key_of(row) for row in range(4)] == [7, 9, 52, 5]
    assert set(shares) == set(range(100))
    assert shares[0] > 20 * shares[99]


def test_a_key_keeps_its_order_and_its_connection():
    requests = read_trace(replay.EXCERPT)
    lanes = replay.lanes_of(requests, 8)
    assert sorted((r for lane in lanes for r in lane), key=lambda r: r.row) == requests
    assert all([r.row for r in lane] == sorted(r.row for r in lane) for lane in lanes)
    keys = [{r.key for r in lane} for lane in lanes]
    assert sum(map(len, keys)) == len(set().union(*keys))


def test_the_seventh_digit_is_rounded_and_utc_is_meant(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799607,4808,10\r\n")
    [request] = read_trace(path)
    assert request.at == 1_700_158_623_979_961
    assert request.timestamp == "2023-11-16T18:17:03.9799607Z"
    assert request.tokens == 4818


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the first line must be"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n", "row 0"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.1234567,1\n", "row 0"),
    ],
)
def test_a_file_that_is_not_the_trace_is_refused(text, complaint, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=complaint):
        read_trace(path)


def test_a_trace_that_was_named_and_is_not_there_is_a_usage_error(tmp_path, capfd):
    assert command.main(["azure", "--trace", str(tmp_path / "absent.csv"), "--results", str(tmp_path)]) == 2
    assert "No such file" in capfd.readouterr().err


def test_an_unknown_benchmark_is_a_usage_error(capfd):
    with pytest.raises(SystemExit) as left:
        command.main(["azura"])
    assert left.value.code == 2
    assert "any of: library" in capfd.readouterr().err
