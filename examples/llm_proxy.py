"""A streaming proxy for an LLM API that meters tokens: reserve an estimate, stream, settle what was used.

Run it, and try the command that it prints. To use it, copy it and replace `ask_upstream` with your upstream.
Only the key's identifier, the model and token counts reach the limiter: never a prompt, never a secret.
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
DEFAULT_MAX_OUTPUT = 1024  # where the client sends no maximum; send it to the upstream, too
Chunk = dict[str, Any]


class ChatRequest(BaseModel):
    """The fields of a request that the proxy uses."""

    model: str
    messages: list[Any]
    max_completion_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    stream: bool = False
    stream_options: dict[str, bool] = {}

    @property
    def prompt_tokens(self) -> int:
        """The estimated tokens of the prompt: four bytes a token. Settling corrects the estimate."""
        return len(json.dumps(self.messages, ensure_ascii=False).encode()) // 4

    @property
    def max_output(self) -> int:
        """The most tokens that the answer may have. If both fields are sent, the newer one counts."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_OUTPUT


class UpstreamError(HTTPException):
    """The upstream failed, before its answer or during it."""


async def ask_upstream(chat: ChatRequest) -> AsyncGenerator[Chunk]:
    """Send a request to the upstream, and return when its answer begins. Replace this with yours."""
    if chat.model == "broken":
        raise UpstreamError(500, "the upstream failed")
    return count_aloud(chat)


async def count_aloud(chat: ChatRequest) -> AsyncGenerator[Chunk]:
    """Stream as OpenAI's API does: count up to the last number in the prompt, one token for each number."""
    words = re.findall(r"\w+", json.dumps(chat.messages))
    wanted = int(next((word for word in reversed(words) if word.isdecimal()), "10"))
    count = min(wanted, chat.max_output)
    ends = {count: "stop" if count == wanted else "length"}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": chat.model}
    for number in range(1, count + 1):
        await asyncio.sleep(TOKEN_DELAY)
        if chat.model == "breaks-off" and number * 2 > count:
            raise UpstreamError(502, "the upstream broke off")
        choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": ends.get(number)}
        yield {**head, "choices": [choice], "usage": None}
    used = {"prompt_tokens": len(words), "completion_tokens": count, "total_tokens": len(words) + count}
    yield {**head, "choices": [], "usage": used}


@dataclass
class Tally:
    """What one request has used so far. It is settled once, however the request ends."""

    reservation: AsyncReservation
    input_tokens: int
    output_tokens: int = 0
    error: UpstreamError | None = None
    settled: bool = False
    began: float = field(default_factory=time.perf_counter)

    def count(self, chunk: Chunk) -> None:
        """Count a chunk of the answer: one token each, until the upstream sends the exact numbers."""
        self.output_tokens += any(choice["delta"].get("content") for choice in chunk["choices"])
        if usage := chunk["usage"]:
            self.input_tokens, self.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]

    async def settle(self) -> None:
        """Replace the estimate with what was used: nothing if the upstream failed before its answer."""
        usage = Usage(
            input_tokens=0 if self.error and not self.output_tokens else self.input_tokens,
            output_tokens=self.output_tokens,
            latency_ms=round((time.perf_counter() - self.began) * 1000),
            status=self.error.status_code if self.error else 200,  # 400 and above count as `failures`
        )
        self.settled = True
        with CancelScope(shield=True):  # a client that disconnects cancels everything else
            try:
                await self.reservation.settle(usage)
            except RateLimitError as error:  # the client has its answer in any case
                logging.getLogger(__name__).warning("not settled, so the estimate stays charged: %s", error)


