"""The fast path and the routes that /docs shows give the same answers and the same errors."""

import asyncio
import contextlib
import json

import httpx
import jsonschema_rs
import pytest
import structlog
from starlette.applications import Starlette
from starlette.routing import Mount

from ratelimit.decision.decision import Decision
from service.app import create_app
from service.settings import Settings

POLICY = """
default_plan: free
plans:
  anonymous: {limits: {requests: {rate: 2/hour}}}
  free: {limits: {requests: {rate: 2/hour}, tokens: {unit: tokens, rate: 100/hour}}}
"""

KEY = ("x-ratelimit-key", "k")
TIMESTAMP = ("x-ratelimit-timestamp", "1771601400")
LONG = b'{"key": "k"}'.ljust(70_000)

REQUESTS = {
    "allowed": ("POST", "/v1/check", (), b'{"key": "k", "timestamp": 1771601400}'),
    "a reservation": ("POST", "/v1/check", (), b'{"key": "k", "timestamp": 1771601400, "reserve": true}'),
    "can never pass": (
        "POST",
        "/v1/check",
        (),
        b'{"key": "k", "timestamp": 1771601400, "cost": {"tokens": 101}}',
    ),
    "not JSON": ("POST", "/v1/check", (), b"{"),
    "a field of no schema": ("POST", "/v1/check", (), b'{"key": "k", "prompt": "x"}'),
    "a plan of no policy": ("POST", "/v1/check", (), b'{"key": "k", "plan": "gold"}'),
    "too long": ("POST", "/v1/check", (), LONG),
    "another method": ("GET", "/v1/check", (), b""),
    "no method": ("HEAD", "/v1/check", (), b""),
    "a slash too many": ("POST", "/v1/check/", (), b'{"key": "k"}'),
    "headers alone": ("GET", "/v1/authorize", (KEY, TIMESTAMP), b""),
    "any method below": ("PROPFIND", "/v1/authorize/v1/models", (KEY, TIMESTAMP), b""),
    "next to it": ("GET", "/v1/authorized", (KEY, TIMESTAMP), b""),
    "denied by headers": ("GET", "/v1/authorize", (KEY, TIMESTAMP, ("x-ratelimit-cost", "tokens=101")), b""),
    "as 403": (
        "GET",
        "/v1/authorize?deny_status=403",
        (KEY, TIMESTAMP, ("x-ratelimit-cost", "tokens=101")),
        b"",
    ),
    "as 200": ("GET", "/v1/authorize?deny_status=200", (KEY, TIMESTAMP), b""),
    "twice": ("GET", "/v1/authorize", (KEY, TIMESTAMP, KEY), b""),
    "two secrets": ("GET", "/v1/authorize", (TIMESTAMP, ("x-api-key", "one"), ("x-api-key", "two")), b""),
    "two hops": (
        "GET",
        "/v1/authorize",
        (TIMESTAMP, ("x-forwarded-for", "::1"), ("x-forwarded-for", "127.0.0.1")),
        b"",
    ),
    "a wrong header": ("GET", "/v1/authorize", (KEY, TIMESTAMP, ("x-ratelimit-plan", "gold")), b""),
}


