"""What the shipped nginx configuration sends to a sidecar, and what it does with each answer."""

import socket
import threading

import httpx
import pytest

PROBLEM = {"Content-Type": "application/problem+json"}
LIMITS = {"RateLimit": '"requests";r=0;t=3', "RateLimit-Policy": '"requests";q=20;w=60'}


@pytest.fixture
def gateway(start_nginx, scripted_sidecar):
    return start_nginx(scripted_sidecar.port)


@pytest.mark.parametrize(
    ("status", "headers", "client_sees", "outcome"),
    [
        (200, {}, 200, "allowed"),
        (429, PROBLEM, 429, "denied"),
        (503, PROBLEM, 503, "unavailable"),
        # From a load balancer, not from the sidecar.
        (503, {"Content-Type": "text/plain"}, 200, "failed-open"),
        (500, PROBLEM, 200, "failed-open"),
        (502, {}, 200, "failed-open"),
        (504, {}, 200, "failed-open"),
        (400, PROBLEM, 400, "malformed"),
        (422, PROBLEM, 400, "malformed"),
        (401, PROBLEM, 500, "misconfigured"),
        (401, PROBLEM | {"WWW-Authenticate": "Bearer"}, 401, "unknown-key"),
        (403, PROBLEM, 500, "misconfigured"),
        (404, PROBLEM, 500, "misconfigured"),
    ],
)
def test_an_answer_of_the_sidecar_becomes_one_for_the_client(
    gateway, scripted_sidecar, upstream, status, headers, client_sees, outcome
):
    scripted_sidecar.set_answer(status, headers, b"the sidecar's own words")
    answer = gateway.get_answer()
    assert answer.status_code == client_sees
    assert gateway.read_access_log()[-1]["ratelimit"] == outcome
    assert [request.headers["X-RateLimit-Outcome"] for request in upstream.requests] == [outcome] * (
        client_sees == 200
    )


def test_a_sidecar_that_never_answers_is_not_waited_for(start_nginx, upstream):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = start_nginx(silent.getsockname()[1]).send_request(timeout=30)
    assert answer.status_code == 200
    assert upstream.requests[0].headers["X-RateLimit-Outcome"] == "failed-open"


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_keeps_headers_and_type_whatever_the_path_ends_in(gateway, scripted_sidecar, status):
    scripted_sidecar.set_answer(status, PROBLEM | LIMITS | {"Retry-After": "3"})
    answer = gateway.get_answer("GET", "/page.html")
    assert answer.json()["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Retry-After"] == "3"
    assert {name: answer.headers[name] for name in LIMITS} == LIMITS


@pytest.mark.parametrize("status", [200, 429])
def test_a_header_that_the_sidecar_leaves_out_is_absent_and_not_empty(gateway, scripted_sidecar, status):
    scripted_sidecar.set_answer(status, PROBLEM)
    answer = gateway.get_answer()
    assert answer.status_code == status
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & set(answer.headers)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_an_error_of_the_api_itself_is_passed_on_as_it_is(gateway, upstream, status):
    upstream.set_answer(status, {"Retry-After": "7"}, b"the API's own words")
    answer = gateway.get_answer()
    assert (answer.status_code, answer.text) == (status, "the API's own words")
    assert answer.headers.get_list("Retry-After") == ["7"]


def test_the_sidecar_is_told_only_what_the_limits_need(gateway, scripted_sidecar):
    names = ["Key", "Plan", "Model", "Tenant", "Cost", "Timestamp", "Reserve", "Request-Id", "Gateway-Token"]
    gateway.get_answer(
        "GET",
        "/?deny_status=403",
        headers={f"X-RateLimit-{name}": "claimed" for name in names}
        | {"Authorization": "Bearer s", "Cookie": "session", "X-Request-Id": "claimed"}
        | {"X-Forwarded-For": "192.0.2.1"},
    )
    checked = scripted_sidecar.requests[-1]
    assert checked.path == "/v1/authorize"
    assert set(checked.headers) == {"host", "authorization", "x-forwarded-for", "x-ratelimit-request-id"}
    assert checked.headers["Authorization"] == "Bearer s"
    assert checked.headers["X-Forwarded-For"] == "127.0.0.1"
    assert checked.headers["X-RateLimit-Request-Id"] != "claimed"


