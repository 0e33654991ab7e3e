"""Caddy and HAProxy give the sidecar's answers to the client whole, and log what each meant."""

import re

import httpx
import pytest

from ..processes import find_free_port, wait_until
from . import run_caddy, run_haproxy
from .gateways import GATEWAYS

PROBLEM = {"Content-Type": "application/problem+json"}
OUTCOMES = {"caddy": r'"http\.log\.access".*"ratelimit":"([\w-]+)"', "haproxy": r" ratelimit=(\S+)"}
"""Where the access log of each gateway says what an answer meant."""


@pytest.fixture(params=OUTCOMES)
def name(request):
    return request.param


@pytest.fixture
def gateway(name, scripted_sidecar, upstream, tmp_path):
    """A client of a running gateway that asks a server with set answers."""
    with (
        GATEWAYS[name](scripted_sidecar.port, upstream.port, tmp_path) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


@pytest.fixture
def read_outcomes(name, tmp_path):
    """Return what the access log says of each request, of which there are `count`."""

    def read(count):
        def found():
            return re.findall(OUTCOMES[name], (tmp_path / "output.log").read_text())

        # A gateway writes it after the client has its answer.
        wait_until(lambda: len(found()) >= count)
        return found()

    return read


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
    gateway, scripted_sidecar, upstream, read_outcomes, status, headers, client_sees, outcome
):
    scripted_sidecar.set_answer(status, headers | {"X-RateLimit-Key": "vk_real"}, b"the sidecar's own words")
    answer = gateway.get("/")
    assert answer.status_code == client_sees
    assert "X-RateLimit-Key" not in answer.headers
    assert read_outcomes(1) == [outcome]
    assert (answer.text == "the sidecar's own words") == (client_sees in {429, 503, 422, 401})
    assert len(upstream.requests) == (client_sees == 200)


def test_the_model_is_read_from_the_path_without_escapes_and_dots(gateway, scripted_sidecar):
    gateway.get(gateway.base_url.copy_with(raw_path=b"/%6dodels/x/..//qwen3-4b/chat"))
    assert scripted_sidecar.requests[-1].headers["X-RateLimit-Model"] == "qwen3-4b"


def test_the_sidecar_gets_no_other_header(gateway, scripted_sidecar):
    gateway.get("/", headers={"Authorization": "Bearer s", "X-Api-Key": "t", "Cookie": "session"})
    sent = {name for name, value in scripted_sidecar.requests[-1].headers.items() if value}
    sent -= {
        "user-agent",
        "accept",
        "accept-encoding",
        "host",
        "x-forwarded-proto",
        "x-forwarded-host",
        "via",
    }
    assert sent == {"authorization", "x-forwarded-for", "x-ratelimit-request-id"}


@pytest.mark.parametrize(("status", "outcome"), [(200, "allowed"), (500, "failed-open")])
def test_an_api_that_is_gone_is_not_mistaken_for_the_sidecar(
    name, scripted_sidecar, read_outcomes, tmp_path, status, outcome
):
    scripted_sidecar.set_answer(status)
    with GATEWAYS[name](scripted_sidecar.port, find_free_port(), tmp_path) as url:
        assert httpx.get(url, trust_env=False).status_code in {502, 503}
        assert read_outcomes(1) == [outcome]


def test_the_connection_to_the_sidecar_is_kept(gateway, scripted_sidecar):
    for _ in range(10):
        gateway.get("/")
    assert len({request.client_port for request in scripted_sidecar.requests}) < 5


@pytest.mark.parametrize("sidecar_is_there", [True, False])
def test_no_log_holds_the_secret(name, scripted_sidecar, upstream, read_outcomes, tmp_path, sidecar_is_there):
    secret = "secret-for-the-log"
    headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": secret}
    port = scripted_sidecar.port if sidecar_is_there else find_free_port()
    with GATEWAYS[name](port, upstream.port, tmp_path) as url:
        httpx.get(url, headers=headers, params={"key": secret}, trust_env=False)
        assert read_outcomes(1) == ["allowed" if sidecar_is_there else "failed-open"]
    assert secret not in (tmp_path / "output.log").read_text()


def run_closing(name, sidecar_port, upstream_port, folder):
    """Run a gateway with the change that its comments name for one that closes without a sidecar."""
    if name == "haproxy":
        shipped = run_haproxy.SCRIPT.read_text()
        script = shipped.replace("FAILS_OPEN = true", "FAILS_OPEN = false")
        return run_haproxy.run_haproxy(sidecar_port, upstream_port, folder, script=script)
    shipped = run_caddy.CONFIG.read_text()
    text, changes = re.subn(
        r"(vars ratelimit_answered yes\n\s+|handle @unanswered {\n\s+)import api", r"\1respond 503", shipped
    )
    assert changes == 2
    return run_caddy.run_caddy(sidecar_port, upstream_port, folder, text=text)


def test_where_the_operator_says_so_it_closes_with_a_broken_sidecar(
    name, scripted_sidecar, upstream, tmp_path
):
    scripted_sidecar.set_answer(500)
    with run_closing(name, scripted_sidecar.port, upstream.port, tmp_path) as url:
        assert httpx.get(url, trust_env=False).status_code == 503
    assert upstream.requests == []


def test_where_the_operator_says_so_it_closes_without_a_sidecar(name, upstream, tmp_path):
    with run_closing(name, find_free_port(), upstream.port, tmp_path) as url:
        assert httpx.get(url, trust_env=False).status_code == 503
    assert upstream.requests == []
