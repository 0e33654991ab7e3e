"""The example proxy, used with the client that its users have: `openai`, retries and all."""

import asyncio
import time
from contextlib import ExitStack
from functools import partial

import httpx
import openai
import pytest

from .conftest import identifier, serving

KEYS = {
    "sk-whole": "roomy",
    "sk-stream": "roomy",
    "sk-unasked": "roomy",
    "sk-both": "roomy",
    "sk-retry": "paced",
    "sk-no-retry": "paced",
    "sk-five": "tight",
    "sk-small": "tight",
    "sk-prompt": "tight",
    "sk-hang-up": "roomy",
    "sk-fails": "roomy",
    "sk-breaks-off": "roomy",
    "sk-nonsense": "roomy",
}
PROMPT_WORDS = 6
"""Tokens of `Count to N` by the fake upstream's count: role, user, content, and the three words."""


def count_to(number, **options):
    """Return a request whose answer has that many tokens."""
    messages = [{"role": "user", "content": f"Count to {number}"}]
    return {"model": "qwen3-4b", "messages": messages, "max_tokens": 500, **options}


@pytest.fixture
def client():
    """Make clients, which by default do not retry."""
    with ExitStack() as stack:

        def client(url, secret, max_retries=0):
            # No proxy that the environment may name stands between a client and this machine.
            http = openai.DefaultHttpxClient(trust_env=False)
            openai_client = openai.OpenAI(
                base_url=url, api_key=secret, max_retries=max_retries, http_client=http
            )
            return stack.enter_context(openai_client).chat.completions

        yield client


@pytest.fixture
def connect(client, proxy):
    return partial(client, proxy.url)


