"""What holds for a gateway in front of a sidecar, whichever gateway it is."""

import math
import time
from contextlib import contextmanager

import httpx
import pytest

from ..processes import wait_until

# The plan `free` of the starter policy. The plan `anonymous` has the same burst and refills more slowly.
BURST = 5
FREE_RATE = 20 / 60

PROBLEM = {"Content-Type": "application/problem+json"}
HEADERS_FOR_THE_SIDECAR = ["Key", "Plan", "Model", "Tenant", "Cost", "Timestamp", "Reserve", "Request-Id"]
HEADERS_FOR_THE_SIDECAR += ["Gateway-Token"]


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def read_checks(scripted_sidecar):
    """Return the checks that a gateway has sent; it may have settled, too."""
    return [request for request in scripted_sidecar.requests if request.path == "/v1/authorize"]


def count_outcomes(upstream):
    """Return how many requests reached the API checked, and how many unchecked."""
    outcomes = [request.headers["X-RateLimit-Outcome"] for request in upstream.requests]
    return outcomes.count("allowed"), outcomes.count("failed-open")


def assert_burst_passes(send_request, upstream, requests=50):
    """Send requests, of which the burst and no more must pass, and return the answers.

    On a machine that stalls, a gateway gives up waiting for a check that was charged or was not, and the
    bucket refills in the meantime.
    """
    upstream.requests.clear()
    started = time.monotonic()
    answers = [send_request() for _ in range(requests)]
    refilled = math.floor(FREE_RATE * (time.monotonic() - started) + 1e-3)
    allowed, unchecked = count_outcomes(upstream)
    assert {answer.status_code for answer in answers} == {200, 429}
    assert BURST - unchecked <= allowed <= BURST + refilled
    return answers


