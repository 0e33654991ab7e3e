"""What every shipped gateway configuration promises, in front of the real sidecar."""

import signal

import httpx
import pytest

from ratelimit.request.privacy import identifier_of

from .any_gateway import (
    CLAIMS,
    bearer,
    find_unchecked,
    run_gateway,
    send_50_of_which_the_burst_passes,
)
from .conftest import PEPPER
from .gateways import (
    CLOSES_WITHOUT_SIDECAR,
    GATEWAYS,
    NO_LIMITS_ON_200,
    PASSES_TWO_AUTHORIZATIONS,
    SETTLES_ITSELF,
    TAKES_503_FOR_A_FAILURE,
)
from .recording_server import run_recording_server


@pytest.fixture(scope="module", params=GATEWAYS)
def name(request):
    """The name of each gateway in turn."""
    return request.param


@pytest.fixture(scope="module")
def servers():
    """Two recording servers that all tests of a gateway use: an API, and one in place of the sidecar."""
    with run_recording_server() as api, run_recording_server() as sidecar:
        yield api, sidecar


@pytest.fixture
def upstream(servers):
    servers[0].requests.clear()
    servers[0].set_answer(200)
    return servers[0]


@pytest.fixture
def scripted_sidecar(servers):
    servers[1].requests.clear()
    servers[1].set_answer(200)
    return servers[1]


@pytest.fixture(scope="module")
def gateway(name, servers, sidecar, tmp_path_factory):
    with run_gateway(name, sidecar.port, servers[0], tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def scripted_gateway(name, servers, tmp_path_factory):
    """A gateway that asks a server with set answers in place of the sidecar."""
    with run_gateway(name, servers[1].port, servers[0], tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def own_gateway(name, own_sidecar, upstream, tmp_path):
    """A gateway in front of the sidecar that the test may stop."""
    with run_gateway(name, own_sidecar.port, upstream, tmp_path) as gateway:
        yield gateway


def test_an_allowed_request_reaches_the_api_and_its_answer_tells_the_limits(name, gateway, upstream, api_key):
    upstream.set_answer(200, {"Content-Type": "text/plain", "RateLimit": "the API's own"}, b"from the API")
    answer = gateway.get_answer("GET", "/hello?name=world", headers=bearer(api_key))
    assert (answer.status_code, answer.text) == (200, "from the API")
    assert [request.path for request in upstream.requests] == ["/hello?name=world"]
    assert "Retry-After" not in answer.headers
    if name not in NO_LIMITS_ON_200:
        assert '"requests";r=' in answer.headers["RateLimit"]
        assert '"requests";q=20' in answer.headers["RateLimit-Policy"]


def test_a_key_that_spent_its_burst_gets_a_true_429_and_the_api_does_not_hear_of_it(
    gateway, upstream, api_key
):
    denied = send_50_of_which_the_burst_passes(
        lambda: gateway.send_request(headers=bearer(api_key)), upstream
    )
    assert int(denied.headers["Retry-After"]) >= 1
    assert '"requests";r=0' in denied.headers["RateLimit"]
    assert '"requests";q=20' in denied.headers["RateLimit-Policy"]
    assert denied.headers["Content-Type"] == "application/problem+json"
    assert denied.json()["status"] == 429
    assert denied.json()["type"].endswith("#quota-exceeded")


def test_what_a_client_claims_is_neither_believed_nor_passed_on(gateway, upstream, api_key):
    send_50_of_which_the_burst_passes(
        lambda: gateway.send_request(headers=bearer(api_key) | CLAIMS), upstream
    )
    for request in upstream.requests:
        passed_on = set(request.headers.items()) & {(key.lower(), value) for key, value in CLAIMS.items()}
        assert not passed_on


@pytest.mark.parametrize("header", ["X-Request-Id", "X-RateLimit-Request-Id"])
def test_of_50_requests_with_one_id_of_the_client_5_pass(gateway, upstream, api_key, header):
    headers = bearer(api_key) | {header: "the-same-every-time"}
    send_50_of_which_the_burst_passes(lambda: gateway.send_request(headers=headers), upstream)


def test_of_50_made_up_secrets_and_addresses_from_one_address_5_pass(
    gateway, upstream, address, connect_from, api_key
):
    client = connect_from(gateway, address)
    made_up = (
        bearer(f"made-up-{number}") | {"X-Forwarded-For": f"192.0.2.{number}", "X-Real-Ip": f"::{number}"}
        for number in range(50)
    )
    send_50_of_which_the_burst_passes(lambda: client.get("/", headers=next(made_up)), upstream)
    assert gateway.get_answer(headers=bearer(api_key)).status_code == 200


def test_the_api_learns_the_identifier_that_stands_for_the_secret(gateway, upstream, api_key):
    gateway.get_answer(headers=bearer(api_key) | CLAIMS)
    assert upstream.requests[-1].headers["X-RateLimit-Key"] == identifier_of(api_key, PEPPER)


def test_no_length_of_a_key_is_a_way_around_the_limits(gateway, upstream, address, connect_from):
    """Buffers have limits: a key just below one reaches the API, and must have been checked."""
    client = connect_from(gateway, address)
    for length in [*range(500, 25_000, 150), 60_000, 70_000, 300_000, 2_000_000]:
        try:
            client.get("/", headers=bearer("x" * length))
        except httpx.TransportError:
            continue  # the gateway closed the connection while the client was still sending
    # On a machine that stalls, single checks may end in a timeout.
    assert len(find_unchecked(upstream)) < 5


def test_the_api_and_the_sidecar_do_not_read_different_keys(
    name, scripted_gateway, scripted_sidecar, upstream
):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    two = [("Authorization", "Bearer one"), ("Authorization", "Bearer two")]
    if scripted_gateway.get_answer(headers=two).status_code == 200:
        checked = scripted_sidecar.requests[-1].headers.get_list("Authorization")
        assert checked == upstream.requests[-1].headers.get_list("Authorization")
        assert len(checked) == 1 or name in PASSES_TWO_AUTHORIZATIONS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 431])
