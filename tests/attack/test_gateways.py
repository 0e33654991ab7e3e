"""Hostile clients of each shipped gateway: nobody believes what they smuggle or claim."""

from collections import Counter

import pytest

from ratelimit.request.privacy import identifier_of

from ..counts import read_counts
from ..gateways.gateways import GATEWAYS
from ..gateways.recording_server import run_recording_server
from ..gateways.run_envoy_grpc import run_envoy_grpc
from ..rls_client import run_rls_sidecar
from .conftest import ADMIN_LINE, ADMIN_TOKEN, PEPPER
from .smuggling import AMBIGUOUS, PIPELINED, write_message
from .wire import list_statuses, send_alone

POLICY = """
default_plan: free
plans: {free: {limits: {requests: {rate: 1000/day}, tokens: {unit: tokens, rate: 1000000/day}}}}
"""
CLAIMS = {
    "twice": b"X-RateLimit-Key: claimed\r\nX-RateLimit-Key: claimed\r\n",
    "lower case": b"x-ratelimit-key: claimed\r\nx-ratelimit-reservation: claimed\r\n",
    "upper case": b"X-RATELIMIT-KEY: claimed\r\nX-RATELIMIT-OUTCOME: claimed\r\n",
    "underscores": b"X_RateLimit_Key: claimed\r\nX_RateLimit_Outcome: claimed\r\n",
    "lower underscores": b"x_ratelimit_key: claimed\r\nx_ratelimit_reservation: claimed\r\n",
    "first underscore": b"X_RateLimit-Key: claimed\r\nX_RateLimit-Tenant: claimed\r\n",
    "second underscore": b"X-RateLimit_Key: claimed\r\nX-RateLimit_Outcome: claimed\r\n",
    "last underscore": b"X-RateLimit-Request_Id: claimed\r\nX_RateLimit_Gateway-Token: claimed\r\n",
    "space before the colon": b"X-RateLimit-Key : claimed\r\n",
    "tab before the colon": b"X-RateLimit-Key\t: claimed\r\n",
    "folded": b"X-A: b\r\n X-RateLimit-Key: claimed\r\n",
    "a bare line feed": b"X-A: b\nX-RateLimit-Key: claimed\r\n",
    "a bare return": b"X-A: b\rX-RateLimit-Key: claimed\r\n",
    "a zero byte": b"X-RateLimit-Key\x00: claimed\r\n",
    "empty first": b"X-RateLimit-Key:\r\nX-RateLimit-Key: claimed\r\n",
    "in a trailer": b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-RateLimit-Key: claimed\r\n",
    "many": b"X-RateLimit-Key: claimed\r\n" * 60,
}
HOP_BY_HOP = [
    b"X-RateLimit-Key",
    b"X-RateLimit-Outcome",
    b"Authorization",
    b"X-Forwarded-For",
    b"X-RateLimit-Cost",
]
HOP_BY_HOP += [b", ".join(HOP_BY_HOP), b"close, X-RateLimit-Key", b"keep-alive, x-ratelimit-key, upgrade"]
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


class Attacked:
    """A gateway, the API behind it and the sidecar beside it."""

    def __init__(self, name, port, upstream, sidecar):
        self.name, self.port, self.upstream, self.sidecar = name, port, upstream, sidecar
        self._number = 0

    def write(self, end, **more):
        """Return a message to the gateway with a secret of its own, and that secret."""
        self._number += 1
        secret = f"{self.name}-{self._number}"
        line = f"Authorization: Bearer {secret}\r\n".encode()
        more["headers"] = line + more.get("headers", b"")
        host = b"127.0.0.1:%d" % self.port
        return write_message(end, path=b"/hello/%d" % self._number, host=host, **more), secret

    def count_checks(self):
        return read_counts(self.sidecar.client.get("/metrics").text, "ratelimit_checks_total")


@pytest.fixture(scope="module")
def running(store, attacked_url):
    """A sidecar and an API, for all gateways."""
    flags = ["--redis", attacked_url, "--key-pepper", PEPPER, "--admin-token", ADMIN_TOKEN]
    with run_rls_sidecar(*flags, policy=POLICY) as (sidecar, _, _), run_recording_server() as upstream:
        yield sidecar, upstream


@pytest.fixture(scope="module", params=[*GATEWAYS, "envoy-grpc"])
def gateway(request, running, tmp_path_factory):
    sidecar, upstream = running
    run = GATEWAYS.get(request.param, run_envoy_grpc)
    port = sidecar.grpc_port if run is run_envoy_grpc else sidecar.port
    with run(port, upstream.port, tmp_path_factory.mktemp("gateway")) as url:
        upstream.set_answer(200)
        yield Attacked(request.param, int(url.rpartition(":")[2]), upstream, sidecar)


