"""The FastAPI dependency: decisions, problems, OpenAPI; and the middleware in a FastAPI application."""

import asyncio
import contextlib
import subprocess
import sys
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient

from ratelimit import AsyncLimiter, Decision, InvalidRequest, Limit, LimiterClosed, RateLimited
from ratelimit.asgi import RateLimitMiddleware
from ratelimit.fastapi import RESPONSES, rate_limit

from ..processes import find_free_port, wait_until
from .requests import KEYED, METERED, SECRET, THREE, open_browser, play, read_left

TOKENS = Limit("tokens", "100/365d", unit="tokens")


def make_app(limiter, **options):
    app = FastAPI()
    app.state.limiter = limiter
    checked = Annotated[Decision, Depends(rate_limit(**{**KEYED, **options}))]

    @app.get("/models", responses=RESPONSES)
    async def list_models(decision: checked) -> dict[str, int]:
        return {"left": decision.limits[0].remaining}

    @app.get("/own", dependencies=[Depends(rate_limit(**KEYED))])
    async def make_own() -> Response:
        return JSONResponse({})

    @app.post("/chat")
    async def chat(decision: checked, body: dict[str, int]) -> dict[str, int]:
        return {"left": decision.limits[0].remaining, **body}

    return app


def ask(open_limiter, *requests, limit=THREE, prepare=lambda _: None, **options):
    """Send requests to the application; return the answers."""

    async def run():
        async with open_limiter(limit) as limiter:
            app = make_app(limiter, **options)
            prepare(app)
            async with open_browser(app) as browser:
                return [await browser.request(*request, headers=SECRET) for request in requests]

    return asyncio.run(run())


def test_the_endpoint_gets_the_decision_and_its_answer_the_headers(open_limiter):
    [answer] = ask(open_limiter, ("GET", "/models"))
    assert answer.json() == {"left": 2}
    assert answer.headers["ratelimit"].startswith('"requests";r=2')


def test_a_denial_is_the_problem_with_its_headers(open_limiter):
    denied = ask(open_limiter, *[("GET", "/models")] * 4)[-1]
    assert denied.status_code == 429
    assert denied.headers["content-type"] == "application/problem+json"
    assert denied.json()["violated-policies"] == ["requests"]
    assert "retry-after" in denied.headers
    assert "ratelimit-policy" in denied.headers


def test_an_endpoint_with_a_response_of_its_own_is_checked_too(open_limiter):
    answers = ask(open_limiter, *[("GET", "/own")] * 4)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


def test_a_request_without_a_key_is_refused_with_a_problem(open_limiter):
    async def run():
        async with open_limiter(THREE) as limiter, open_browser(make_app(limiter)) as browser:
            return await browser.get("/models")

    refused = asyncio.run(run())
    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_cost_may_await_the_body(open_limiter):
    async def estimate(request: Request):
        return {"tokens": (await request.json())["max_tokens"]}

    async def run():
        async with open_limiter(TOKENS) as limiter, open_browser(make_app(limiter, cost=estimate)) as browser:
            return await browser.post("/chat", json={"max_tokens": 30}, headers=SECRET)

    assert asyncio.run(run()).json() == {"left": 70, "max_tokens": 30}


def test_a_handler_of_the_application_is_asked_first(open_limiter):
    def add_handler(app):
        @app.exception_handler(RateLimited)
        async def tell(request, denied):
            return JSONResponse({"over": denied.decision.violated}, 420)

    denied = ask(open_limiter, *[("GET", "/models")] * 4, prepare=add_handler)[-1]
    assert (denied.status_code, denied.json()) == (420, {"over": ["requests"]})


def test_openapi_shows_the_denials(open_limiter):
    app = make_app(open_limiter(THREE))
    responses = app.openapi()["paths"]["/models"]["get"]["responses"]
    assert set(responses) == {"200", "429", "503"}
    assert (
        "violated-policies"
        in (responses["429"]["content"]["application/problem+json"]["schema"]["properties"])
    )
    assert "Retry-After" in responses["429"]["headers"]
    parameters = app.openapi()["paths"]["/models"]["get"].get("parameters", [])
    assert parameters == []


def test_an_outage_that_denies_is_a_503(open_limiter, short_dir):
    limit = Limit("requests", "3/365d", on_outage="deny")

    async def run():
        limiter = open_limiter(limit, store=f"unix://{short_dir}/nothing-listens.sock")
        async with limiter, open_browser(make_app(limiter)) as browser:
            return await browser.get("/models", headers=SECRET)

    assert asyncio.run(run()).status_code == 503


def test_a_websocket_is_checked_too(open_limiter):
    async def run():
        async with open_limiter(Limit("requests", "1/365d")) as limiter:
            router = APIRouter()

            @router.websocket("/ws", dependencies=[Depends(rate_limit(limiter, key=lambda _: "vk_test"))])
            async def talk(socket: WebSocket):
                await socket.accept()
                await socket.close()

            app = FastAPI()
            app.include_router(router)
            socket = {"type": "websocket", "path": "/ws", "received": [{"type": "websocket.connect"}] * 2}
            with_answer = {"extensions": {"websocket.http.response": {}}}
            return (
                await play(app, **socket),
                await play(app, **socket),
                await play(app, **socket, **with_answer),
            )

    admitted, closed, answered = asyncio.run(run())
    assert admitted[0]["type"] == "websocket.accept"
    assert (closed[0]["type"], closed[0]["code"]) == ("websocket.close", 1008)
    assert (answered[0]["type"], answered[0]["status"]) == ("websocket.http.response.start", 429)


