"""The shipped nginx configuration in front of the real sidecar: who gets through, and what they are told."""

import secrets
import subprocess
import sys

import pytest

from .conftest import nginx_command

BURST = 5  # of the plans `free` and `anonymous` in the starter policy


@pytest.fixture
def gateway(start_nginx, sidecar):
    return start_nginx(sidecar)


@pytest.fixture
def address():
    """Yield a loopback address that no other test sends from."""
    if sys.platform != "linux":
        pytest.skip("only Linux answers on all of 127.0.0.0/8 unasked")
    return f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def spend(ask, upstream):
    """Ask until refused and return the refusal, having seen that the burst was admitted and no more.

    On a machine that stalls, nginx may have stopped waiting for a check, which then may or may not have been charged.
    """
    before = len(upstream.seen)
    for _ in range(4 * BURST):
        answer = ask()
        if answer.status_code != 200:
            break
    outcomes = [seen.headers["X-RateLimit-Outcome"] for seen in upstream.seen[before:]]
    unlimited = outcomes.count("failed-open")
    assert BURST - unlimited <= outcomes.count("allowed") <= BURST
    assert answer.status_code == 429
    return answer


def test_nginx_accepts_the_shipped_file_unchanged(nginx_config, tmp_path):
    command = nginx_command("-t", "-p", f"{tmp_path}/", "-c", str(nginx_config))
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr


def test_an_allowed_request_reaches_the_api_and_its_answer_tells_the_limits(gateway, upstream, api_key):
    upstream.answers(200, {"Content-Type": "text/plain"}, b"from the API")
    answer = gateway.client.get("/hello?name=world", headers=bearer(api_key))
    assert (answer.status_code, answer.text) == (200, "from the API")
    assert '"requests"' in answer.headers["RateLimit"]
    assert '"requests"' in answer.headers["RateLimit-Policy"]
    assert "Retry-After" not in answer.headers
    assert [seen.path for seen in upstream.seen] == ["/hello?name=world"]


def test_a_key_that_spent_its_burst_gets_a_true_429_and_the_api_does_not_hear_of_it(
    gateway, upstream, api_key
):
    denied = spend(lambda: gateway.client.get("/", headers=bearer(api_key)), upstream)
    assert int(denied.headers["Retry-After"]) >= 1
    assert '"requests"' in denied.headers["RateLimit"]
    assert '"requests"' in denied.headers["RateLimit-Policy"]
    assert denied.headers["Content-Type"] == "application/problem+json"
    problem = denied.json()
    assert problem["status"] == 429
    assert problem["type"].endswith("#quota-exceeded")


def test_a_denied_client_keeps_its_connection(gateway, upstream, api_key):
    denied = spend(lambda: gateway.client.get("/", headers=bearer(api_key)), upstream)
    assert denied.headers["Connection"] == "keep-alive"


def test_one_key_does_not_spend_what_another_has(gateway, upstream, api_key):
    spend(lambda: gateway.client.get("/", headers=bearer(api_key)), upstream)
    assert gateway.client.get("/", headers=bearer(f"{api_key}-of-another")).status_code == 200


def test_requests_without_a_key_are_limited_by_address_whatever_they_claim_it_is(
    gateway, upstream, address, client_from
):
    client = client_from(gateway, address)
    claims = iter(range(100))
    spend(lambda: client.get("/", headers={"X-Forwarded-For": f"192.0.2.{next(claims)}"}), upstream)
    neighbour = client_from(gateway, "127.0.0.1")
    assert neighbour.get("/").status_code == 200


def test_a_client_cannot_choose_its_key_or_plan_or_time(gateway, upstream, api_key):
    claims = iter(range(100))

    def ask():
        claim = next(claims)
        chosen = {
            "X-RateLimit-Key": f"vk_claimed_{claim}",
            "X-RateLimit-Plan": "pro",
            "X-RateLimit-Tenant": f"tenant-{claim}",
            "X-RateLimit-Cost": "requests=0",
            "X-RateLimit-Timestamp": str(claim),
        }
        return gateway.client.get("/", headers=bearer(api_key) | chosen)

    spend(ask, upstream)


def test_a_client_cannot_have_one_admission_replayed(gateway, upstream, api_key):
    again = bearer(api_key) | {"X-Request-Id": "the-same-every-time"}
    spend(lambda: gateway.client.get("/", headers=again), upstream)


def test_the_api_learns_the_identifier_that_stands_for_the_secret(gateway, upstream, api_key):
    for _ in range(2):
        gateway.client.get("/", headers=bearer(api_key))
    limited = [seen.headers for seen in upstream.seen if seen.headers["X-RateLimit-Outcome"] == "allowed"]
    identifiers = {headers["X-RateLimit-Key"] for headers in limited}
    assert len(identifiers) == 1
    assert api_key not in identifiers.pop()


def test_without_a_sidecar_every_request_goes_through_marked(start_nginx, doomed_sidecar, upstream, api_key):
    port, process = doomed_sidecar
    gateway = start_nginx(port)
    spend(lambda: gateway.client.get("/", headers=bearer(api_key)), upstream)
    process.terminate()
    process.wait(timeout=10)

    claiming = bearer(api_key) | {"X-RateLimit-Key": "vk_claimed", "X-RateLimit-Outcome": "allowed"}
    answer = gateway.client.get("/", headers=claiming)
    assert answer.status_code == 200
    assert not {"RateLimit", "RateLimit-Policy", "Retry-After"} & set(answer.headers)
    assert upstream.seen[-1].headers["X-RateLimit-Outcome"] == "failed-open"
    assert "X-RateLimit-Key" not in upstream.seen[-1].headers
    log = gateway.access_log(lines=len(upstream.seen) + 1)
    assert '"ratelimit":"failed-open"' in log.splitlines()[-1]


def test_no_log_holds_the_secret_whatever_happened_to_the_request(
    start_nginx, doomed_sidecar, upstream, api_key
):
    port, process = doomed_sidecar
    gateway = start_nginx(port)
    spend(lambda: gateway.client.get("/", headers=bearer(api_key)), upstream)
    process.terminate()
    process.wait(timeout=10)
    gateway.client.get("/", headers=bearer(api_key) | {"bad_name": api_key})

    logs = gateway.access_log(lines=len(upstream.seen) + 1) + gateway.error_log()
    assert '"ratelimit":"denied"' in logs
    assert '"ratelimit":"failed-open"' in logs
    assert api_key not in logs