def test_an_answer_that_a_client_can_cause_does_not_let_the_request_pass(
    scripted_gateway, scripted_sidecar, upstream, status
):
    scripted_sidecar.set_answer(status, {"Content-Type": "application/problem+json"}, b"{}")
    assert 400 <= scripted_gateway.get_refusal().status_code <= 500


def test_a_503_problem_of_the_sidecar_is_a_denial(name, scripted_gateway, scripted_sidecar, upstream):
    if name in TAKES_503_FOR_A_FAILURE:
        pytest.skip(TAKES_503_FOR_A_FAILURE[name])
    problem = {"Content-Type": "application/problem+json", "Retry-After": "1"}
    scripted_sidecar.set_answer(503, problem, b"{}")
    answer = scripted_gateway.get_refusal()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_the_sidecar_is_told_who_asks_and_never_what(name, scripted_gateway, scripted_sidecar, upstream):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    headers = bearer("s") | CLAIMS | {"Cookie": "session", "X-Forwarded-For": "192.0.2.1"}
    body = b"x" * 100_000
    assert scripted_gateway.get_answer("POST", "/v1/chat", content=body, headers=headers).status_code == 200
    checked, (passed,) = scripted_sidecar.requests[-1], upstream.requests
    assert (passed.method, passed.path, passed.body) == ("POST", "/v1/chat", body)
    assert checked.path.startswith("/v1/authorize")
    assert checked.body == b""
    assert checked.headers["Authorization"] == "Bearer s"
    # The sidecar reads it from the right, past the proxies that it trusts.
    assert "192.0.2.1" not in checked.headers["X-Forwarded-For"]
    assert "cookie" not in checked.headers
    claims = {key: value for key, value in CLAIMS.items() if name not in SETTLES_ITSELF or value != "?1"}
    assert not set(checked.headers.items()) & {(key.lower(), value) for key, value in claims.items()}


