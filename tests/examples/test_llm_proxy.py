"""The example proxy, used with the client that its users have: `openai`, which also retries."""

import asyncio
from contextlib import ExitStack
from functools import partial

import httpx
import openai
import pytest

from ..processes import wait_until
from .conftest import identify, run_proxy

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
"""Tokens of `Count to N`, as the fake upstream counts: role, user, content, and the three words."""


def make_request(number, **options):
    """Return a request whose answer has `number` tokens."""
    messages = [{"role": "user", "content": f"Count to {number}"}]
    return {"model": "qwen3-4b", "messages": messages, "max_tokens": 500, **options}


@pytest.fixture
def make_client():
    """Make clients, which do not retry by default."""
    with ExitStack() as stack:

        def make(url, secret, max_retries=0):
            # An HTTP proxy that the environment names must not be used.
            http = openai.DefaultHttpxClient(trust_env=False)
            openai_client = openai.OpenAI(
                base_url=url, api_key=secret, max_retries=max_retries, http_client=http
            )
            return stack.enter_context(openai_client).chat.completions

        yield make


@pytest.fixture
def connect(make_client, proxy):
    """Make clients of the proxy."""
    return partial(make_client, proxy.url)


def test_a_whole_answer_costs_what_was_used_and_not_the_estimate(connect, proxy):
    answer = connect("sk-whole").create(**make_request(20))

    assert answer.choices[0].message.content.split()[-1] == "20"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == PROMPT_WORDS + 20
    assert proxy.store.read_charge("sk-whole") == PROMPT_WORDS + 20
    assert proxy.store.read_free_slots("sk-whole") == 1


def test_a_stream_costs_what_was_used_and_not_the_estimate(connect, proxy):
    stream = connect("sk-stream").create(
        **make_request(40), stream=True, stream_options={"include_usage": True}
    )
    first = next(stream)
    while_open = proxy.store.read_charge("sk-stream")
    chunks = [first, *stream]

    assert first.choices[0].delta.content.strip() == "1"
    assert chunks[-1].usage.total_tokens == PROMPT_WORDS + 40
    assert while_open > 500  # the estimate
    assert proxy.store.read_charge("sk-stream") == PROMPT_WORDS + 40
    assert proxy.store.read_free_slots("sk-stream") == 1
    [record] = proxy.store.read_records("sk-stream")
    assert float(record.pop("latency_ms")) > 0
    assert float(record.pop("timestamp")) > 0
    del record["reservation"]
    assert record == {
        "key": identify("sk-stream"),
        "tenant": identify("sk-stream"),
        "plan": "roomy",
        "model": "qwen3-4b",
        "input_tokens": str(PROMPT_WORDS),
        "output_tokens": "40",
        "status": "200",
    }


def test_usage_is_streamed_to_those_who_ask_for_it(connect):
    assert all(chunk.choices for chunk in connect("sk-unasked").create(**make_request(3), stream=True))


def test_of_two_maxima_the_newer_is_the_estimate(connect, proxy):
    stream = connect("sk-both").create(**make_request(400, max_completion_tokens=900), stream=True)
    next(stream)
    while_open = proxy.store.read_charge("sk-both")
    stream.close()

    assert 900 < while_open < 1000