def test_the_api_gets_no_ratelimit_header_that_the_client_made_up(gateway, scripted_sidecar, upstream):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    names = ["Key", "Plan", "Model", "Tenant", "Cost", "Timestamp", "Reserve", "Reservation", "Request-Id"]
    names += ["Gateway-Token"]
    gateway.get_answer(headers={f"X-RateLimit-{name}": "claimed" for name in names})
    (passed,) = upstream.requests
    headers = {name: value for name, value in passed.headers.items() if name.startswith("x-ratelimit-")}
    assert headers == {"x-ratelimit-key": "vk_real", "x-ratelimit-outcome": "allowed"}


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/models/qwen3-4b/chat", "qwen3-4b"),
        ("/%6dodels/x/..//qwen3-4b/chat?model=other", "qwen3-4b"),
        ("/v1/chat", None),
    ],
)
def test_the_model_is_read_from_the_path_that_the_api_will_see(gateway, scripted_sidecar, path, model):
    gateway.get_answer("GET", httpx.URL(gateway.url, raw_path=path.encode()))
    assert scripted_sidecar.requests[-1].headers.get("X-RateLimit-Model") == model


@pytest.mark.parametrize(
    ("body", "estimate"),
    [
        (b"x" * 400, "tokens=250"),
        (b"x" * 3_000, "tokens=1000"),
        (b"x" * 9_000, "tokens=2500"),
        (b"x" * 3_000_000, "tokens=10000"),
        ([b"x" * 50_000, b"y" * 50_000], "tokens=1000"),
    ],
    ids=["400 bytes", "3 kB", "9 kB", "3 MB", "of unknown length"],
)
def test_a_body_reaches_the_api_whole_and_the_sidecar_only_as_an_estimate(
    gateway, scripted_sidecar, upstream, body, estimate
):
    claiming_nothing = {"X-RateLimit-Cost": "tokens=0"}
    assert gateway.get_answer("POST", content=body, headers=claiming_nothing).status_code == 200
    checked, (passed,) = scripted_sidecar.requests[-1], upstream.requests
    assert (passed.method, passed.body) == ("POST", body if isinstance(body, bytes) else b"".join(body))
    assert checked.body == b""
    assert not {"content-length", "transfer-encoding"} & set(checked.headers)
    assert checked.headers["X-RateLimit-Cost"] == estimate


def test_a_refused_post_never_reaches_the_api(gateway, scripted_sidecar, upstream):
    scripted_sidecar.set_answer(429, PROBLEM)
    assert gateway.get_answer("POST", content=b"x" * 100_000).status_code == 429
    assert upstream.requests == []


def test_a_failed_check_does_not_lose_the_body(gateway, scripted_sidecar, upstream):
    scripted_sidecar.set_answer(500)
    gateway.send_request("POST", content=b"x" * 100_000)
    assert upstream.requests[0].body == b"x" * 100_000


@pytest.mark.parametrize("status", [200, 429])
def test_head_requests_are_limited_too(gateway, scripted_sidecar, upstream, status):
    scripted_sidecar.set_answer(status, LIMITS)
    answer = gateway.get_answer("HEAD")
    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers["RateLimit"] == LIMITS["RateLimit"]
    assert [request.method for request in upstream.requests] == ["HEAD"] * (status == 200)


def test_tokens_reach_the_client_as_they_are_generated(gateway, upstream):
    first_arrived = threading.Event()

    def generate():
        yield b"first "
        assert first_arrived.wait(timeout=30)
        yield b"second"

    upstream.set_answer(200, {"Content-Type": "text/event-stream"}, generate())
    with gateway.client.stream("GET", "/") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first "
        first_arrived.set()
        assert b"".join(parts) == b"second"


def test_the_connection_to_the_sidecar_is_kept(gateway, scripted_sidecar):
    for _ in range(10):
        gateway.send_request()
    connections = {request.client_port for request in scripted_sidecar.requests}
    assert len(connections) <= 1 + gateway.count_timeouts()


def test_clients_cannot_talk_to_the_sidecar_through_nginx(gateway, scripted_sidecar, upstream):
    assert gateway.send_request("GET", "/_ratelimit").status_code == 403
    assert scripted_sidecar.requests == upstream.requests == []
