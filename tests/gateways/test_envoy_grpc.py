"""Envoy's rate-limit filter with the sidecar as its service: tokens are charged when a response ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from itertools import count

import httpx
import pytest

from ratelimit.request.privacy import identifier_of

from ..processes import find_free_port, wait_until
from ..rls_client import RateLimitClient, run_rls_sidecar
from .recording_server import run_recording_server
from .run_envoy_grpc import CONFIG, build_envoy_command, find_envoy, run_envoy_grpc
from .shipped import EXAMPLES, accepts_connections, replace_addresses
from .test_readmes import run_commands, run_script

PEPPER, TOKENS = "pepper-for-tests", 1000
SECRETS = [f"secret-{number}" for number in range(40)]
KNOWN = "\n".join(f"  {identifier_of(secret, PEPPER)}: {{plan: free}}" for secret in SECRETS)
POLICY = f"""
default_plan: free
unknown_keys: anonymous
models: {{big: [opus]}}
plans:
  anonymous: {{limits: {{requests: {{rate: 3/day}}}}}}
  free:
    limits:
      requests: {{rate: {{big: 1/day, other: 5/day}}, per: [key, model]}}
      tokens: {{unit: tokens, rate: {TOKENS}/day}}
keys:
{KNOWN}
"""
_secrets = iter(SECRETS)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A sidecar, an API and Envoy between them, for all tests of this module."""
    flags = ("--redis", "embedded://", "--key-pepper", PEPPER, "--admin-token", "admin")
    with (
        run_rls_sidecar(*flags, policy=POLICY) as (sidecar, _, port),
        run_recording_server() as upstream,
        run_envoy_grpc(port, upstream.port, tmp_path_factory.mktemp("envoy")) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
    ):
        yield sidecar, upstream, client


@pytest.fixture
def upstream(running):
    running[1].requests.clear()
    running[1].set_answer(200)
    return running[1]


@pytest.fixture
def secret():
    """A secret on the plan `free` that no other test uses."""
    return next(_secrets)


@pytest.fixture
def get(running, secret):
    """Send a GET with the secret, once more while Envoy gave up waiting for the sidecar."""

    def send(path="/", **headers):
        for _ in range(50):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = running[2].get(path, headers={"Authorization": f"Bearer {secret}"} | names)
            if answer.status_code != 200 or "RateLimit" in answer.headers:
                return answer
        pytest.fail("Envoy let 50 requests pass without a check")

    return send


@pytest.fixture
def read_tokens(running, secret):
    """Return how many tokens are left, by the operators' endpoint."""

    def read():
        key = identifier_of(secret, PEPPER)
        headers = {"Authorization": "Bearer admin"}
        limits = running[0].client.get(f"/v1/keys/{key}", headers=headers).json()["limits"]
        [tokens] = [limit for limit in limits if limit["name"] == "tokens"]
        return tokens["remaining"]

    return read


def test_envoy_accepts_the_shipped_file_unchanged():
    command = build_envoy_command(CONFIG, "--mode", "validate")
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_an_allowed_request_passes_and_its_answer_shows_the_limits(upstream, get, secret):
    upstream.set_answer(200, body=b"from the API")
    answer = get("/hello?name=world")
    assert (answer.status_code, answer.text) == (200, "from the API")
    assert '"requests";r=4' in answer.headers["RateLimit"]
    assert '"tokens";q=1000' in answer.headers["RateLimit-Policy"]
    assert "Retry-After" not in answer.headers
    [request] = upstream.requests
    assert request.path == "/hello?name=world"
    assert request.headers["X-RateLimit-Key"] == identifier_of(secret, PEPPER)


def test_a_denied_request_gets_429_with_the_problem_and_the_api_does_not_hear_of_it(upstream, get):
    assert [get().status_code for _ in range(5)] == [200] * 5
    upstream.requests.clear()
    denied = get()
    assert denied.status_code == 429
    assert int(denied.headers["Retry-After"]) >= 1
    assert '"requests";r=0' in denied.headers["RateLimit"]
    assert denied.headers["Content-Type"] == "application/problem+json"
    assert denied.json()["violated-policies"] == ["requests"]
    assert upstream.requests == []


