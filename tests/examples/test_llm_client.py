"""The client with a budget in examples/python. The API that it asks is the example proxy."""

import os
import re
import subprocess

import openai
import pytest

from ratelimit import Limit, RateLimited

from .python_examples import ROOT, VARIABLES, find_command, import_example, read_first_line

COMMAND = "python examples/python/llm_client.py"
KEYS = dict.fromkeys(
    ["sk-whole", "sk-stream", "sk-closed", "sk-refused", "sk-spent", "sk-breaks-off", "sk-command"], "roomy"
)
USED = 6 + 20
"""Tokens of `Count to 20` and its answer, as the proxy counts."""

ESTIMATE = len("Count to 20") // 4 + 500


@pytest.fixture
def make_client(proxy, valkey_url, open_client, monkeypatch):
    """Import the example with a secret for the proxy, and a budget that gives nothing back meanwhile."""
    open_client(valkey_url).flushall()
    monkeypatch.setenv("RATELIMIT_REDIS", valkey_url)
    monkeypatch.setenv("OPENAI_BASE_URL", proxy.url)
    monkeypatch.setenv("NO_PROXY", VARIABLES["NO_PROXY"])
    modules = []

    def make(secret):
        monkeypatch.setenv("OPENAI_API_KEY", secret)
        module = import_example("llm_client")
        modules.append(module)
        module.budget.policy = Limit("tokens", "1000/7d", unit="tokens")
        return module

    yield make
    for module in modules:
        module.client.close()
        module.budget.close()


def read_charge(module):
    return 1000 - module.budget.peek("research").limits[0].remaining


def test_a_whole_answer_costs_what_was_used(make_client):
    client = make_client("sk-whole")

    answer = client.complete("research", "Count to 20")

    assert answer.usage.total_tokens == USED
    assert read_charge(client) == USED


def test_a_stream_costs_the_estimate_while_it_runs_and_then_what_was_used(make_client):
    client = make_client("sk-stream")

    chunks = client.stream("research", "Count to 20")
    next(chunks)
    while_open = read_charge(client)
    rest = list(chunks)

    assert while_open == ESTIMATE
    assert rest[-1].usage.total_tokens == USED
    assert read_charge(client) == USED


def test_a_stream_that_is_closed_early_costs_the_estimate(make_client):
    client = make_client("sk-closed")

    chunks = client.stream("research", "Count to 20")
    next(chunks)
    chunks.close()

    assert read_charge(client) == ESTIMATE


def test_a_stream_that_breaks_off_costs_the_estimate(make_client):
    client = make_client("sk-breaks-off")
    client.MODEL = "breaks-off"

    with pytest.raises(openai.APIError, match="the upstream broke off"):
        list(client.stream("research", "Count to 20"))

    assert read_charge(client) == ESTIMATE


def test_a_request_that_the_api_refuses_costs_nothing(make_client):
    client = make_client("sk-refused")
    client.client = client.client.with_options(max_retries=0)
    client.MODEL = "broken"

    with pytest.raises(openai.InternalServerError):
        client.complete("research", "Count to 20")

    assert read_charge(client) == 0


def test_a_team_without_budget_is_denied_before_the_api_is_asked(make_client, proxy):
    client = make_client("sk-spent")
    open_stream = client.stream("research", "Count to 20")
    next(open_stream)

    with pytest.raises(RateLimited) as denied:
        client.complete("research", "Count to 20")

    assert denied.value.decision.violated == ("tokens",)
    assert list(open_stream)
    assert [record["output_tokens"] for record in proxy.store.read_records("sk-spent")] == ["20"]
    assert client.complete("support", "Count to 20").usage.total_tokens == USED


def test_the_command_in_the_readme_prints_two_answers_and_what_is_left(proxy):
    environment = {**os.environ, **VARIABLES, "OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": "sk-command"}

    done = subprocess.run(
        find_command(COMMAND),
        cwd=ROOT,
        env={**environment, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    first, second, left = done.stdout.splitlines()
    assert first.split() == second.split() == [str(number) for number in range(1, 21)]
    # A day's budget gives back about one token a second.
    assert re.fullmatch(r"999[4-9]\d tokens of 100000 are left", left)
    assert read_first_line("llm_client.py") == find_command(COMMAND)
