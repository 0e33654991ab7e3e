"""A streaming proxy for an LLM API that meters tokens: reserve an estimate, stream, settle what was used.

Run it, and try what it prints. Copy it, and put your upstream in the place of `ask_upstream`. Only the key's
identifier, the model and token counts reach the limiter: never a prompt, never a secret.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from anyio import CancelScope
from pydantic import BaseModel, PositiveInt, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ratelimit import AsyncLimiter, AsyncReservation, Policy, RateLimited, RateLimitError, Usage
from ratelimit.request.privacy import identifier_of

TRY = """curl -iN -H 'Authorization: Bearer sk-demo' \\
  -d '{"model": "qwen3-4b", "stream": true, "messages": [{"role": "user", "content": "Count to 40"}]}'"""
TOKEN_DELAY = float(os.environ.get("TOKEN_DELAY", "0.05"))
UNTOLD_OUTPUT = 1024  # the maximum where the client names none; tell the upstream, too
Chunk = dict[str, Any]


class Asked(BaseModel):
    """What the proxy needs to understand of a request."""

    model: str
    messages: list[Any]
    max_completion_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    stream: bool = False
    stream_options: dict[str, bool] = {}

    @property
    def prompt(self) -> int:
        """About how many tokens the prompt has: four bytes make one, and settling mends the rest."""
        return len(json.dumps(self.messages, ensure_ascii=False).encode()) // 4

    @property
    def most_output(self) -> int:
        """The most tokens that the answer may have. Where both names are given the newer one is meant."""
        return self.max_completion_tokens or self.max_tokens or UNTOLD_OUTPUT


class UpstreamError(HTTPException):
    """The upstream failed, before its answer or in the middle of it."""


async def ask_upstream(asked: Asked) -> AsyncGenerator[Chunk]:
    """Send a request to the upstream: put yours here. Returns when its answer begins."""
    if asked.model == "broken":
        raise UpstreamError(500, "the upstream failed")
    return count_aloud(asked)


async def count_aloud(asked: Asked) -> AsyncGenerator[Chunk]:
    """Stream as OpenAI's API does: count up to the last number in the prompt, a token each."""
    words = re.findall(r"\w+", json.dumps(asked.messages))
    wanted = int(next((word for word in reversed(words) if word.isdecimal()), "10"))
    count = min(wanted, asked.most_output)
    ends = {count: "stop" if count == wanted else "length"}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": asked.model}
    for number in range(1, count + 1):
        await asyncio.sleep(TOKEN_DELAY)
        if asked.model == "breaks-off" and number * 2 > count:
            raise UpstreamError(502, "the upstream broke off")
        choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": ends.get(number)}
        yield {**head, "choices": [choice], "usage": None}
    used = {"prompt_tokens": len(words), "completion_tokens": count, "total_tokens": len(words) + count}
    yield {**head, "choices": [], "usage": used}


@dataclass
class Tally:
    """What one request has used until now; settled once, however it ends."""

    reservation: AsyncReservation
    input_tokens: int
    output_tokens: int = 0
    error: UpstreamError | None = None
    settled: bool = False
    began: float = field(default_factory=time.perf_counter)

    def count(self, chunk: Chunk) -> None:
        """Count a piece of the answer: about a token each, until the upstream tells the true numbers."""
        self.output_tokens += any(choice["delta"].get("content") for choice in chunk["choices"])
        if usage := chunk["usage"]:
            self.input_tokens, self.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]

    async def settle(self) -> None:
        """Replace the estimate with what was used: nothing, where the upstream failed before its answer."""
        usage = Usage(
            input_tokens=0 if self.error and not self.output_tokens else self.input_tokens,
            output_tokens=self.output_tokens,
            latency_ms=round((time.perf_counter() - self.began) * 1000),
            status=self.error.status_code if self.error else 200,  # 400 and above count as `failures`
        )
        self.settled = True
        with CancelScope(shield=True):  # a client that hangs up cancels all else that is under way
            try:
                await self.reservation.settle(usage)
            except RateLimitError as error:  # the client has its answer all the same
                logging.getLogger(__name__).warning("not settled, so the estimate stays charged: %s", error)


