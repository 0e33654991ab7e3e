"""The shipped Envoy configuration in front of a sidecar."""

import subprocess

import httpx
import pytest

from .common import PROBLEM, GatewayTests
from .run_envoy import CONFIG, ENVOY, run_envoy


class TestEnvoy(GatewayTests):
    run_gateway = run_envoy
    authorize_headers = frozenset({"content-length", "x-envoy-internal", "x-envoy-expected-rq-timeout-ms"})

    def test_the_client_gets_a_denial_of_the_sidecar_as_it_is(self, scripted, scripted_sidecar):
        headers = {"Retry-After": "3", "RateLimit": '"requests";r=0;t=3', "WWW-Authenticate": "Bearer"}
        scripted_sidecar.set_answer(
            401, PROBLEM | headers | {"X-RateLimit-Key": "vk_real"}, b'{"status":401}'
        )
        answer = scripted.get("/page.html")
        assert (answer.status_code, answer.text) == (401, '{"status":401}')
        assert {name: answer.headers[name] for name in headers} == headers
        assert answer.headers["Content-Type"] == PROBLEM["Content-Type"]
        assert "X-RateLimit-Key" not in answer.headers

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_envoy_takes_every_5xx_for_a_failure(self, scripted, scripted_sidecar, upstream, status):
        scripted_sidecar.set_answer(status, PROBLEM)
        assert scripted.post("/", content=b"x" * 100_000).status_code == 200
        (passed,) = upstream.requests
        assert passed.headers["X-RateLimit-Outcome"] == "failed-open"
        assert passed.body == b"x" * 100_000


def test_envoy_accepts_the_shipped_file_unchanged():
    checked = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", CONFIG, "--log-level", "warning"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warning]" not in checked.stderr


def test_with_failure_mode_allow_false_requests_are_denied_when_the_sidecar_fails(
    scripted_sidecar, upstream, tmp_path
):
    scripted_sidecar.set_answer(503, PROBLEM)
    changes = {"failure_mode_allow: true": "failure_mode_allow: false"}
    with run_envoy(scripted_sidecar.port, upstream.port, tmp_path, changes) as url:
        assert httpx.get(url, trust_env=False).status_code == 503
    assert upstream.requests == []


def test_envoy_makes_the_request_id_for_internal_clients_too(scripted_sidecar, upstream, tmp_path):
    private = "internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}"
    changes = {"use_remote_address: true": f"use_remote_address: true\n{' ' * 16}{private}"}
    with run_envoy(scripted_sidecar.port, upstream.port, tmp_path, changes) as url:
        httpx.get(url, headers={"X-Request-Id": "claimed"}, trust_env=False)
    (checked,), (passed,) = scripted_sidecar.requests, upstream.requests
    assert checked.headers["X-RateLimit-Request-Id"] == passed.headers["X-Request-Id"] != "claimed"