def test_the_clients_own_retry_succeeds_by_obeying_retry_after(connect):
    completions = connect("sk-retry", max_retries=2)
    completions.create(**make_request(1))

    # The next request may pass after 2 s. Without Retry-After, the client would try again after half a
    # second at most, then after one second more at most, and give up.
    answer = completions.with_raw_response.create(**make_request(1))

    assert answer.retries_taken == 1
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_denial_reaches_the_client_as_the_error_it_knows(connect):
    completions = connect("sk-no-retry")
    completions.create(**make_request(1))

    with pytest.raises(openai.RateLimitError) as error:
        completions.create(**make_request(1))

    headers = error.value.response.headers
    assert headers["retry-after"] in {"1", "2"}
    assert headers["x-ratelimit-limit-requests"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["ratelimit"].startswith('"requests";r=0;t=')
    assert headers["ratelimit-policy"] == '"requests";q=30;w=60'
    assert error.value.type == "requests"
    assert error.value.code == "rate_limit_exceeded"


def test_five_parallel_calls_do_not_spend_663_tokens_of_100(proxy):
    async def send_five():
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        options = {"base_url": proxy.url, "api_key": "sk-five", "max_retries": 0, "http_client": http}
        async with openai.AsyncOpenAI(**options) as client:
            calls = (client.chat.completions.create(**make_request(127, max_tokens=127)) for _ in range(5))
            answers = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(0.1)  # the loop closes the connections only in its next iterations
        return answers

    answers = asyncio.run(send_five())

    admitted = [answer for answer in answers if not isinstance(answer, Exception)]
    denied = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    # Each takes 133 tokens. One gets them, because the bucket was full; the 33 above the burst are debt.
    assert [answer.usage.total_tokens for answer in admitted] == [133]
    assert len(denied) == 4
    tokens = proxy.store.read_limit("sk-five", "tokens")
    assert tokens.remaining == 0
    assert tokens.reset_after == pytest.approx(1.33 * tokens.period, rel=0.01)


def test_a_small_plan_is_not_shut_out_by_a_large_maximum(connect, proxy):
    answer = connect("sk-small").create(**make_request(10, max_tokens=100_000))

    assert answer.usage.completion_tokens == 10
    assert proxy.store.read_charge("sk-small") == PROMPT_WORDS + 10


def test_a_prompt_beyond_the_burst_is_refused_and_not_tried_again(connect, proxy):
    completions = connect("sk-prompt", max_retries=2)

    with pytest.raises(openai.RateLimitError, match="this can never pass") as error:
        completions.create(**make_request("word " * 200))

    assert error.value.response.headers["x-should-retry"] == "false"
    assert error.value.response.request.headers["x-stainless-retry-count"] == "0"
    assert proxy.store.read_charge("sk-prompt") == 0


def test_who_hangs_up_pays_for_what_was_streamed_and_frees_the_slot(connect, proxy):
    completions = connect("sk-hang-up")
    stream = completions.create(**make_request(9000, max_tokens=9000), stream=True)
    for _ in range(5):
        next(stream)

    with pytest.raises(openai.RateLimitError, match="over parallel; wait for another stream") as error:
        completions.create(**make_request(1))
    assert error.value.response.headers["retry-after"] == "1"

    stream.close()
    wait_until(lambda: proxy.store.read_free_slots("sk-hang-up"))

    [record] = proxy.store.read_records("sk-hang-up")
    assert 5 <= int(record["output_tokens"]) < 9000
    assert record["status"] == "200"
    used = int(record["input_tokens"]) + int(record["output_tokens"])
    assert proxy.store.read_charge("sk-hang-up") == used
    completions.create(**make_request(1))


def test_who_hangs_up_before_the_first_token_pays_the_estimate_and_frees_the_slot(make_client, stuck_proxy):
    store = stuck_proxy.store
    stream = make_client(stuck_proxy.url, "sk-early").create(**make_request(10), stream=True)
    estimate = store.read_charge("sk-early")
    assert estimate > 500
    assert not store.read_free_slots("sk-early")

    stream.close()
    wait_until(lambda: store.read_free_slots("sk-early"))

    assert store.read_charge("sk-early") == estimate
    assert store.read_records("sk-early") == []


def test_failures_upstream_cost_nothing_but_shut_the_key(connect, proxy):
    completions = connect("sk-fails")
    for _ in range(3):
        with pytest.raises(openai.InternalServerError, match="the upstream failed"):
            completions.create(**make_request(1, model="broken"))

    with pytest.raises(openai.RateLimitError, match="over failures") as error:
        completions.create(**make_request(1))

    assert 0 < int(error.value.response.headers["retry-after"]) <= 300
    assert proxy.store.read_charge("sk-fails") == 0
    assert [record["status"] for record in proxy.store.read_records("sk-fails")] == ["500"] * 3


def test_an_answer_that_breaks_off_costs_what_came_and_counts_as_a_failure(connect, proxy):
    stream = connect("sk-breaks-off").create(**make_request(40, model="breaks-off"), stream=True)

    with pytest.raises(openai.APIError, match="the upstream broke off"):
        list(stream)

    [record] = proxy.store.read_records("sk-breaks-off")
    assert record["output_tokens"] == "20"
    assert record["status"] == "502"
    assert proxy.store.read_limit("sk-breaks-off", "failures").remaining == 1


@pytest.mark.parametrize("wrong", [{"model": "no such model"}, {"messages": "hello"}, {"max_tokens": -5}])
def test_what_cannot_be_asked_is_the_clients_mistake_and_costs_nothing(connect, proxy, wrong):
    with pytest.raises(openai.BadRequestError):
        connect("sk-nonsense").create(**make_request(1, **wrong))

    assert proxy.store.read_charge("sk-nonsense") == 0


def test_without_a_key_there_is_no_answer(proxy):
    answer = httpx.post(f"{proxy.url}/chat/completions", json=make_request(1), trust_env=False)

    assert answer.status_code == 401
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_with_nothing_said_it_serves_the_policy_beside_it_on_a_store_of_its_own(make_client, tmp_path):
    with run_proxy(tmp_path) as url:
        answer = make_client(url, "sk-demo").with_raw_response.create(**make_request(3))

    assert answer.parse().usage.completion_tokens == 3
    # Nobody has assigned this secret, so the plan `anonymous` applies, by address.
    assert answer.headers["x-ratelimit-limit-requests"] == "5"
    assert answer.headers["x-ratelimit-limit-tokens"] == "20000"


def test_made_up_secrets_share_the_bucket_of_their_address(make_client, tmp_path):
    with run_proxy(tmp_path) as url:
        for number in range(5):
            make_client(url, f"made-up-{number}").create(**make_request(1))
        with pytest.raises(openai.RateLimitError):
            make_client(url, "made-up-5").create(**make_request(1))
