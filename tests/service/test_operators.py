"""Tokens, the operators' endpoints, health checks, and the documentation pages."""

from urllib.parse import quote

import pytest

ADMIN = {"Authorization": "Bearer admin-token"}
GATEWAY = {"X-RateLimit-Gateway-Token": "gateway-token"}


@pytest.fixture(scope="module")
def guarded(start_module_sidecar):
    return start_module_sidecar(
        "--redis", "memory://", "--admin-token", "admin-token", "--gateway-token", "gateway-token"
    )


@pytest.mark.parametrize("path", ["/v1/check", "/v1/check/batch", "/v1/authorize", "/v1/authorize/x"])
@pytest.mark.parametrize("token", [None, "", "wrong", "gateway-toke", "gateway-token-and-more", "gäteway"])
def test_without_the_gateway_token_every_call_is_401(guarded, path, token):
    headers = {} if token is None else {"X-RateLimit-Gateway-Token": token.encode()}
    response = guarded.client.post(path, json={"key": "k"}, headers={"X-RateLimit-Key": "k", **headers})
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert "X-RateLimit-Gateway-Token" in response.json()["detail"]


def test_with_the_gateway_token_calls_are_answered(guarded, key):
    assert guarded.client.post("/v1/check", json={"key": key}, headers=GATEWAY).status_code == 200
    headers = {**GATEWAY, "X-RateLimit-Key": key}
    assert guarded.client.get("/v1/authorize", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", "Basic admin-token", "admin-token"]
)
def test_without_the_admin_token_operators_are_401(guarded, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in (("GET", "/v1/policy"), ("GET", "/v1/keys/k"), ("DELETE", "/v1/keys/k")):
        response = guarded.client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


def test_with_no_admin_token_configured_the_operators_pages_are_not_there(sidecar):
    for method, path in (("GET", "/v1/policy"), ("GET", "/v1/keys/k"), ("DELETE", "/v1/keys/k")):
        assert sidecar.client.request(method, path, headers=ADMIN).status_code == 404


def test_the_policy_in_force_is_shown(guarded):
    policy = guarded.client.get("/v1/policy", headers=ADMIN).json()
    assert policy["default_plan"] == "free"
    assert policy["plans"]["free"]["limits"]["tokens"]["rate"] == "1000/hour"
    assert policy["keys"] == {"vk_partner": {"plan": "pro", "tenant": "acme"}}


def test_a_key_is_shown_without_charging_and_reset(guarded, key):
    def check():
        return guarded.client.post("/v1/check", json={"key": key}, headers=GATEWAY)

    assert [check().status_code for _ in range(6)] == [200] * 5 + [429]
    shown = guarded.client.get(f"/v1/keys/{key}", headers=ADMIN).json()
    assert (shown["allowed"], shown["limits"][0]["remaining"]) == (False, 0)
    assert guarded.client.delete(f"/v1/keys/{key}", headers=ADMIN).status_code == 204
    assert guarded.client.get(f"/v1/keys/{key}", headers=ADMIN).json()["limits"][0]["remaining"] == 5
    assert check().status_code == 200


@pytest.mark.parametrize("key", ["team/a", "a//b", "../x", "{k}:*", "a?b#c%2F", "/"])
def test_a_key_may_hold_any_visible_character(guarded, key):
    path = f"/v1/keys/{quote(key, safe='')}"
    guarded.client.post("/v1/check", json={"key": key}, headers=GATEWAY)
    shown = guarded.client.get(path, headers=ADMIN).json()
    assert shown["limits"][0]["remaining"] == 4
    assert guarded.client.put(path, json={"plan": "pro"}, headers=ADMIN).status_code == 200
    assert guarded.client.get(path, headers=ADMIN).json()["plan"] == "pro"
    assert guarded.client.put(path, json={}, headers=ADMIN).status_code == 200
    assert guarded.client.delete(path, headers=ADMIN).status_code == 204


def test_a_key_that_cannot_be_is_422(guarded):
    assert guarded.client.get("/v1/keys/a%20b", headers=ADMIN).status_code == 422
    assert guarded.client.get("/v1/keys/k?plan=gold", headers=ADMIN).json()["errors"][0]["field"] == "plan"


def test_health_needs_no_token(guarded):
    assert guarded.client.get("/healthz").json() == {"status": "alive"}
    ready = guarded.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")


def test_docs_show_every_endpoint(sidecar):
    assert "swagger" in sidecar.client.get("/docs").text
    schema = sidecar.client.get("/openapi.json").json()
    assert {"/v1/check", "/v1/check/batch", "/v1/authorize", "/v1/policy", "/healthz", "/readyz"} <= set(
        schema["paths"]
    )
    body = schema["paths"]["/v1/check"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) >= {"key", "timestamp", "plan", "model", "tenant", "cost"}
    assert body["additionalProperties"] is False
