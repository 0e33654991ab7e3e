"""The OpenAPI document names every status and every header of its own that the sidecar sends."""

import pytest

POLICY = """
default_plan: free
unknown_keys: deny
plans:
  free:
    limits:
      requests: {rate: 20/day, on_outage: deny}  # so slow that none comes back during the tests
      tokens: {unit: tokens, rate: 100/hour}
"""
OURS = ("ratelimit", "x-ratelimit-", "retry-after", "www-authenticate")
KEY, NEVER = {"X-RateLimit-Key": "k"}, {"X-RateLimit-Cost": "tokens=101"}
LATER = {"X-RateLimit-Cost": "requests=20"}
ADMIN = {"Authorization": "Bearer admin"}

# The path in the document, the method and what is added to the path, headers, body, and the expected status.
ANSWERS = {
    "allowed": ("/v1/authorize", "GET", "", KEY, None, 200),
    "a reservation": ("/v1/authorize", "GET", "", {**KEY, "X-RateLimit-Reserve": "?1"}, None, 200),
    "too large": ("/v1/authorize", "GET", "", KEY | NEVER, None, 429),
    "denied for now": ("/v1/authorize", "GET", "", KEY | LATER, None, 429),
    "denied as 403": ("/v1/authorize", "POST", "?deny_status=403", KEY | LATER, None, 403),
    "denied as 401": ("/v1/authorize", "HEAD", "?deny_status=401", KEY | LATER, None, 401),
    "an unknown secret": ("/v1/authorize", "GET", "", {"X-Api-Key": "secret"}, None, 401),
    "a check": ("/v1/check", "POST", "", {}, {"key": "k"}, 200),
    "a denied check": ("/v1/check", "POST", "", {}, {"key": "k", "cost": {"requests": 20}}, 429),
    "no admin token": ("/v1/policy", "GET", "", {}, None, 401),
}
OUTAGES = {
    "authorize": ("/v1/authorize", "GET", "", KEY, None, 503),
    "unknown secret": ("/v1/authorize", "GET", "", {"X-Api-Key": "secret"}, None, 503),
    "check": ("/v1/check", "POST", "", {}, {"key": "k"}, 503),
    "settle": ("/v1/settle", "POST", "", {}, {"key": "k"}, 503),
    "assign": ("/v1/keys/{key}", "PUT", "", ADMIN, {"plan": "free"}, 503),
    "reset": ("/v1/keys/{key}", "DELETE", "", ADMIN, None, 503),
    "assign to a tenant": ("/v1/tenants/{tenant}", "PUT", "", ADMIN, {}, 503),
    "ready": ("/readyz", "GET", "", {}, None, 503),
}


@pytest.fixture(scope="module")
def running(start_module_sidecar):
    sidecar = start_module_sidecar("--admin-token", "admin", "--redis", "memory://", policy=POLICY)
    # One request of 20 is taken, so that 20 more must wait.
    assert sidecar.client.get("/v1/authorize", headers=KEY).status_code == 200
    return sidecar


@pytest.fixture(scope="module")
def without_store(start_module_sidecar):
    return start_module_sidecar("--admin-token", "admin", "--redis", "redis://127.0.0.1:1", policy=POLICY)


def find_undocumented_headers(sidecar, path, method, added, headers, body, status):
    """Send a request that must have this status. Return the sidecar's own headers that the document lacks."""
    address = path.replace("{", "").replace("}", "") + added
    answer = sidecar.client.request(method, address, headers=headers, json=body)
    assert answer.status_code == status
    operation = sidecar.client.get("/openapi.json").json()["paths"][path][method.lower()]
    documented = operation["responses"][str(status)].get("headers", {})
    sent = {name for name in answer.headers if name.startswith(OURS)}
    assert sent
    return sent - {name.lower() for name in documented}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_header_of_an_answer_is_documented(running, name):
    assert find_undocumented_headers(running, *ANSWERS[name]) == set()


@pytest.mark.parametrize("name", OUTAGES)
def test_every_header_of_an_answer_without_the_store_is_documented(without_store, name):
    assert find_undocumented_headers(without_store, *OUTAGES[name]) == set()