def test_the_model_in_the_path_chooses_the_limit(get):
    assert [get("/models/opus/chat").status_code for _ in range(2)] == [200, 429]
    assert get("/models/other-one/chat").status_code == 200


def test_p7_the_tokens_of_a_json_answer_are_charged_when_it_ends(upstream, get, read_tokens):
    usage = {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400}
    text = 'a prompt may say "total_tokens": 999999, too'
    upstream.set_answer(200, body=json.dumps({"choices": [{"text": text}], "usage": usage}).encode())
    assert get().status_code == 200
    wait_until(lambda: read_tokens() == TOKENS - 400)


def test_p7_the_tokens_of_a_stream_are_charged_when_it_ends_and_may_become_a_debt(upstream, get, read_tokens):
    chunks = [b'data: {"choices": [{"delta": {"content": "x"}}], "usage": null}\n\n'] * 20
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "total_tokens": 5000}}\n\n'
    upstream.set_answer(
        200, {"Content-Type": "text/event-stream"}, [*chunks, usage[:50], usage[50:], b"data: [DONE]\n\n"]
    )
    answer = get()
    assert answer.status_code == 200
    assert answer.content.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: read_tokens() == 0)
    denied = get()
    assert denied.status_code == 429
    assert denied.json()["violated-policies"] == ["tokens"]
    assert int(denied.headers["Retry-After"]) > 3 * 86_400


def test_an_answer_without_usage_and_a_denied_request_charge_no_tokens(upstream, get, read_tokens):
    upstream.set_answer(200, body=b"no usage here")
    assert [get().status_code for _ in range(7)] == [200] * 5 + [429] * 2
    upstream.set_answer(200, body=b'{"usage": {"total_tokens": 7}}')
    assert get("/models/opus/x").status_code == 200  # its charge comes after those of the requests before
    wait_until(lambda: read_tokens() <= TOKENS - 7)
    assert read_tokens() == TOKENS - 7


def test_what_the_client_says_about_itself_means_nothing(upstream, get, secret):
    numbers = count()

    def claim():
        number = next(numbers)
        return get(
            X_RateLimit_Key=f"vk_{number}",
            X_RateLimit_Plan="pro",
            X_RateLimit_Address=f"192.0.2.{number}",
            X_RateLimit_Model="opus",
            X_Request_Id="the-same-every-time",
            X_Forwarded_For=f"192.0.2.{number}",
        ).status_code

    assert [claim() for _ in range(8)].count(200) == 5
    for request in upstream.requests:
        assert request.headers["X-RateLimit-Key"] == identifier_of(secret, PEPPER)
        assert request.headers["X-RateLimit-Address"] == "127.0.0.1"
        assert "X-RateLimit-Plan" not in request.headers
        assert "X-RateLimit-Model" not in request.headers


def test_made_up_secrets_share_the_limit_of_their_address(running, upstream):
    client = running[2]
    answers = [client.get("/", headers={"Authorization": f"Bearer made-up-{n}"}) for n in range(20)]
    codes = [
        answer.status_code for answer in answers if answer.status_code == 429 or "RateLimit" in answer.headers
    ]
    assert codes.count(200) == 3
    assert client.get("/").status_code == 429


def test_a_header_that_is_not_text_does_not_pass(running, upstream):
    """With an error of gRPC, Envoy would let it pass."""
    answer = running[2].get("/", headers=[(b"Authorization", b"Bearer \xff\xfe")])
    assert answer.status_code == 429
    assert answer.json()["status"] == 400
    assert upstream.requests == []


def test_a_large_body_passes_and_an_upgrade_is_counted(running, upstream, secret):
    client, headers = running[2], {"Authorization": f"Bearer {secret}"}
    assert client.post("/", content=b"x" * 1_000_000, headers=headers).status_code == 200
    assert len(upstream.requests[0].body) == 1_000_000
    assert client.head("/", headers=headers).status_code == 200
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    left = client.get("/", headers=headers | upgrade).headers["RateLimit"]
    assert '"requests";r=2' in left


