"""The Azure benchmark end to end: a running sidecar, a real Valkey, every decision checked."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.load import Answer
from benchmarks.model import TraceError, key_of, limits_of, read_decision, read_trace
from benchmarks.programs import ROOT
from benchmarks.runner import run
from benchmarks.suite import azure

LIMITS = {"requests", "tokens", "requests-daily"}


def denied_by(figures):
    denied = {
        entry["figure"]: entry["rounds"][0] for entry in figures if entry["figure"].startswith("denied_by_")
    }
    return {name.removeprefix("denied_by_").removesuffix("_a_round"): count for name, count in denied.items()}


def test_every_decision_on_the_excerpt_equals_the_plain_models(tmp_path, figure):
    arguments = ["azure", "--trace", azure.EXCERPT, "--rounds", "1", "--json", "--results", tmp_path]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)["azure"]
    assert figure(document, azure.SIDECAR, "decisions") == [500]
    assert figure(document, azure.SIDECAR, "mismatches") == [0]
    assert set(denied_by(document["figures"])) == LIMITS
    assert all(count >= 25 for count in denied_by(document["figures"]).values())
    assert json.loads((tmp_path / "azure.json").read_text()) == document


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_model_whose_burst_is_off_by_one_is_caught(name, monkeypatch, capfd, run_command):
    def wrong(policy, plan):
        return tuple(
            limit._replace(shape=replace(limit.shape, burst=limit.shape.burst - 1))
            if limit.name == name
            else limit
            for limit in limits_of(policy, plan)
        )

    monkeypatch.setattr(azure.model, "limits_of", wrong)
    assert run_command("azure", "--trace", azure.EXCERPT, "--rounds", 1) == 1
    complaints = capfd.readouterr().err
    assert "answers differ from the model's, such as:" in complaints
    assert "row 0: vk_" in complaints
    assert "\n  model    " in complaints
    assert "\n  sidecar  " in complaints


@pytest.mark.skipif(
    not azure.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{azure.TRACE.name}"
)
def test_every_decision_on_the_whole_trace_equals_the_plain_models():
    benchmark = azure.Azure(azure.TRACE, rounds=1)
    result = run(benchmark)
    assert result.faults == []
    assert result.found.rounds(benchmark.cell, azure.SIDECAR, "decisions") == [8_819]
    denied = denied_by(result.found.frame().to_dicts())
    assert set(denied) == LIMITS
    assert all(count >= 400 for count in denied.values())


@pytest.mark.skipif(
    not azure.TRACE.is_file(), reason=f"the whole trace is not at ../shared/data/{azure.TRACE.name}"
)
def test_the_excerpt_is_the_beginning_of_the_trace():
    assert read_trace(azure.EXCERPT) == read_trace(azure.TRACE)[:500]


def test_without_the_trace_the_excerpt_stands_in_and_the_output_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(azure, "TRACE", tmp_path / "trace.csv")
    benchmark = azure.Azure(rounds=1)
    assert run(benchmark).faults == []
    source = benchmark.notes()["trace"]
    assert "azure_excerpt.csv: 500 requests" in source
    assert "the whole trace is not at ../shared/data/trace.csv" in source


def _read(status, answer):
    return read_decision(Answer(status, json.dumps(answer).encode()))


def test_an_answer_that_is_no_decision_of_the_store_differs_from_every_decision():
    answer = {
        "allowed": True,
        "source": "store",
        "violated": [],
        "retry_after": 0.0,
        "timestamp": "",
        "limits": [],
    }
    assert _read(200, answer) == {"allowed": True, "violated": [], "retry_after": 0, "timestamp": ""}
    assert _read(429, answer)["answer"].startswith("HTTP 429: ")
    assert _read(200, {**answer, "source": "outage"})["answer"].startswith("HTTP 200: ")
    assert read_decision(Answer(500, b"oops")) == {"answer": "HTTP 500: oops"}


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
    assert _read(429, _answer()) != _read(429, {**_answer(), member: other})


@pytest.mark.parametrize(
    ("member", "other"), [("remaining", 8), ("reset_after", 1.500001), ("retry_after", None)]
)
def test_every_member_of_a_limit_is_compared(member, other):
    changed = _answer()
    changed["limits"][0][member] = other
    before, after = (_read(429, answer) for answer in (_answer(), changed))
    differing = azure.mismatch(read_trace(azure.EXCERPT)[0], "4818 tokens", before, after)
    assert before != after
    assert [line.split()[1] for line in differing.splitlines()[1:]] == [f"tokens.{member}"] * 2


def test_rows_are_assigned_to_a_hundred_uneven_keys_by_the_stated_rule():
    shares = Counter(key_of(row) for row in range(20_000))
    assert [key_of(row) for row in range(4)] == [7, 9, 52, 5]
    assert set(shares) == set(range(100))
    assert shares[0] > 20 * shares[99]


def test_a_key_keeps_its_order_and_its_connection():
    requests = read_trace(azure.EXCERPT)
    lanes = azure.lanes_of(requests, 8)
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
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "requests must follow"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n", "row 0"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.1234567,1\n", "row 0"),
    ],
)
def test_a_file_that_is_not_the_trace_is_refused(text, complaint, tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=complaint):
        read_trace(path)


def test_a_trace_that_was_named_and_is_not_there_is_a_usage_error(tmp_path, capfd, run_command):
    assert run_command("azure", "--trace", tmp_path / "absent.csv") == 2
    assert "No such file" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["azura"], ["azure", "--rounds", 0]])
def test_a_wrong_command_line_is_a_usage_error(arguments, capfd, run_command):
    assert run_command(*arguments) == 2
    assert "Usage: python -m benchmarks" in capfd.readouterr().err


def test_an_unknown_benchmark_is_told_which_there_are(capfd, run_command):
    assert run_command("azura") == 2
    assert "any of: library" in " ".join(capfd.readouterr().err.split())