class ChatCompletions:
    """An ASGI app, since a function that returns a response has ended before the first byte is sent."""

    def __init__(self, limiter: AsyncLimiter, pepper: str) -> None:
        self._limiter, self._pepper = limiter, pepper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise HTTPException(401, "send your key as Authorization: Bearer")
        key, plan = self._identify(secret, request)
        asked = Asked.model_validate_json(await request.body())
        async with await self._reserve(key, plan, asked) as reservation:  # frees its slot however this ends
            tally = Tally(reservation, asked.prompt)
            try:
                async with aclosing(await ask_upstream(asked)) as chunks:  # hung up on, we hang up too
                    if asked.stream:
                        events = self._events(asked, chunks, tally)
                        response: Response = StreamingResponse(events, media_type="text/event-stream")
                    else:
                        response = JSONResponse(await self._whole(chunks, tally))
                    response.headers.update(reservation.decision.headers(("ietf", "openai")))
                    await response(scope, receive, send)
            except UpstreamError as error:
                tally.error = error
                raise
            finally:
                # Who hangs up pays for what was streamed, or all would hang up just before the end. If none
                # was, nobody knows what the upstream did: nothing is settled and the estimate stays charged.
                if not tally.settled and (tally.output_tokens or tally.error):
                    await tally.settle()

    def _identify(self, secret: str, request: Request) -> tuple[str, str | None]:
        """Return the key of a secret and its plan, as far as `unknown_keys` says one.

        Otherwise everyone could make up secrets, and get a fresh bucket for each.
        """
        key = identifier_of(secret, self._pepper)
        rule = self._limiter.policy.unknown_keys
        if rule == "default_plan" or self._limiter.is_known(key):
            return key, None
        if rule == "deny":
            raise HTTPException(401, "this API key is not known")
        address = request.client.host if request.client else "unknown"
        return identifier_of(address, self._pepper, "anon_"), "anonymous"

    async def _reserve(self, key: str, plan: str | None, asked: Asked) -> AsyncReservation:
        """Reserve the prompt and the longest answer, as far as the plan can ever admit that.

        A maximum above the plan's burst would shut clients out for good, though most answers are far
        shorter. So the answer's share is cut to fit, and what is used beyond it becomes debt that the next
        request waits for. The prompt's share is sure to be used, and never cut.
        """
        cost = {"tokens": asked.prompt + asked.most_output}
        try:
            return await self._limiter.reserve(key, plan=plan, model=asked.model, cost=cost)
        except RateLimited as refusal:
            enforced = [limit for limit in refusal.decision.limits if limit.mode == "enforce"]
            most = min((limit.burst for limit in enforced if limit.unit == "tokens"), default=0)
            if refusal.decision.retry_after is not None or most <= asked.prompt:
                raise
        return await self._limiter.reserve(key, plan=plan, model=asked.model, cost={"tokens": most})

    async def _whole(self, chunks: AsyncIterator[Chunk], tally: Tally) -> Chunk:
        text, why, chunk = "", None, {}
        async for chunk in chunks:
            tally.count(chunk)
            for choice in chunk["choices"]:
                text, why = text + choice["delta"].get("content", ""), choice["finish_reason"]
        await tally.settle()
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": why}
        return {**chunk, "object": "chat.completion", "choices": [choice]}

    async def _events(self, asked: Asked, chunks: AsyncIterator[Chunk], tally: Tally) -> AsyncIterator[str]:
        end = "[DONE]"
        try:
            async for chunk in chunks:
                tally.count(chunk)
                if chunk["choices"] or asked.stream_options.get("include_usage"):
                    yield f"data: {json.dumps(chunk)}\n\n"
        except UpstreamError as error:  # too late for a status
            tally.error, end = error, json.dumps(shape_of(error.detail, "api_error"))
        await tally.settle()  # before the end is told: the client's next request must find its slot free
        yield f"data: {end}\n\n"


def shape_of(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's clients understand it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def refused(_: Request, error: Exception) -> JSONResponse:
    """Answer what cannot be asked, what the upstream could not answer, and what may not pass."""
    if not isinstance(error, RateLimited):
        message = getattr(error, "detail", None) or str(error)
        return JSONResponse(shape_of(message, "api_error"), getattr(error, "status_code", 400))
    decision = error.decision
    headers, advice = decision.headers(("ietf", "openai")), decision.advice
    units = [limit.unit for limit in decision.limits if limit.name in decision.violated]
    if decision.retry_after is None:
        headers["x-should-retry"] = "false"  # OpenAI's clients would try in vain
    elif set(units) == {"concurrent"}:
        # All that is sure is that a slot frees itself after its ttl, but most streams end long before.
        headers["Retry-After"], advice = "1", "wait for another stream to end"
    message = f"over {', '.join(decision.violated)}; {advice}"
    body = shape_of(message, next(iter(units), "requests"), "rate_limit_exceeded")
    return JSONResponse(body, 503 if decision.source == "outage" else 429, headers)


def main() -> None:
    """Serve on this machine until Ctrl-C."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--policy", default=Path(__file__).parent / "policies" / "llm-provider.yaml")
    parser.add_argument("--store", default="embedded://")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    # An answer takes seconds, so there is time to wait for a store that is slow for once.
    limiter = AsyncLimiter(options.store, Policy.from_file(options.policy), deadline=1.0)
    # Give every proxy the same pepper, or each will know a key by another name.
    endpoint = ChatCompletions(limiter, os.environ.get("RATELIMIT_KEY_PEPPER") or secrets.token_hex())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with limiter:
            yield

    routes = [Route("/v1/chat/completions", endpoint, methods=["POST"])]
    errors = dict.fromkeys((RateLimitError, ValidationError, HTTPException), refused)
    app = Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)
    with socket.create_server(("127.0.0.1", options.port)) as listener, suppress(KeyboardInterrupt):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        print(f"Serving {url}; try this, again and again:\n{TRY} {url}/chat/completions", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
