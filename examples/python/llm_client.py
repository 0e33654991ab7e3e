# Run it: python examples/python/llm_client.py "Count to 20"

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from openai import APIStatusError, OpenAI
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ratelimit import Limit, Limiter, Reservation, Usage

MODEL, MAX_OUTPUT = "qwen3-4b", 500

client = OpenAI()  # reads OPENAI_API_KEY and OPENAI_BASE_URL
budget = Limiter(
    os.environ.get("RATELIMIT_REDIS", "embedded://"),
    Limit("tokens", "100000/day", unit="tokens"),
    deadline=1.0,
)


def complete(team: str, prompt: str) -> ChatCompletion:
    """Return a whole answer. Raises RateLimited if the team's budget is spent."""
    with reserve(team, prompt) as reservation:
        answer = client.chat.completions.create(**make_request(prompt))
        settle(reservation, answer.usage)
        return answer


def stream(team: str, prompt: str) -> Iterator[ChatCompletionChunk]:
    """Stream an answer. If it ends early, the estimate stays charged."""
    with reserve(team, prompt) as reservation:
        for chunk in client.chat.completions.create(
            **make_request(prompt), stream=True, stream_options={"include_usage": True}
        ):
            settle(reservation, chunk.usage)  # only the last chunk has the usage
            yield chunk


@contextmanager
def reserve(team: str, prompt: str) -> Iterator[Reservation]:
    """Reserve the prompt, at about four bytes a token, and the longest answer."""
    estimate = {"tokens": len(prompt.encode()) // 4 + MAX_OUTPUT}
    with budget.reserve(team, model=MODEL, cost=estimate) as reservation:
        try:
            yield reservation
        except APIStatusError:
            reservation.cancel()  # the API refused the request, so nothing was used
            raise


def settle(reservation: Reservation, usage: CompletionUsage | None) -> None:
    """Replace the estimate with what was used."""
    if usage:
        reservation.settle(Usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens))


def make_request(prompt: str) -> dict:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_OUTPUT}


if __name__ == "__main__":
    with client, budget:
        print(complete("research", sys.argv[1]).choices[0].message.content)
        for part in stream("research", sys.argv[1]):
            for choice in part.choices:
                print(choice.delta.content or "", end="", flush=True)
        print(f"\n{budget.peek('research').limits[0].remaining} tokens of 100000 are left")