def test_without_a_limiter_the_error_says_where_it_is_looked_for(open_limiter):
    app = make_app(None)
    with pytest.raises(InvalidRequest, match=r"app\.state\.limiter"):
        asyncio.run(play(app, path="/models"))


async def find_key_later(request):
    """Return a key; nobody would await it."""
    return "vk_test"


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"keys": "X"}, TypeError, "did you mean 'key'"),
        ({"key": "X-Api-Key"}, InvalidRequest, "pepper: required"),
        ({"limiter": "redis://", **KEYED}, InvalidRequest, "needs an AsyncLimiter, not str"),
        ({"exclude": ["/"], **KEYED}, TypeError, "allowed: cost, dialects, key, model"),
        ({"key": find_key_later}, InvalidRequest, "key: must be a plain function"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options, error, told):
    with pytest.raises(error) as caught:
        rate_limit(**options)
    assert told in str(caught.value)


def test_the_middleware_serves_a_fastapi_application_with_streams(open_limiter):
    async def run():
        async with open_limiter(*METERED) as limiter:
            app = FastAPI()

            @app.get("/stream")
            async def stream(request: Request) -> StreamingResponse:
                async def chunks():
                    for number in range(10):
                        yield str(number)
                    request.state.used = 30

                return StreamingResponse(chunks())

            def read(answer):
                return {"output_tokens": answer.request["state"]["used"]}

            options = {"cost": {"tokens": 100}, "reserve": True, "usage": read}
            app.add_middleware(RateLimitMiddleware, limiter=limiter, **KEYED, **options)
            async with open_browser(app) as browser:
                first = await browser.get("/stream", headers=SECRET)
                second = await browser.get("/stream", headers=SECRET)
            return first.text, second.headers["ratelimit"]

    text, left = asyncio.run(run())
    assert text == "0123456789"
    assert left.startswith('"tokens";r=870')  # 1000 - 30 - 100


SERVED = """
import asyncio, sys
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ratelimit import AsyncLimiter, Limit
from ratelimit.asgi import RateLimitMiddleware

limiter = AsyncLimiter(sys.argv[1], [
    Limit("tokens", "1000/365d", unit="tokens"),
    Limit("parallel", unit="concurrent", capacity=2, ttl="10m"),
], deadline=20)
app = FastAPI()

@app.get("/endless")
async def stream(request: Request):
    async def chunks():
        request.state.used = 30
        while True:
            yield "chunk"
            await asyncio.sleep(0.01)
    return StreamingResponse(chunks())

@app.get("/error")
async def fail():
    raise ValueError

app.add_middleware(
    RateLimitMiddleware, limiter=limiter, key=lambda scope: "vk_test", cost={"tokens": 100}, reserve=True,
    exclude=["/docs"],
    usage=lambda answer: {"output_tokens": answer.request["state"]["used"]} if answer.status == 200 else None,
)
uvicorn.run(app, port=int(sys.argv[2]), log_level="critical")
"""


@pytest.fixture
def served(url):
    """The address of an application in a uvicorn of its own."""
    port = find_free_port()
    with subprocess.Popen([sys.executable, "-c", SERVED, url, str(port)]) as process:
        address = f"http://127.0.0.1:{port}"
        try:
            wait_until(lambda: _answers(f"{address}/docs"))
            yield address
        finally:
            process.terminate()


def _answers(address):
    try:
        return httpx.get(address, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_uvicorn_a_client_that_goes_away_and_an_error_end_their_reservations(served, make_limits):
    limits = make_limits(*METERED)
    with httpx.Client(base_url=served, trust_env=False) as client:
        with client.stream("GET", "/endless") as answer:
            chunks = answer.iter_text()
            next(chunks)
            assert answer.headers["ratelimit"].startswith('"tokens";r=900')
            assert read_left(limits, "parallel") == 1
        wait_until(lambda: read_left(limits, "parallel") == 2)
        assert read_left(limits) == 970
        assert client.get("/error").status_code == 500
    assert (read_left(limits), read_left(limits, "parallel")) == (870, 2)


def test_p8_an_application_that_starts_again_with_a_closed_limiter_does_not_start():
    limiter = AsyncLimiter("embedded://", THREE)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        async with limiter:
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(RateLimitMiddleware, limiter=limiter, **KEYED)
    app.get("/models")(lambda: 1)
    with TestClient(app) as client:
        assert client.get("/models", headers=SECRET).status_code == 200
    with pytest.raises(LimiterClosed, match="this limiter is closed"), TestClient(app):
        pytest.fail("it started")
    with pytest.raises(LimiterClosed, match="this limiter is closed"):
        TestClient(app).get("/models", headers=SECRET)
