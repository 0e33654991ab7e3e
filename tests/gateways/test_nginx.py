"""The shipped nginx configuration in front of the real sidecar: which requests pass, and their headers."""

import math
import subprocess
import time

import pytest

from .conftest import build_nginx_command, read_starter_policy, run_gateway_sidecar

# The plan `free` of the starter policy. The plan `anonymous` has the same burst and refills more slowly.
BURST = 5
FREE_RATE = 20 / 60


@pytest.fixture
def gateway(start_nginx, sidecar):
    return start_nginx(sidecar.port)


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def spend_burst(send_request, upstream):
    """Send requests until one is denied, and return that answer; the burst and no more must have passed.

    On a machine that stalls, nginx may give up waiting for a check that was charged or was not, and
    the bucket refills in the meantime.
    """
    upstream.requests.clear()
    started = time.monotonic()
    for _ in range(50):
        answer = send_request()
        if answer.status_code != 200:
            break
    refilled = FREE_RATE * (time.monotonic() - started)
    outcomes = [request.headers["X-RateLimit-Outcome"] for request in upstream.requests]
    assert BURST - outcomes.count("failed-open") <= outcomes.count("allowed") <= BURST + refilled
    assert answer.status_code == 429
    return answer


def count_admitted(send_request, upstream):
    """Send 50 requests and return how many were admitted, less what was refilled in the meantime.

    A request for which nginx gave up waiting may have been charged, so it counts as admitted.
    """
    upstream.requests.clear()
    started = time.monotonic()
    answers = [send_request().status_code for _ in range(50)]
    refilled = math.floor(FREE_RATE * (time.monotonic() - started) + 1e-3)
    assert set(answers) <= {200, 429}
    return max(answers.count(200) - refilled, BURST) if refilled else answers.count(200)


def test_nginx_accepts_the_shipped_file_unchanged(nginx_config, tmp_path):
    command = build_nginx_command("-t", "-p", f"{tmp_path}/", "-c", str(nginx_config))
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


def test_an_allowed_request_reaches_the_api_and_its_answer_tells_the_limits(gateway, upstream, api_key):
    upstream.set_answer(200, {"Content-Type": "text/plain"}, b"from the API")
    answer = gateway.get_answer("GET", "/hello?name=world", headers=bearer(api_key))
    assert (answer.status_code, answer.text) == (200, "from the API")
    assert '"requests"' in answer.headers["RateLimit"]
    assert '"requests"' in answer.headers["RateLimit-Policy"]
    assert "Retry-After" not in answer.headers
    assert [request.path for request in upstream.requests] == ["/hello?name=world"]


def test_a_key_that_spent_its_burst_gets_a_true_429_and_the_api_does_not_hear_of_it(
    gateway, upstream, api_key
):
    denied = spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    assert int(denied.headers["Retry-After"]) >= 1
    assert '"requests"' in denied.headers["RateLimit"]
    assert '"requests"' in denied.headers["RateLimit-Policy"]
    assert denied.headers["Content-Type"] == "application/problem+json"
    problem = denied.json()
    assert problem["status"] == 429
    assert problem["type"].endswith("#quota-exceeded")


def test_a_denied_client_keeps_its_connection(gateway, upstream, api_key):
    denied = spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    assert denied.headers["Connection"] == "keep-alive"


def test_one_key_does_not_spend_what_another_has(gateway, upstream, api_key, another_api_key):
    spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    assert gateway.get_answer(headers=bearer(another_api_key)).status_code == 200


def test_requests_without_a_key_are_limited_by_address_whatever_they_claim_it_is(
    gateway, upstream, address, connect_from
):
    client = connect_from(gateway, address)
    claims = iter(range(100))
    spend_burst(lambda: client.get("/", headers={"X-Forwarded-For": f"192.0.2.{next(claims)}"}), upstream)
    neighbour = connect_from(gateway, "127.0.0.1")
    assert neighbour.get("/").status_code == 200


def test_a_client_cannot_choose_its_key_or_plan_or_time(gateway, upstream, api_key):
    claims = iter(range(100))

    def send_request():
        claim = next(claims)
        chosen = {
            "X-RateLimit-Key": f"vk_claimed_{claim}",
            "X-RateLimit-Plan": "pro",
            "X-RateLimit-Tenant": f"tenant-{claim}",
            "X-RateLimit-Cost": "requests=0",
            "X-RateLimit-Timestamp": str(claim),
            "X-RateLimit-Request-Id": "the-same-every-time",
        }
        return gateway.send_request(headers=bearer(api_key) | chosen)

    spend_burst(send_request, upstream)


@pytest.mark.parametrize("name", ["X-Request-Id", "X-RateLimit-Request-Id"])
def test_p6_of_50_requests_with_one_id_of_the_client_5_pass(gateway, upstream, api_key, name):
    headers = bearer(api_key) | {name: "the-same-every-time"}
    assert count_admitted(lambda: gateway.send_request(headers=headers), upstream) == BURST


def test_of_50_made_up_secrets_from_one_address_5_pass(gateway, upstream, address, connect_from):
    client = connect_from(gateway, address)
    made_up = (bearer(f"made-up-{number}") for number in range(50))
    assert count_admitted(lambda: client.get("/", headers=next(made_up)), upstream) == BURST


def test_where_the_policy_denies_unknown_keys_their_client_gets_401(start_nginx, upstream, api_key):
    policy = read_starter_policy().replace("unknown_keys: anonymous", "unknown_keys: deny")
    with run_gateway_sidecar(policy) as sidecar:
        gateway = start_nginx(sidecar.port)
        assert gateway.get_answer(headers=bearer(api_key)).status_code == 200
        refused = gateway.get_answer(headers=bearer("made-up"))
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert gateway.read_access_log()[-1]["ratelimit"] == "unknown-key"
    assert not upstream.requests


def test_the_api_learns_the_identifier_that_stands_for_the_secret(gateway, upstream, api_key):
    def identifier():
        gateway.get_answer(headers=bearer(api_key))
        return upstream.requests[-1].headers["X-RateLimit-Key"]

    assert identifier() == identifier()
    assert api_key not in identifier()
    assert gateway.read_access_log()[-1]["key"] == identifier()


def test_without_a_sidecar_every_request_goes_through_marked(start_nginx, own_sidecar, upstream, api_key):
    gateway = start_nginx(own_sidecar.port)
    spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    own_sidecar.stop()

    claiming = bearer(api_key) | {"X-RateLimit-Key": "vk_claimed", "X-RateLimit-Outcome": "allowed"}
    answer = gateway.send_request(headers=claiming)
    assert answer.status_code == 200
    assert not {"RateLimit", "RateLimit-Policy", "Retry-After"} & set(answer.headers)
    assert upstream.requests[-1].headers["X-RateLimit-Outcome"] == "failed-open"
    assert "X-RateLimit-Key" not in upstream.requests[-1].headers
    assert gateway.read_access_log()[-1]["ratelimit"] == "failed-open"


def test_no_log_holds_the_secret_whatever_happened_to_the_request(
    start_nginx, own_sidecar, upstream, api_key
):
    gateway = start_nginx(own_sidecar.port)
    spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    own_sidecar.stop()
    gateway.send_request(headers=bearer(api_key) | {"bad_name": api_key})

    records = gateway.read_access_log()
    assert {"allowed", "denied", "failed-open"} <= {record["ratelimit"] for record in records}
    assert api_key not in f"{records}{gateway.read_error_log()}"
