"""CORSMiddleware around the middleware, as docs/python.md says."""

import asyncio

import pytest
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from ratelimit import Limit
from ratelimit.asgi import RateLimitMiddleware

from .requests import KEYED, SECRET, open_browser

ORIGIN = {"Origin": "https://shop.test"}
PREFLIGHT = {**ORIGIN, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-api-key"}
EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After"]
ALLOWED = {"allow_origins": [ORIGIN["Origin"]], "allow_headers": ["X-Api-Key"], "expose_headers": EXPOSED}


def make_added(limiter):
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limiter=limiter, **KEYED)
    app.add_middleware(CORSMiddleware, **ALLOWED)
    app.get("/")(lambda: "found")
    return app


def make_wrapped(limiter):
    app = FastAPI()
    app.get("/")(lambda: "found")
    return CORSMiddleware(RateLimitMiddleware(app, limiter, **KEYED), **ALLOWED)


@pytest.mark.parametrize("make_app", [make_added, make_wrapped])
def test_preflights_are_free_and_a_browser_can_read_a_denial(open_limiter, make_app):
    async def run():
        async with (
            open_limiter(Limit("requests", "1/365d")) as limiter,
            open_browser(make_app(limiter)) as browser,
        ):
            preflights = [await browser.options("/", headers=PREFLIGHT) for _ in range(3)]
            answers = [await browser.get("/", headers={**ORIGIN, **SECRET}) for _ in range(2)]
            return preflights, answers

    preflights, answers = asyncio.run(run())
    assert [answer.status_code for answer in preflights] == [200] * 3
    assert [answer.status_code for answer in answers] == [200, 429]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert answer.headers["Access-Control-Expose-Headers"] == ", ".join(EXPOSED)
    assert "Retry-After" in answers[1].headers