class GatewayTests:
    """Tests that a subclass runs with its own `run_gateway(sidecar_port, upstream_port, folder)`."""

    run_gateway = None
    authorize_headers = frozenset()
    """What the gateway sends to the sidecar beside what each gateway sends."""
    api_settles = True
    """Whether the API gets the reservation, to settle it."""

    @contextmanager
    def run(self, sidecar, upstream, folder):
        """Run the gateway until the end of the block, which gets a client of it."""
        with (
            type(self).run_gateway(sidecar.port, upstream.port, folder) as url,
            httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
        ):
            yield client

    @pytest.fixture
    def client(self, sidecar, upstream, tmp_path):
        """A client of the gateway in front of a real sidecar."""
        with self.run(sidecar, upstream, tmp_path) as client:
            yield client

    @pytest.fixture
    def scripted(self, scripted_sidecar, upstream, tmp_path):
        """A client of the gateway in front of a server with set answers."""
        with self.run(scripted_sidecar, upstream, tmp_path) as client:
            yield client

    def test_after_the_burst_the_client_gets_a_true_429(self, client, upstream, api_key):
        answers = assert_burst_passes(lambda: client.get("/", headers=bearer(api_key)), upstream, 10)
        allowed, denied = answers[0], answers[-1]
        assert (allowed.status_code, denied.status_code) == (200, 429)
        for answer in allowed, denied:
            assert '"requests"' in answer.headers["RateLimit"]
            assert '"requests"' in answer.headers["RateLimit-Policy"]
        assert "Retry-After" not in allowed.headers
        assert int(denied.headers["Retry-After"]) >= 1
        assert denied.headers["Content-Type"] == "application/problem+json"
        problem = denied.json()
        assert problem["status"] == 429
        assert problem["type"].endswith("#quota-exceeded")

    def test_a_client_cannot_choose_its_key_or_plan_or_time(self, client, upstream, api_key):
        claims = iter(range(100))

        def send_request():
            claim = next(claims)
            chosen = {
                "X-RateLimit-Key": f"vk_claimed_{claim}",
                "X-RateLimit-Plan": "pro",
                "X-RateLimit-Tenant": f"tenant-{claim}",
                "X-RateLimit-Cost": "requests=0",
                "X-RateLimit-Timestamp": str(claim),
            }
            return client.get("/?deny_status=401", headers=bearer(api_key) | chosen)

        assert_burst_passes(send_request, upstream)
        assert {key.split("_")[0] for key in (r.headers["X-RateLimit-Key"] for r in upstream.requests)} == {
            "vk"
        }
        assert "claimed" not in str([request.headers.raw for request in upstream.requests])

    @pytest.mark.parametrize("name", ["X-Request-Id", "X-RateLimit-Request-Id"])
    def test_p6_of_50_requests_with_one_id_of_the_client_5_pass(self, client, upstream, api_key, name):
        headers = bearer(api_key) | {name: "the-same-every-time"}
        assert_burst_passes(lambda: client.get("/", headers=headers), upstream)

    def test_of_50_made_up_secrets_from_one_address_5_pass(self, client, upstream, address):
        made_up = ({"X-Forwarded-For": f"192.0.2.{n}"} | bearer(f"made-up-{n}") for n in range(50))
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=client.base_url, transport=transport, trust_env=False) as stranger:
            assert_burst_passes(lambda: stranger.get("/", headers=next(made_up)), upstream)

    def test_without_a_sidecar_requests_pass_marked(self, own_sidecar, upstream, tmp_path, api_key):
        claiming = bearer(api_key) | {"X-RateLimit-Key": "vk_claimed", "X-RateLimit-Outcome": "allowed"}
        with self.run(own_sidecar, upstream, tmp_path) as client:
            own_sidecar.stop()
            answer = client.get("/", headers=claiming | {"X-Envoy-Auth-Failure-Mode-Allowed": "false"})
        assert answer.status_code == 200
        assert not {"RateLimit", "RateLimit-Policy", "Retry-After"} & set(answer.headers)
        (passed,) = upstream.requests
        assert passed.headers["X-RateLimit-Outcome"] == "failed-open"
        assert "X-RateLimit-Key" not in passed.headers
        assert api_key not in "".join(log.read_text() for log in tmp_path.glob("*.log"))

    def test_while_the_sidecar_is_frozen_requests_pass_marked_and_are_limited_afterwards(
        self, own_sidecar, upstream, tmp_path, api_key
    ):
        with self.run(own_sidecar, upstream, tmp_path) as client:
            with own_sidecar.frozen():
                assert client.get("/", headers=bearer(api_key)).status_code == 200
            assert count_outcomes(upstream) == (0, 1)
            wait_until(lambda: client.get("/", headers=bearer(api_key)).status_code == 429)

    @pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 413, 422, 429, 431])
    def test_no_answer_that_a_client_can_cause_lets_the_request_pass(
        self, scripted, scripted_sidecar, upstream, status
    ):
        scripted_sidecar.set_answer(status, PROBLEM)
        assert scripted.post("/", content=b"x" * 100_000).status_code in {status, 400, 500}
        assert upstream.requests == []

    def test_a_body_of_1_mb_reaches_the_api_and_not_the_sidecar(self, scripted, scripted_sidecar, upstream):
        body = b"x" * 1_000_000
        claiming_nothing = {"X-RateLimit-Cost": "tokens=0"}
        assert (
            scripted.post("/models/qwen3-4b/chat", content=body, headers=claiming_nothing).status_code == 200
        )
        (checked,), (passed,) = read_checks(scripted_sidecar), upstream.requests
        assert (passed.method, passed.body) == ("POST", body)
        assert checked.body == b""
        assert checked.headers.get("Content-Length", "0") == "0"
        assert checked.headers["X-RateLimit-Cost"] == "tokens=10000"
        assert checked.headers["X-RateLimit-Model"] == "qwen3-4b"

    @pytest.mark.parametrize(
        ("path", "model"),
        [
            ("/models/qwen3-4b/chat", "qwen3-4b"),
            ("/%6dodels/x/..//qwen3-4b/chat?model=other", "qwen3-4b"),
            ("/models/llama%3A8b/chat", "llama:8b"),
            ("/v1/chat", None),
        ],
    )
    def test_the_model_is_read_from_the_path_that_the_api_will_see(
        self, scripted, scripted_sidecar, path, model
    ):
        scripted.get("/", extensions={"target": path.encode()})  # as it is: httpx would resolve `..`
        assert read_checks(scripted_sidecar)[0].headers.get("X-RateLimit-Model") == model

    @pytest.mark.parametrize("status", [200, 429])
    def test_head_requests_are_limited_too(self, scripted, scripted_sidecar, upstream, status):
        scripted_sidecar.set_answer(status, {"RateLimit": '"requests";r=0;t=3'})
        answer = scripted.head("/")
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["RateLimit"] == '"requests";r=0;t=3'
        assert [request.method for request in upstream.requests] == ["HEAD"] * (status == 200)

    def test_the_sidecar_is_told_only_what_the_limits_need(self, scripted, scripted_sidecar):
        claimed = {f"X-RateLimit-{name}": "claimed" for name in HEADERS_FOR_THE_SIDECAR}
        claimed |= {"X-Request-Id": "claimed", "X-Forwarded-For": "192.0.2.1", "Cookie": "claimed"}
        scripted.get("/?deny_status=403", headers=bearer("s") | claimed)
        (checked,) = read_checks(scripted_sidecar)
        common = {"host", "authorization", "x-forwarded-for", "x-ratelimit-request-id"}
        assert set(checked.headers) == common | self.authorize_headers
        assert checked.headers["Authorization"] == "Bearer s"
        assert checked.headers["X-Forwarded-For"] == "127.0.0.1"
        assert "claimed" not in str(checked.headers.raw)

    def test_the_api_gets_no_ratelimit_header_that_the_client_made_up(
        self, scripted, scripted_sidecar, upstream
    ):
        scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real", "X-RateLimit-Reservation": "real"})
        names = [*HEADERS_FOR_THE_SIDECAR, "Reservation", "Outcome"]
        scripted.post("/models/m/", headers={f"X-RateLimit-{name}": "claimed" for name in names})
        (passed,) = upstream.requests
        headers = {name: value for name, value in passed.headers.items() if name.startswith("x-ratelimit-")}
        settling = {"x-ratelimit-reservation": "real"} if self.api_settles else {}
        assert headers == {"x-ratelimit-outcome": "allowed", "x-ratelimit-key": "vk_real"} | settling