@pytest.mark.parametrize(
    ("size", "estimate"),
    [(400, "tokens=250"), (3_000, "tokens=1000"), (9_000, "tokens=2500"), (300_000, "tokens=10000")],
)
def test_the_model_comes_from_the_path_and_the_estimate_from_the_length(
    scripted_gateway, scripted_sidecar, upstream, size, estimate
):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    scripted_gateway.get_answer("POST", "/models/qwen3-4b/chat?model=other", content=b"x" * size)
    checked = scripted_sidecar.requests[-1].headers
    assert (checked["X-RateLimit-Model"], checked["X-RateLimit-Cost"]) == ("qwen3-4b", estimate)

    scripted_gateway.get_answer("GET", "/v1/models")
    checked = scripted_sidecar.requests[-1].headers
    assert not {checked.get("X-RateLimit-Model"), checked.get("X-RateLimit-Cost")} - {None, ""}


def test_what_the_sidecar_leaves_out_is_absent_and_not_empty(scripted_gateway, scripted_sidecar, upstream):
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real"})
    answer = scripted_gateway.get_answer()
    assert not {"ratelimit", "ratelimit-policy", "retry-after"} & set(answer.headers)
    passed = {name: value for name, value in upstream.requests[-1].headers.items() if "ratelimit" in name}
    assert passed.pop("x-ratelimit-outcome", "allowed") == "allowed"
    assert passed == {"x-ratelimit-key": "vk_real"}


def test_the_api_gets_the_reservation_to_settle(name, scripted_gateway, scripted_sidecar, upstream):
    if name in SETTLES_ITSELF:
        pytest.skip(SETTLES_ITSELF[name])
    scripted_sidecar.set_answer(200, {"X-RateLimit-Key": "vk_real", "X-RateLimit-Reservation": "r1"})
    scripted_gateway.get_answer(headers=CLAIMS)
    assert upstream.requests[-1].headers["X-RateLimit-Reservation"] == "r1"


@pytest.mark.parametrize("status", [400, 403, 429])
def test_an_error_of_the_api_itself_is_passed_on_as_it_is(gateway, upstream, api_key, status):
    upstream.set_answer(status, {"Retry-After": "7"}, b"the API's own words")
    answer = gateway.get_answer(headers=bearer(api_key))
    assert (answer.status_code, answer.text) == (status, "the API's own words")
    assert answer.headers.get_list("Retry-After") == ["7"]


def expect_the_outcome_without_a_sidecar(name, answer, upstream):
    if name in CLOSES_WITHOUT_SIDECAR:
        assert answer.status_code >= 500
        assert not upstream.requests
    else:
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers
        (passed,) = upstream.requests
        assert "X-RateLimit-Key" not in passed.headers
        assert "claimed" not in passed.headers.values()


def test_without_a_sidecar_the_outcome_is_the_one_that_the_readme_states(
    name, own_gateway, own_sidecar, upstream, api_key
):
    own_gateway.get_answer(headers=bearer(api_key))
    own_sidecar.stop()
    upstream.requests.clear()
    answer = own_gateway.send_request(headers=bearer(api_key) | CLAIMS)
    expect_the_outcome_without_a_sidecar(name, answer, upstream)


def test_with_a_frozen_sidecar_the_outcome_is_the_same_and_after_it_checks_are_made_again(
    name, own_gateway, own_sidecar, upstream, api_key
):
    own_gateway.get_answer(headers=bearer(api_key))
    own_sidecar.process.send_signal(signal.SIGSTOP)
    try:
        upstream.requests.clear()
        answer = own_gateway.send_request(headers=bearer(api_key) | CLAIMS)
        expect_the_outcome_without_a_sidecar(name, answer, upstream)
    finally:
        own_sidecar.process.send_signal(signal.SIGCONT)
    send_50_of_which_the_burst_passes(own_gateway.send_request, upstream)


def test_a_body_survives_a_check_that_nobody_answers(name, own_gateway, own_sidecar, upstream):
    own_sidecar.stop()
    own_gateway.send_request("POST", content=b"x" * 100_000)
    assert [request.body for request in upstream.requests] == (
        [] if name in CLOSES_WITHOUT_SIDECAR else [b"x" * 100_000]
    )
