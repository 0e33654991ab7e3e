"""What is particular to the shipped Caddyfile."""

import json

import httpx
import pytest

from .run_caddy import run_caddy

PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.fixture
def gateway(scripted_sidecar, upstream, tmp_path):
    """A client of a running Caddy that asks a server with set answers."""
    with (
        run_caddy(scripted_sidecar.port, upstream.port, tmp_path) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def read_outcomes(folder):
    """Return what the access log says of each request."""
    records = [json.loads(line) for line in (folder / "output.log").read_text().splitlines()]
    return [record["ratelimit"] for record in records if record.get("logger") == "http.log.access"]


@pytest.mark.parametrize(
    ("status", "headers", "client_sees", "outcome"),
    [
        (429, PROBLEM, 429, "denied"),
        (503, PROBLEM, 503, "unavailable"),
        # From a load balancer, not from the sidecar.
        (503, {"Content-Type": "text/plain"}, 200, "failed-open"),
        (500, PROBLEM, 200, "failed-open"),
        (422, PROBLEM, 422, "malformed"),
        (401, PROBLEM | {"WWW-Authenticate": "Bearer"}, 401, "unknown-key"),
        (401, PROBLEM, 500, "misconfigured"),
        (404, PROBLEM, 500, "misconfigured"),
    ],
)
def test_an_answer_of_the_sidecar_becomes_one_for_the_client(
    gateway, scripted_sidecar, upstream, tmp_path, status, headers, client_sees, outcome
):
    scripted_sidecar.set_answer(status, headers | {"X-RateLimit-Key": "vk_real"}, b"the sidecar's own words")
    answer = gateway.get("/")
    assert answer.status_code == client_sees
    assert "X-RateLimit-Key" not in answer.headers
    assert read_outcomes(tmp_path) == [outcome]
    assert (answer.text == "the sidecar's own words") == (client_sees in {429, 503, 422, 401})
    assert len(upstream.requests) == (client_sees == 200)


def test_the_model_is_read_from_the_path_without_escapes_and_dots(gateway, scripted_sidecar):
    gateway.get(gateway.base_url.copy_with(raw_path=b"/%6dodels/x/..//qwen3-4b/chat"))
    assert scripted_sidecar.requests[-1].headers["X-RateLimit-Model"] == "qwen3-4b"


def test_the_sidecar_gets_no_other_header(gateway, scripted_sidecar):
    gateway.get("/", headers={"Authorization": "Bearer s", "X-Api-Key": "t", "Cookie": "session"})
    sent = {name for name, value in scripted_sidecar.requests[-1].headers.items() if value}
    sent -= {"user-agent", "accept-encoding", "host", "x-forwarded-proto", "x-forwarded-host", "via"}
    assert sent == {"authorization", "x-forwarded-for", "x-ratelimit-request-id"}


def test_an_api_that_is_gone_is_a_502_and_is_not_mistaken_for_the_sidecar(
    scripted_sidecar, upstream, tmp_path
):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    upstream.shutdown()
    upstream.server_close()
    with run_caddy(scripted_sidecar.port, upstream.port, tmp_path) as url:
        assert httpx.get(url).status_code == 502
    assert read_outcomes(tmp_path) == ["allowed"]


def test_the_connection_to_the_sidecar_is_kept(gateway, scripted_sidecar):
    for _ in range(10):
        gateway.get("/")
    assert len({request.client_port for request in scripted_sidecar.requests}) < 5


def test_no_log_holds_the_secret(gateway, scripted_sidecar, tmp_path):
    secret = "secret-for-the-log"
    gateway.get(
        "/", headers={"Authorization": f"Bearer {secret}", "X-Api-Key": secret}, params={"key": secret}
    )
    scripted_sidecar.shutdown()
    scripted_sidecar.server_close()
    gateway.get("/", headers={"X-Api-Key": secret}, params={"key": secret})
    assert read_outcomes(tmp_path)[0] == "allowed"
    assert secret not in (tmp_path / "output.log").read_text()
