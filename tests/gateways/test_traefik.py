"""What is particular to the shipped Traefik configuration."""

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ..processes import find_free_port
from .run_traefik import DYNAMIC, run_traefik


@pytest.fixture
def gateway(scripted_sidecar, upstream, tmp_path):
    """A client of a running Traefik that asks a server with set answers."""
    with (
        run_traefik(scripted_sidecar.port, upstream.port, tmp_path) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        scripted_sidecar.requests.clear()
        yield client


def test_the_api_gets_the_limits_that_traefik_cannot_show_to_the_client(gateway, scripted_sidecar, upstream):
    limits = {"RateLimit": '"requests";r=4;t=3', "RateLimit-Policy": '"requests";q=20;w=60'}
    scripted_sidecar.set_answer(200, limits)
    answer = gateway.get("/", headers={"RateLimit": "claimed"})
    assert {name: upstream.requests[-1].headers[name] for name in limits} == limits
    assert not {"ratelimit", "ratelimit-policy"} & set(answer.headers)


@pytest.mark.parametrize(("status", "client_sees"), [(500, 200), (502, 200), (504, 200), (503, 503)])
def test_a_broken_sidecar_lets_requests_pass_but_not_with_503(
    gateway, scripted_sidecar, upstream, status, client_sees
):
    scripted_sidecar.set_answer(status)
    assert gateway.get("/").status_code == client_sees
    assert len(upstream.requests) == (client_sees == 200)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (b"/%6dodels/x/..//qwen3-4b/chat", "qwen3-4b"),
        (b"/models/qwen3-4b-turbo/chat", None),
        (b"/models/unlisted/chat", None),
    ],
)
def test_the_model_is_one_of_the_list_or_none(gateway, scripted_sidecar, path, model):
    gateway.get(gateway.base_url.copy_with(raw_path=path))
    assert scripted_sidecar.requests[-1].headers.get("X-RateLimit-Model") == model


def test_the_estimate_of_a_body_of_unknown_length(gateway, scripted_sidecar):
    gateway.post("/v1/chat", content=iter([b"x" * 50_000]))
    assert scripted_sidecar.requests[-1].headers["X-RateLimit-Cost"] == "tokens=1000"


def test_the_connections_to_the_sidecar_are_kept(gateway, scripted_sidecar):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: gateway.get("/"), range(200)))
    # ForwardAuth on its own keeps two, and opens one for about every second check.
    assert len({request.client_port for request in scripted_sidecar.requests}) < 50


def test_no_log_holds_the_secret(gateway, scripted_sidecar, tmp_path):
    secret = "secret-for-the-log"
    headers = {"Authorization": f"Bearer {secret}", "X-Api-Key": secret}
    gateway.get("/", headers=headers, params={"key": secret})
    scripted_sidecar.set_answer(429)
    gateway.get("/", headers=headers, params={"key": secret})
    assert secret not in (tmp_path / "output.log").read_text()


def test_where_the_operator_says_so_it_closes_without_a_sidecar(upstream, tmp_path):
    dynamic, changes = re.subn(r"middlewares: \[fail-open\]", "middlewares: []", DYNAMIC.read_text())
    assert changes == 1
    with run_traefik(find_free_port(), upstream.port, tmp_path, dynamic=dynamic) as url:
        assert httpx.get(url, trust_env=False).status_code in {502, 504}
    assert upstream.requests == []
