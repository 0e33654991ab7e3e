"""The functions that the FastAPI dependency asks: plain or coroutine functions, one after the other."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from ratelimit import Decision, Limit
from ratelimit.fastapi import rate_limit

from .requests import KEYED, SECRET, THREE, WITH_ANONYMOUS, open_browser

TOKENS = Limit("tokens", "1000/365d", unit="tokens")
PAGE = Path(__file__).parents[2] / "docs" / "python.md"
[EXAMPLE] = re.findall(r"```python\n([^`]*async def estimate[^`]*)```", PAGE.read_text())


def post(app, limiter, *bodies, headers=SECRET):
    """Send bodies to `/chat` of an application; return the answers."""

    async def run():
        app.state.limiter = limiter
        async with limiter, open_browser(app) as browser:
            kind = {"Content-Type": "application/json", **headers}
            return [await browser.post("/chat", content=body, headers=kind) for body in bodies]

    return asyncio.run(run())


def make_app(**options):
    app = FastAPI()

    @app.post("/chat")
    async def chat(decision: Annotated[Decision, Depends(rate_limit(**KEYED, **options))]) -> float:
        return decision.limits[0].remaining

    return app


def make_function(calls, name, result, *, is_async):
    """Make a function for an option, which writes its name down when it is called, not when it is awaited."""

    async def finish():
        if isinstance(result, Exception):
            raise result
        return result

    def compute(_):
        calls.append(name)
        return finish() if is_async else result

    return compute


@pytest.mark.parametrize("name", ["cost", "plan", "model", "tenant"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_function_that_returns_none_leaves_its_field_out(open_limiter, name, is_async):
    calls = []
    app = make_app(**{name: make_function(calls, name, None, is_async=is_async)})
    [answer] = post(app, open_limiter(THREE), b"{}")
    assert (answer.status_code, answer.json(), calls) == (200, 2, [name])


@pytest.mark.parametrize("is_async", [False, True])
def test_the_plan_of_an_anonymous_request_is_not_computed(open_limiter, is_async):
    calls = []
    options = {
        "plan": make_function(calls, "plan", "free", is_async=is_async),
        "cost": make_function(calls, "cost", {"requests": 1}, is_async=is_async),
    }
    answers = post(make_app(**options), open_limiter(WITH_ANONYMOUS), b"{}", b"{}", headers={})
    assert [answer.status_code for answer in answers] == [200, 429]
    assert calls == ["cost", "cost"]


def test_a_plan_that_is_a_name_does_not_hold_for_anonymous_requests(open_limiter):
    answers = post(make_app(plan="free"), open_limiter(WITH_ANONYMOUS), b"{}", b"{}", headers={})
    assert [answer.status_code for answer in answers] == [200, 429]


def test_after_an_error_no_other_function_is_called(open_limiter):
    calls = []
    names = ["plan", "model", "tenant", "cost"]
    results = [None, LookupError("no such model"), None, None]
    options = {
        name: make_function(calls, name, result, is_async=True)
        for name, result in zip(names, results, strict=True)
    }
    [answer] = post(make_app(**options), open_limiter(THREE), b"{}")
    assert (answer.status_code, calls) == (500, ["plan", "model"])


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"max_tokens": 30}', 30),
        (b'{"max_tokens": 0}', 1),
        (b'{"max_tokens": -7}', 1),
        (b"{}", 500),
        (b'{"max_tokens": null}', 500),
        (b'{"max_tokens": "30"}', 500),
        (b'{"max_tokens": 1e999}', 500),
        (b"[]", 500),
        (b'"max_tokens"', 500),
        (b"null", 500),
        (b"{", 500),
        (b"\xff", 500),
        (b"", 500),
        (b"[" * 100_000, 500),
    ],
)
def test_the_estimate_in_the_documents_is_at_least_one_token_whatever_is_sent(open_limiter, body, tokens):
    names = {}
    exec(EXAMPLE, names)  # noqa: S102 - the page's own
    [answer] = post(make_app(cost=names["estimate"]), open_limiter(TOKENS), body)
    assert (answer.status_code, answer.json()) == (200, 1000 - tokens)


def test_the_application_in_the_documents_limits_requests_whatever_they_estimate(open_limiter):
    names = {}
    exec(EXAMPLE, names)  # noqa: S102 - the page's own
    limiter = open_limiter(Limit("tokens", "2/365d", unit="tokens"))
    body = b'{"max_tokens": 0}'
    answers = post(names["app"], limiter, body, body, body, b'{"max_tokens": 1e99}', b"[]")
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
