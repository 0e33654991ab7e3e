"""10,000 bad inputs and more, by every interface: each is refused, and nothing else happens."""

import json
import random
from collections import Counter

import grpc
import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse

from ratelimit import Policy, PolicyError

from ..counts import read_counts
from ..gateways.shipped import EXAMPLES
from ..processes import wait_until
from ..rls_client import METHOD, make_request
from .bad_requests import BadRequests
from .bad_values import BAD_TEXTS
from .conftest import GATEWAY_TOKEN, POLICY
from .wire import send_in_turn

REFUSALS = {400, 401, 404, 405, 413, 422}
HTTP = {
    "check": 2_500,
    "batch": 1_000,
    "settle": 1_500,
    "cancel": 500,
    "authorize": 2_500,
    "token": 500,
    "operator": 500,
    "path": 300,
    "http": 200,
    "size": 40,
}
GRPC, POLICIES = 1_500, 1_000


@pytest.fixture(scope="module")
def counted():
    """How many inputs of each kind were refused; printed at the end."""
    counts = Counter()
    yield counts
    print(f"\nbad inputs refused: {sum(counts.values())}", dict(counts))  # noqa: T201 - the figures of the run


@pytest.fixture(autouse=True)
def nothing_happens(sidecar, read_state):
    """Expect that a test changes nothing in the store, and leaves no trace of a bug in the log."""
    sidecar.check("vk_before")
    before = read_state()
    yield
    assert read_state() == before
    assert "Traceback" not in sidecar.output
    assert "a bug" not in sidecar.output
    assert sidecar.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("kind", HTTP)
def test_p2_a_bad_request_is_refused_and_changes_nothing(sidecar, counted, kind):
    requests = BadRequests(kind)
    messages = [requests.make(kind) for _ in range(HTTP[kind])]
    for message, (status, body) in zip(messages, send_in_turn(sidecar.port, messages), strict=True):
        assert status in REFUSALS, (status, message[:500])
        assert json.loads(body)["status"] == status
        counted[kind] += 1


def _make_bad_descriptor(source):
    bad = source.choice([text for text in BAD_TEXTS if text.strip(" ")])
    field = source.choice(["key", "plan", "model", "tenant", "unit", "settle"])
    entries = {} if field == "key" else {"key": "vk_bad"}
    return {**entries, field: bad}


def _make_bad_message(source):
    good = [{"key": "vk_good"}] * source.randrange(3)
    addend = source.choice([0, 1, 2**32 - 1])
    message = make_request(_make_bad_descriptor(source), *good, hits_addend=addend).SerializeToString()
    too_long = b"\x12" + bytes([source.randrange(200, 256), 255, 7])  # a field that ends behind the message
    return too_long + message if source.random() < 0.3 else message


def test_p2_a_bad_request_of_the_rate_limit_service_is_denied_and_changes_nothing(attacked, counted):
    source = random.Random(1)
    call, metadata = attacked[1].channel.unary_unary(METHOD), [("x-ratelimit-gateway-token", GATEWAY_TOKEN)]
    for _ in range(GRPC // 100):  # a hundred calls at a time
        calls = [call.future(_make_bad_message(source), metadata=metadata, timeout=20) for _ in range(100)]
        for answer in calls:
            response = RateLimitResponse.FromString(answer.result())
            assert response.overall_code == RateLimitResponse.OVER_LIMIT
            assert json.loads(response.raw_body)["status"] in {400, 422}
            counted["grpc"] += 1


def test_the_rate_limit_service_refuses_a_call_without_its_token(attacked, counted):
    for token in ("", "x", GATEWAY_TOKEN[:-1], GATEWAY_TOKEN + "x", "x" * 5_000):
        with pytest.raises(grpc.RpcError) as refused:
            attacked[1].send(make_request({"key": "vk_bad"}), x_ratelimit_gateway_token=token)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        counted["grpc token"] += 1


def _spoil_policy(source, lines):
    """Return a policy with one line that cannot be part of one."""
    line = source.randrange(len(lines))
    indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
    fault = source.choice(
        ["no-such-field: 1", "- a", "]", '"', "{a: ", "&a *a", "!!python/object:os.system x", "\x07"]
    )
    return "\n".join(
        [*lines[:line], indent + fault + source.choice(["", "x", "\u202e", "\x1b[1m"]), *lines[line:]]
    )


def test_p11_a_bad_policy_is_refused_with_a_policy_error(counted):
    source = random.Random(2)
    texts = [POLICY, (EXAMPLES / "policies" / "starter.yaml").read_text()]
    lines = [
        [line for line in text.splitlines() if line and not line.lstrip().startswith("#")] for text in texts
    ]
    for _ in range(POLICIES):
        text = _spoil_policy(source, source.choice(lines))
        with pytest.raises(PolicyError) as refused:
            Policy.from_text(text)
        assert refused.value.faults, text
        counted["policy"] += 1


def test_p11_a_running_sidecar_keeps_its_policy_whatever_the_file_becomes(sidecar, counted):
    version = sidecar.client.get("/readyz").json()["policy"]
    good = sidecar.policy_file.read_bytes()
    bad = [b"\xff\xfe\x00", b"[" * 9_000, good.replace(b"5/day", b"9" * 5_000 + b"/day")]
    try:
        for number, content in enumerate(bad, 1):
            sidecar.policy_file.write_bytes(content)
            wait_until(lambda: _count_refused_policies(sidecar) == number)  # noqa: B023 - called at once
            assert sidecar.client.get("/readyz").json()["policy"] == version
            counted["reload"] += 1
    finally:
        sidecar.policy_file.write_bytes(good)


def _count_refused_policies(sidecar):
    return read_counts(
        sidecar.client.get("/metrics").text, "ratelimit_policy_reloads_total", result="refused"
    )