@pytest.fixture(autouse=True)
def sidecar_saw_only_what_the_gateway_meant(gateway, store):
    gateway.upstream.requests.clear()
    yield
    assert not [name for name in store.keys("*") if b"smuggled" in name or b"claimed" in name]
    assert b"smuggled" not in str(store.xrange("rl1:usage")).encode()
    assert not store.exists("rl1:keys")
    # The gateway sends well-formed requests, and no bug answers them.
    assert "Invalid HTTP request" not in gateway.sidecar.output
    assert "Traceback" not in gateway.sidecar.output


def list_checked(gateway):
    """Return the requests that reached the API after a check.

    On a busy machine a check may be late. Then the gateway says that it let the request pass; of Envoy's
    rate-limit service it cannot say so.
    """
    unchecked = [request for request in gateway.upstream.requests if "X-RateLimit-Key" not in request.headers]
    if gateway.name == "envoy-grpc":
        assert len(unchecked) < 3
    else:
        assert {request.headers.get("X-RateLimit-Outcome") for request in unchecked} <= {"failed-open"}
    return [request for request in gateway.upstream.requests if request not in unchecked]


def test_no_request_is_smuggled_past_the_check_or_to_the_sidecar(gateway):
    before = gateway.count_checks()
    messages = [gateway.write(end, hidden_headers=ADMIN_LINE + b"\r\n")[0] for end in AMBIGUOUS.values()]
    for variant, received in zip(AMBIGUOUS, send_alone(gateway.port, *messages), strict=True):
        assert len([status for status in list_statuses(received) if status >= 200]) <= 2, variant
    checked = list_checked(gateway)
    assert gateway.count_checks() - before >= len(checked)
    assert max(Counter(request.path for request in checked if "/hello/" in request.path).values()) == 1
    # What else the API got are requests that the gateway read in full, and had checked for themselves.
    assert {request.path for request in checked if "/hello/" not in request.path} <= {"/v1/settle"}
    print(f"{gateway.name}: {len(messages)} messages, {len(checked)} requests, all checked")  # noqa: T201


def test_two_requests_in_one_packet_are_checked_both(gateway):
    hidden = b"Authorization: Bearer second-%d\r\n" % gateway.port
    message, _ = gateway.write(PIPELINED, hidden_headers=hidden)
    before = gateway.count_checks()
    [received] = send_alone(gateway.port, message)
    assert list_statuses(received) == [200, 200]
    assert gateway.count_checks() - before >= 2
    assert [request.path for request in gateway.upstream.requests][1:] == ["/v1/settle"]


def test_no_spelling_of_a_header_of_the_limiter_is_believed_or_passed_on(gateway):
    written = [gateway.write(b"\r\n", headers=claim) for claim in CLAIMS.values()]
    written = [(message.partition(b"POST /v1/settle")[0], secret) for message, secret in written]
    send_alone(gateway.port, *(message for message, _ in written))
    keys = {f"Bearer {secret}": identifier_of(secret, PEPPER) for _, secret in written}
    assert list_checked(gateway)
    for request in list_checked(gateway):
        # As an API sees them that reads headers like CGI does: `-` and `_` are the same.
        seen = {name.upper().replace("-", "_"): value for name, value in request.headers.multi_items()}
        assert not [
            name for name, value in seen.items() if name.startswith("X_RATELIMIT") and "claimed" in value
        ]
        assert request.headers["X-RateLimit-Key"] == keys.get(request.headers["Authorization"], "folded")


def test_a_client_cannot_have_headers_removed_on_the_way(gateway):
    """`Connection` names headers that end at the next hop: not those that the gateway itself sets."""
    written = [gateway.write(b"\r\n", headers=b"Connection: " + names + b"\r\n") for names in HOP_BY_HOP]
    send_alone(gateway.port, *(message.partition(b"POST /v1/settle")[0] for message, _ in written))
    keys = {f"Bearer {secret}": identifier_of(secret, PEPPER) for _, secret in written}
    assert gateway.upstream.requests
    for request in list_checked(gateway):
        # Without the secret, the request is that of the client's address: for the sidecar and for the API.
        key = keys.get(request.headers.get("Authorization"))
        assert request.headers["X-RateLimit-Key"] == key or key is None
    for request in gateway.upstream.requests:
        assert request.headers.get("X-RateLimit-Outcome") != "allowed" or "X-RateLimit-Key" in request.headers


@pytest.mark.parametrize(
    "connection", [b"", b"Connection: Content-Length\r\n", b"Connection: Transfer-Encoding\r\n"]
)
def test_a_body_whose_length_is_not_known_has_an_estimate(gateway, connection):
    if gateway.name == "envoy-grpc":
        pytest.skip("it charges the usage that the model reports, and estimates nothing")
    message, secret = gateway.write(CHUNKED, headers=connection)
    assert list_statuses(*send_alone(gateway.port, message))[0] == 200
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    shown = gateway.sidecar.client.get(f"/v1/keys/{identifier_of(secret, PEPPER)}", headers=headers).json()
    [tokens] = [limit for limit in shown["limits"] if limit["name"] == "tokens"]
    assert 1_000_000 - tokens["remaining"] in range(990, 1_001)
