"""One stream of requests through every gateway: the answers side by side, and where one must differ."""

import contextlib

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from .any_gateway import CLAIMS, bearer, find_unchecked
from .gateways import GATEWAYS
from .recording_server import run_recording_server
from .run_envoy_grpc import run_envoy_grpc

LONG_MODEL = "x" * 300  # a model id has 256 characters at most
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def send_stream(client, keys):
    """Send the stream; give the name of each request and its answer."""
    burst, weighted, spoofing, other = (bearer(key) for key in keys)
    for number in range(7):
        yield (
            f"allowed {number + 1}" if number < 5 else f"denied {number - 4}",
            client.get("/", headers=burst),
        )
    yield "weighted", client.post("/models/qwen3-4b/chat", headers=weighted, content=b"x" * 50_000)
    yield "weighted again", client.post("/models/qwen3-4b/chat", headers=weighted, content=b"x" * 50_000)
    for number in range(6):
        yield f"anonymous {number + 1}", client.get("/")
    yield "malformed", client.get(f"/models/{LONG_MODEL}/chat", headers=spoofing)
    yield "spoofed", client.get("/", headers=spoofing | CLAIMS)
    yield "HEAD", client.head("/", headers=other)
    yield "upgrade", client.get("/", headers=other | UPGRADE)
    yield "1 MB body", client.post("/", headers=other, content=b"x" * 1_000_000)


OVER = {"denied 1", "denied 2", "anonymous 6"}
"""The requests that every gateway answers with 429; all others but the malformed one get 200."""

MALFORMED = {
    "nginx": 400,  # nginx writes the problem itself
    "nginx-njs": 400,
    "envoy-http": 422,
    "caddy": 422,
    "haproxy": 422,
    "traefik": 200,  # its routes list the models, so the sidecar gets none
    "envoy-grpc": 429,  # Envoy has one status for all denials
}
"""What each answers to a model id that is too long; the request passes nowhere with that id."""


@contextlib.contextmanager
def run_all(sidecar, upstream, tmp_path):
    """Run every gateway; gives their URLs by name."""
    with contextlib.ExitStack() as stack:

        def run(name, gateway, port):
            (folder := tmp_path / name).mkdir()
            return stack.enter_context(gateway(port, upstream.port, folder))

        urls = {name: run(name, gateway, sidecar.port) for name, gateway in GATEWAYS.items()}
        yield urls | {"envoy-grpc": run("envoy-grpc", run_envoy_grpc, sidecar.grpc_port)}


def collect_answers(url, upstream, address, keys):
    """Send the stream to one gateway; None if it once gave up waiting for the sidecar, on a busy machine."""
    upstream.requests.clear()
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(base_url=url, transport=transport, trust_env=False, timeout=20) as client:
        answers = dict(send_stream(client, keys))
    passed = [answer for answer in answers.values() if answer.status_code == 200]
    if find_unchecked(upstream) or any(answer.status_code >= 500 for answer in answers.values()):
        return None
    assert len(upstream.requests) == len(passed)
    assert len(upstream.requests[-1].body) == 1_000_000
    return {name: answer.status_code for name, answer in answers.items()}


def test_every_gateway_gives_the_same_answers(sidecar, tmp_path, take_address, take_keys):
    table = {}
    with run_recording_server() as upstream, run_all(sidecar, upstream, tmp_path) as urls:
        for name, url in urls.items():
            for _ in range(5):
                if (found := collect_answers(url, upstream, take_address(), take_keys(4))) is not None:
                    break
            else:
                pytest.fail(f"{name} gave up waiting for the sidecar 5 times")
            table[name] = found
    shown = Table("request", *table)
    for request in next(iter(table.values())):
        shown.add_row(request, *(str(answers[request]) for answers in table.values()))
    Console(width=120).print(shown)
    for name, answers in table.items():
        assert answers.pop("malformed") == MALFORMED[name], name
        assert answers == {request: 429 if request in OVER else 200 for request in answers}, name
