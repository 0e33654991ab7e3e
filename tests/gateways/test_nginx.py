"""The shipped nginx configuration in front of the real sidecar: which requests pass, and their headers."""

import secrets
import subprocess
import sys
import time

import pytest

from .conftest import build_nginx_command

# The plan `free` of the starter policy. The plan `anonymous` has the same burst and refills more slowly.
BURST = 5
FREE_RATE = 20 / 60


@pytest.fixture
def gateway(start_nginx, sidecar):
    return start_nginx(sidecar.port)


@pytest.fixture
def address():
    """A loopback address that no other test sends from."""
    if sys.platform != "linux":
        pytest.skip("only Linux answers on all of 127.0.0.0/8 without configuration")
    return f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"


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


def test_one_key_does_not_spend_what_another_has(gateway, upstream, api_key):
    spend_burst(lambda: gateway.send_request(headers=bearer(api_key)), upstream)
    assert gateway.get_answer(headers=bearer(f"{api_key}-of-another")).status_code == 200


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
        }
        return gateway.send_request(headers=bearer(api_key) | chosen)

    spend_burst(send_request, upstream)


def test_a_client_cannot_have_one_admission_replayed(gateway, upstream, api_key):
    again = bearer(api_key) | {"X-Request-Id": "the-same-every-time"}
    spend_burst(lambda: gateway.send_request(headers=again), upstream)


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