class ChatCompletions:
    """An ASGI app: a function that returns a response would end before the first byte is sent."""

    def __init__(self, limiter: AsyncLimiter, pepper: str) -> None:
        self._limiter, self._pepper = limiter, pepper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise HTTPException(401, "send your key as Authorization: Bearer")
        key, plan = self._identify(secret, request)
        chat = ChatRequest.model_validate_json(await request.body())
        async with await self._reserve(key, plan, chat) as reservation:  # frees its slot in any case
            tally = Tally(reservation, chat.prompt_tokens)
            try:
                # If the client disconnects, the request to the upstream ends too.
                async with aclosing(await ask_upstream(chat)) as chunks:
                    if chat.stream:
                        events = self._events(chat, chunks, tally)
                        response: Response = StreamingResponse(events, media_type="text/event-stream")
                    else:
                        response = JSONResponse(await self._whole(chunks, tally))
                    response.headers.update(reservation.decision.headers(("ietf", "openai")))
                    await response(scope, receive, send)
            except UpstreamError as error:
                tally.error = error
                raise
            finally:
                # A client that disconnects pays for what was streamed. Otherwise clients would disconnect
                # just before the end. If nothing was streamed, the usage is not known: nothing is settled,
                # and the estimate stays charged.
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

    async def _reserve(self, key: str, plan: str | None, chat: ChatRequest) -> AsyncReservation:
        """Reserve the prompt and the longest answer, up to what the plan can ever admit.

        A maximum above the plan's burst could never be admitted, though most answers are far shorter.
        So the estimate of the answer is reduced to fit. Usage beyond it becomes debt, and the next
        request waits until it is repaid. The estimate of the prompt is never reduced: it will be used.
        """
        cost = {"tokens": chat.prompt_tokens + chat.max_output}
        try:
            return await self._limiter.reserve(key, plan=plan, model=chat.model, cost=cost)
        except RateLimited as refusal:
            enforced = [limit for limit in refusal.decision.limits if limit.mode == "enforce"]
            most = min((limit.burst for limit in enforced if limit.unit == "tokens"), default=0)
            if refusal.decision.retry_after is not None or most <= chat.prompt_tokens:
                raise
        return await self._limiter.reserve(key, plan=plan, model=chat.model, cost={"tokens": most})

    async def _whole(self, chunks: AsyncIterator[Chunk], tally: Tally) -> Chunk:
        text, why, chunk = "", None, {}
        async for chunk in chunks:
            tally.count(chunk)
            for choice in chunk["choices"]:
                text, why = text + choice["delta"].get("content", ""), choice["finish_reason"]
        await tally.settle()
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": why}
        return {**chunk, "object": "chat.completion", "choices": [choice]}

    async def _events(
        self, chat: ChatRequest, chunks: AsyncIterator[Chunk], tally: Tally
    ) -> AsyncIterator[str]:
        end = "[DONE]"
        try:
            async for chunk in chunks:
                tally.count(chunk)
                if chunk["choices"] or chat.stream_options.get("include_usage"):
                    yield f"data: {json.dumps(chunk)}\n\n"
        except UpstreamError as error:  # the status has been sent already
            tally.error, end = error, json.dumps(shape_of(error.detail, "api_error"))
        await tally.settle()  # before the end is sent: the client's next request must find its slot free
        yield f"data: {end}\n\n"


def shape_of(message: str, kind: str, code: str | None = None) -> dict[str, Any]:
    """Return an error in the form that OpenAI's clients expect."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def refused(_: Request, error: Exception) -> JSONResponse:
    """Answer an invalid request, a failure of the upstream, or a denial."""
    if not isinstance(error, RateLimited):
        message = getattr(error, "detail", None) or str(error)
        return JSONResponse(shape_of(message, "api_error"), getattr(error, "status_code", 400))
    decision = error.decision
    headers, advice = decision.headers(("ietf", "openai")), decision.advice
    units = [limit.unit for limit in decision.limits if limit.name in decision.violated]
    if decision.retry_after is None:
        headers["x-should-retry"] = "false"  # OpenAI's clients would retry, and never succeed
    elif set(units) == {"concurrent"}:
        # A slot frees itself after its ttl at the latest, but most streams end long before.
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
    # An answer takes seconds, so waiting a second for a slow store costs little.
    limiter = AsyncLimiter(options.store, Policy.from_file(options.policy), deadline=1.0)
    # Give every proxy the same pepper. Otherwise each makes another key of the same secret.
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