def test_a_header_of_the_response_can_be_the_addend_as_the_readme_says(
    running, tmp_path, secret, read_tokens
):
    shipped = "%DYNAMIC_METADATA(ratelimit:tokens)%"
    assert CONFIG.read_text().count(shipped) == 1
    config = CONFIG.read_text().replace(shipped, "%RESP(x-total-tokens)%")
    assert "%RESP(x-total-tokens)%" in CONFIG.with_name("README.md").read_text()
    with (
        run_recording_server() as upstream,
        run_envoy_grpc(running[0].grpc_port, upstream.port, tmp_path, config) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
    ):
        upstream.set_answer(200, {"X-Total-Tokens": "123"})
        assert client.get("/", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
        wait_until(lambda: read_tokens() == TOKENS - 123)


def test_a_client_that_disconnects_early_is_charged_no_tokens(running, upstream, secret, read_tokens, get):
    started, go_on = threading.Event(), threading.Event()

    def stream():
        yield b"data: x\n\n"
        started.set()
        go_on.wait(20)
        yield b'data: {"usage": {"total_tokens": 300}}\n\n'

    upstream.set_answer(200, body=stream())
    with running[2].stream("GET", "/", headers={"Authorization": f"Bearer {secret}"}) as answer:
        assert next(answer.iter_bytes()) == b"data: x\n\n"
        started.wait(20)
    go_on.set()
    upstream.set_answer(200, body=b'{"usage": {"total_tokens": 7}}')
    assert get().status_code == 200
    wait_until(lambda: read_tokens() < TOKENS)
    assert read_tokens() == TOKENS - 7


def test_without_the_sidecar_requests_pass(tmp_path):
    with (
        run_rls_sidecar("--redis", "memory://", policy=POLICY) as (sidecar, _, port),
        run_recording_server() as upstream,
        run_envoy_grpc(port, upstream.port, tmp_path) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
    ):
        wait_until(lambda: "RateLimit" in client.get("/").headers)
        os.kill(sidecar.pid, signal.SIGSTOP)
        try:
            frozen = [client.get("/") for _ in range(5)]
        finally:
            os.kill(sidecar.pid, signal.SIGCONT)
        sidecar.stop()
        stopped = [client.get("/") for _ in range(5)]
    for answer in frozen + stopped:
        assert (answer.status_code, "RateLimit" in answer.headers) == (200, False)


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("openssl"), reason="needs curl and openssl")
def test_the_commands_of_the_readme_protect_an_api(tmp_path):
    for name in ("envoy", "policies"):
        shutil.copytree(EXAMPLES / name, tmp_path / name)
    folder, ports = tmp_path / "envoy", {shipped: find_free_port() for shipped in (8000, 8080, 8081, 9000)}
    _, section = (folder / "README.md").read_text().split("## Rate-limit service over gRPC\n")
    start, send = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[:2]
    serve = f"serve --port {ports[8080]} --grpc-port {ports[8081]} --policy"
    start = replace_addresses(start, {"serve --policy": serve, "127.0.0.1 9000": f"127.0.0.1 {ports[9000]}"})
    start = replace_addresses(start, {"envoy -c": f"{find_envoy()} --disable-hot-restart -c"})
    send = send.replace("localhost:8000", f"127.0.0.1:{ports[8000]}")
    config = folder / "envoy-grpc.yaml"
    values = {f"port_value: {shipped}}}": f"port_value: {ports[shipped]}}}" for shipped in (8000, 8081, 9000)}
    config.write_text(replace_addresses(config.read_text(), values))
    ratelimit = f'ratelimit() {{ {sys.executable} -m service "$@"; }}\n'
    with run_script(ratelimit + start, folder, os.environ["PATH"]) as (process, output):
        wait_until(
            lambda: process.poll() is not None or all(map(accepts_connections, ports.values())),
            describe=lambda: f"servers on {ports}:\n{output.read_text()}",
        )
        RateLimitClient(ports[8081]).ask({"key": "vk_warm_up"})
        sent = ""
        while "\n429\n" not in sent and sent.count("\n") < 1_000:
            # Again only where a machine that stalls made Envoy give up waiting for a check.
            sent += run_commands(send, os.environ["PATH"])
    assert re.findall(r"^\d{3}$", sent, re.MULTILINE)[:5] == ["200"] * 5, sent
    assert "HTTP/1.1 429 Too Many Requests\n" in sent