@pytest.fixture
def make_app(tmp_path):
    """Make the sidecar's application, on a store of its own."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)

    def make():
        return create_app(Settings(policy=file, redis="memory://", key_pepper="pepper"))

    return make


class _Middleware:
    """Ordinary middleware, which counts its calls."""

    calls = 0

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        type(self).calls += 1
        await self.app(scope, receive, send)


@contextlib.asynccontextmanager
async def open_client(app, site=None):
    """Run the application, and open a client to it, or to a site that has it mounted."""
    transport = httpx.ASGITransport(site or app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        client.base_url = "http://sidecar"
        yield client


def send_requests(app, *names, prefix="", site=None):
    async def send():
        async with open_client(app, site) as client:
            return [await _send_request(client, prefix, *REQUESTS[name]) for name in names]

    return asyncio.run(send())


async def _send_request(client, prefix, method, path, headers, body):
    return await client.request(method, f"{prefix}{path}", headers=[*headers], content=body)


def summarize_response(response):
    """Return what a client sees of a response, without the id of a reservation."""
    body = json.loads(response.content) if response.content else {}
    if body.get("reservation"):
        body["reservation"] = "an id"
    return response.status_code, sorted(response.headers.multi_items()), body


@pytest.mark.parametrize("name", REQUESTS)
def test_both_ways_answer_alike(make_app, name):
    with_fast_path, without = make_app(), make_app()
    without.add_middleware(_Middleware)
    [fast], [slow] = send_requests(with_fast_path, name), send_requests(without, name)
    assert summarize_response(fast) == summarize_response(slow)


def test_the_short_way_is_taken_for_checks_and_nothing_else(make_app):
    app = make_app()

    async def read_stacks():
        async with open_client(app) as client:
            for name in ("allowed", "any method below", "not JSON"):
                await _send_request(client, "", *REQUESTS[name])
            before = app.middleware_stack
            await client.get("/healthz")
            return before, app.middleware_stack

    before, after = asyncio.run(read_stacks())
    assert before is None
    assert after is not None


def test_middleware_sees_checks_too(make_app):
    app = make_app()
    app.add_middleware(_Middleware)
    _Middleware.calls = 0
    send_requests(app, "allowed", "headers alone")
    assert _Middleware.calls == 2


def test_an_admission_by_headers_computes_no_members_of_its_decision(make_app, monkeypatch):
    """They would be a third of the time that the answer takes."""
    computed = []
    monkeypatch.setattr(Decision, "__getattr__", lambda _, name: computed.append(name))
    [response] = send_requests(make_app(), "headers alone")
    assert response.status_code == 200
    assert response.headers["ratelimit"].startswith('"requests";r=1;')
    assert computed == []


def test_it_can_be_mounted_below_a_prefix(make_app):
    app = make_app()
    site = Starlette(routes=[Mount("/limits", app)])
    statuses = [
        response.status_code
        for response in send_requests(app, "allowed", "headers alone", prefix="/limits", site=site)
    ]
    assert statuses == [200, 200]


@pytest.mark.parametrize("name", REQUESTS)
def test_every_answer_is_as_documented(make_app, name):
    app = make_app()
    document = app.openapi()
    [response] = send_requests(app, name)
    operations = document["paths"].get(REQUESTS[name][1].partition("?")[0], {})
    operation = operations.get("post") or operations.get("get")
    # Nothing is documented for other paths and methods, nor for a status that `deny_status` has set.
    if operation is None or response.status_code in {403, 405}:
        return
    if REQUESTS[name][1].startswith("/v1/check"):
        schema = operation["responses"][str(response.status_code)]["content"]
        [(media_type, content)] = schema.items()
        assert response.headers["content-type"] == media_type
        whole = {**content["schema"], "components": document["components"]}
        jsonschema_rs.validator_for(whole).validate(json.loads(response.content))


def test_a_whole_answer_has_every_member_that_is_documented(make_app):
    app = make_app()
    [response] = send_requests(app, "allowed")
    documented = app.openapi()["components"]["schemas"]
    body = response.json()
    assert list(body) == list(documented["Decision"]["properties"])
    assert [*body["limits"][0]] == [*documented["LimitState"]["properties"]]


@pytest.mark.parametrize("has_middleware", [False, True])
@pytest.mark.parametrize("name", ["allowed", "headers alone"])
def test_a_bug_is_a_logged_problem_and_never_a_traceback(make_app, name, has_middleware, monkeypatch):
    app = make_app()
    if has_middleware:
        app.add_middleware(_Middleware)

    async def broken(*_, **__):
        raise ZeroDivisionError("vk_somebody")

    async def send():
        async with open_client(app) as client:
            monkeypatch.setattr(type(app.sidecar.limiter), "check", broken)
            return await _send_request(client, "", *REQUESTS[name])

    with structlog.testing.capture_logs() as lines:
        response = asyncio.run(send())
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "vk_somebody" not in response.text
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["a bug in the sidecar"]
    assert isinstance(lines[-1]["exc_info"], ZeroDivisionError)