def wait_until(ready, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"gave up waiting for {what}"
        time.sleep(0.01)


def test_a_whole_answer_costs_what_was_used_and_not_the_estimate(connect, proxy):
    answer = connect("sk-whole").create(**count_to(20))

    assert answer.choices[0].message.content.split()[-1] == "20"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == PROMPT_WORDS + 20
    assert proxy.store.charged("sk-whole") == PROMPT_WORDS + 20
    assert proxy.store.slots_free("sk-whole") == 1


def test_a_stream_costs_what_was_used_and_not_the_estimate(connect, proxy):
    stream = connect("sk-stream").create(**count_to(40), stream=True, stream_options={"include_usage": True})
    first = next(stream)
    while_open = proxy.store.charged("sk-stream")
    chunks = [first, *stream]

    assert first.choices[0].delta.content.strip() == "1"
    assert chunks[-1].usage.total_tokens == PROMPT_WORDS + 40
    assert while_open > 500  # the estimate
    assert proxy.store.charged("sk-stream") == PROMPT_WORDS + 40
    assert proxy.store.slots_free("sk-stream") == 1
    [record] = proxy.store.records("sk-stream")
    assert float(record.pop("latency_ms")) > 0
    assert float(record.pop("timestamp")) > 0
    del record["reservation"]
    assert record == {
        "key": identifier("sk-stream"),
        "tenant": identifier("sk-stream"),
        "plan": "roomy",
        "model": "qwen3-4b",
        "input_tokens": str(PROMPT_WORDS),
        "output_tokens": "40",
        "status": "200",
    }


def test_usage_is_streamed_to_those_who_ask_for_it(connect):
    assert all(chunk.choices for chunk in connect("sk-unasked").create(**count_to(3), stream=True))


def test_of_two_maxima_the_newer_is_the_estimate(connect, proxy):
    stream = connect("sk-both").create(**count_to(400, max_completion_tokens=900), stream=True)
    next(stream)
    while_open = proxy.store.charged("sk-both")
    stream.close()

    assert 900 < while_open < 1000


def test_the_clients_own_retry_succeeds_by_obeying_retry_after(connect):
    completions = connect("sk-retry", max_retries=2)
    completions.create(**count_to(1))

    # The next may pass after 2 s. Left to itself the client would try after half a second and again
    # after one more, at most, and give up.
    answer = completions.with_raw_response.create(**count_to(1))

    assert answer.retries_taken == 1
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_denial_reaches_the_client_as_the_error_it_knows(connect):
    completions = connect("sk-no-retry")
    completions.create(**count_to(1))

    with pytest.raises(openai.RateLimitError) as error:
        completions.create(**count_to(1))

    headers = error.value.response.headers
    assert headers["retry-after"] in {"1", "2"}
    assert headers["x-ratelimit-limit-requests"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["ratelimit"].startswith('"requests";r=0;t=')
    assert headers["ratelimit-policy"] == '"requests";q=30;w=60'
    assert error.value.type == "requests"
    assert error.value.code == "rate_limit_exceeded"


def test_five_parallel_calls_do_not_spend_663_tokens_of_100(proxy):
    async def five():
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        options = {"base_url": proxy.url, "api_key": "sk-five", "max_retries": 0, "http_client": http}
        async with openai.AsyncOpenAI(**options) as client:
            calls = (client.chat.completions.create(**count_to(127, max_tokens=127)) for _ in range(5))
            answers = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0.1)  # what the client closes is closed on later turns of the loop
        return answers

    answers = asyncio.run(five())

    admitted = [answer for answer in answers if not isinstance(answer, Exception)]
    denied = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    # Each wants 133 tokens. One gets them, since the bucket was full; the 33 beyond it are debt.
    assert [answer.usage.total_tokens for answer in admitted] == [133]
    assert len(denied) == 4
    tokens = proxy.store.limit("sk-five", "tokens")
    assert tokens.remaining == 0
    assert tokens.reset_after == pytest.approx(1.33 * tokens.period, rel=0.01)


def test_a_small_plan_is_not_shut_out_by_a_large_maximum(connect, proxy):
    answer = connect("sk-small").create(**count_to(10, max_tokens=100_000))

    assert answer.usage.completion_tokens == 10
    assert proxy.store.charged("sk-small") == PROMPT_WORDS + 10


def test_a_prompt_beyond_the_burst_is_refused_and_not_tried_again(connect, proxy):
    completions = connect("sk-prompt", max_retries=2)

    with pytest.raises(openai.RateLimitError, match="this can never pass") as error:
        completions.create(**count_to("word " * 200))

    assert error.value.response.headers["x-should-retry"] == "false"
    assert error.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert proxy.store.charged("sk-prompt") == 0


def test_who_hangs_up_pays_for_what_was_streamed_and_frees_the_slot(connect, proxy):
    completions = connect("sk-hang-up")
    stream = completions.create(**count_to(9000, max_tokens=9000), stream=True)
    for _ in range(5):
        next(stream)

    with pytest.raises(openai.RateLimitError, match="over parallel; wait for another stream") as error:
        completions.create(**count_to(1))
    assert error.value.response.headers["retry-after"] == "1"

    stream.close()
    wait_until(lambda: proxy.store.slots_free("sk-hang-up"), "the slot")

    [record] = proxy.store.records("sk-hang-up")
    assert 5 <= int(record["output_tokens"]) < 9000
    assert record["status"] == "200"
    used = int(record["input_tokens"]) + int(record["output_tokens"])
    assert proxy.store.charged("sk-hang-up") == used
    completions.create(**count_to(1))


def test_who_hangs_up_before_the_first_token_pays_the_estimate_and_frees_the_slot(client, stuck_proxy):
    store = stuck_proxy.store
    stream = client(stuck_proxy.url, "sk-early").create(**count_to(10), stream=True)
    estimate = store.charged("sk-early")
    assert estimate > 500
    assert not store.slots_free("sk-early")

    stream.close()
    wait_until(lambda: store.slots_free("sk-early"), "the slot")

    assert store.charged("sk-early") == estimate
    assert store.records("sk-early") == []


def test_failures_upstream_cost_nothing_but_shut_the_key(connect, proxy):
    completions = connect("sk-fails")
    for _ in range(3):
        with pytest.raises(openai.InternalServerError, match="the upstream failed"):
            completions.create(**count_to(1, model="broken"))

    with pytest.raises(openai.RateLimitError, match="over failures") as error:
        completions.create(**count_to(1))

    assert 0 < int(error.value.response.headers["retry-after"]) <= 300
    assert proxy.store.charged("sk-fails") == 0
    assert [record["status"] for record in proxy.store.records("sk-fails")] == ["500"] * 3


def test_an_answer_that_breaks_off_costs_what_came_and_counts_as_a_failure(connect, proxy):
    stream = connect("sk-breaks-off").create(**count_to(40, model="breaks-off"), stream=True)

    with pytest.raises(openai.APIError, match="the upstream broke off"):
        list(stream)

    [record] = proxy.store.records("sk-breaks-off")
    assert record["output_tokens"] == "20"
    assert record["status"] == "502"
    assert proxy.store.limit("sk-breaks-off", "failures").remaining == 1


@pytest.mark.parametrize("wrong", [{"model": "no such model"}, {"messages": "hello"}, {"max_tokens": -5}])
def test_what_cannot_be_asked_is_the_clients_mistake_and_costs_nothing(connect, proxy, wrong):
    with pytest.raises(openai.BadRequestError):
        connect("sk-nonsense").create(**count_to(1, **wrong))

    assert proxy.store.charged("sk-nonsense") == 0


def test_without_a_key_there_is_no_answer(proxy):
    answer = httpx.post(f"{proxy.url}/chat/completions", json=count_to(1), trust_env=False)

    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_with_nothing_said_it_serves_the_policy_beside_it_on_a_store_of_its_own(client, tmp_path):
    with serving(tmp_path) as url:
        answer = client(url, "sk-demo").with_raw_response.create(**count_to(3))

    assert answer.parse().usage.completion_tokens == 3
    assert '"requests-daily";q=500;w=86400' in answer.headers["ratelimit-policy"]
    assert answer.headers["x-ratelimit-limit-tokens"] == "30000"
