"""`/v1/authorize`: checks that gateways send, with headers alone."""

import math
import re
import socket

import pytest


def ask(sidecar, method="GET", path="", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return sidecar.client.request(method, f"/v1/authorize{path}", headers=names)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["", "/", "/v1/chat/completions?stream=1"])
def test_any_method_and_any_path_below_is_answered_without_a_body(sidecar, key, method, path):
    response = ask(sidecar, method, path, X_RateLimit_Key=key)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["ratelimit"].startswith('"requests";r=4;')
    assert response.headers["x-ratelimit-key"] == key


def test_a_denial_is_429_or_what_the_gateway_can_pass_on(sidecar, key):
    for _ in range(5):
        assert ask(sidecar, X_RateLimit_Key=key).status_code == 200
    denied = ask(sidecar, X_RateLimit_Key=key)
    assert denied.status_code == 429
    assert denied.headers["retry-after"] == str(math.ceil(denied.json()["retry_after"]))
    assert denied.json()["violated-policies"] == ["requests"]
    as_403 = ask(sidecar, path="?deny_status=403", X_RateLimit_Key=key)
    assert (as_403.status_code, as_403.json()["status"]) == (403, 403)
    assert 0 < int(as_403.headers["retry-after"]) <= 180
    assert ask(sidecar, path="?deny_status=200", X_RateLimit_Key=key).status_code == 422


def test_the_body_is_never_read(sidecar, key):
    """The answer comes although the announced body is never sent."""
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as connection:
        lines = [
            "POST /v1/authorize HTTP/1.1",
            "Host: x",
            f"X-RateLimit-Key: {key}",
            "Content-Length: 999",
            "",
            "",
        ]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("header", [{"Authorization": "Bearer sk-a-secret"}, {"X_Api_Key": "sk-a-secret"}])
def test_p10_a_secret_becomes_an_identifier_at_once(sidecar, header):
    response = ask(sidecar, **header)
    assert response.status_code == 200
    assert re.fullmatch("vk_[0-9a-f]{32}", response.headers["x-ratelimit-key"])
    assert "sk-a-secret" not in str(response.headers)
    assert "sk-a-secret" not in sidecar.output


def test_one_secret_is_one_key_however_it_is_carried_and_another_pepper_makes_another(sidecar, start_sidecar):
    def key_of(process, **headers):
        return ask(process, **headers).headers["x-ratelimit-key"]

    bearer = key_of(sidecar, Authorization="bearer  sk-same")
    assert key_of(sidecar, X_Api_Key="sk-same") == bearer
    assert key_of(sidecar, X_Api_Key="sk-other") != bearer
    other = start_sidecar("--redis", "memory://", "--key-pepper", "another")
    assert key_of(other, X_Api_Key="sk-same") != bearer


def test_plan_model_tenant_cost_and_timestamp_come_from_headers(sidecar, key):
    response = ask(
        sidecar,
        X_RateLimit_Key=key,
        X_RateLimit_Plan="pro",
        X_RateLimit_Model="qwen3-235b",
        X_RateLimit_Tenant=f"tenant-{key}",
        X_RateLimit_Timestamp="2026-02-20T15:30:00Z",
        X_RateLimit_Cost="tokens=512, requests=2",
    )
    assert response.headers["ratelimit-policy"] == '"requests";q=10;w=60, "tokens";q=100000;w=60;qu="tokens"'
    assert response.headers["ratelimit"] == '"requests";r=8;t=12, "tokens";r=99488;t=1'


@pytest.mark.parametrize(
    ("header", "value", "field"),
    [
        ("X-RateLimit-Cost", "tokens=", "X-RateLimit-Cost"),
        ("X-RateLimit-Cost", "tokens", "X-RateLimit-Cost.tokens"),
        ("X-RateLimit-Cost", 'tokens="5"', "X-RateLimit-Cost.tokens"),
        ("X-RateLimit-Cost", "tokens=-5", "X-RateLimit-Cost.tokens"),
        ("X-RateLimit-Cost", "bananas=5", "X-RateLimit-Cost.bananas"),
        ("X-RateLimit-Cost", "tokens=(1 2)", "X-RateLimit-Cost.tokens"),
        ("X-RateLimit-Timestamp", "2026-02-20T15:30:00", "X-RateLimit-Timestamp"),
        ("X-RateLimit-Timestamp", "1e99", "X-RateLimit-Timestamp"),
        ("X-RateLimit-Plan", "gold", "X-RateLimit-Plan"),
        ("X-RateLimit-Key", "", "X-RateLimit-Key"),
        ("X-RateLimit-Reserve", "1", "X-RateLimit-Reserve"),
        ("X-RateLimit-Key", "k" * 300, "X-RateLimit-Key"),
        ("X-RateLimit-Key", "a b", "X-RateLimit-Key"),
        ("X-RateLimit-Model", b"\xff", "X-RateLimit-Model"),
        ("X-RateLimit-Request-Id", "a b", "X-RateLimit-Request-Id"),
        ("X-RateLimit-Request-Id", "x" * 129, "X-RateLimit-Request-Id"),
        ("X-RateLimit-Tenant", b"\xc3\xbc", "X-RateLimit-Tenant"),
    ],
)
def test_a_wrong_header_is_422_and_named(sidecar, header, value, field):
    response = sidecar.client.get("/v1/authorize", headers={"X-RateLimit-Key": "k", header: value})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("header", ["Model", "Plan", "Tenant", "Timestamp", "Cost", "Reserve", "Request-Id"])
def test_a_header_that_a_gateway_left_empty_says_nothing(sidecar, key, header):
    response = sidecar.client.get(
        "/v1/authorize", headers={"X-RateLimit-Key": key, f"X-RateLimit-{header}": ""}
    )
    assert response.headers["ratelimit"].startswith('"requests";r=4;')


@pytest.mark.parametrize("request_id", ["one-id", "a b", "x" * 200, b"\xff", ""])
def test_p6_the_x_request_id_of_a_client_means_nothing(sidecar, key, request_id):
    headers = {"X-RateLimit-Key": key, "X-Request-Id": request_id}
    statuses = [sidecar.client.get("/v1/authorize", headers=headers).status_code for _ in range(50)]
    assert statuses == [200] * 5 + [429] * 45


def test_p6_a_check_repeated_with_the_gateways_request_id_charges_once(sidecar, key):
    headers = {"X-RateLimit-Key": key, "X-RateLimit-Request-Id": "a-retry-of-the-gateway"}
    answers = [sidecar.client.get("/v1/authorize", headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert {answer.headers["ratelimit"].split(",")[0] for answer in answers} == {'"requests";r=4;t=180'}


def test_an_upgrade_is_a_question_like_any_other(sidecar, key):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "X-RateLimit-Key": key}
    assert sidecar.client.get("/v1/authorize", headers=headers).status_code == 200


def test_a_header_that_came_twice_is_refused(sidecar, key):
    twice = [("X-RateLimit-Key", key), ("X-RateLimit-Key", "vk_somebody_else")]
    response = sidecar.client.get("/v1/authorize", headers=twice)
    assert response.status_code == 400
    assert "X-RateLimit-Key" in response.json()["detail"]


def test_without_a_key_the_address_is_limited_on_the_anonymous_plan(sidecar):
    def ask_from(address):
        return ask(sidecar, X_Forwarded_For=address)

    first = ask_from("203.0.113.7")
    assert re.fullmatch("anon_[0-9a-f]{32}", first.headers["x-ratelimit-key"])
    assert first.headers["ratelimit-policy"] == '"requests";q=2;w=3600'
    assert [ask_from("203.0.113.7").status_code for _ in range(2)] == [200, 429]
    assert ask_from("203.0.113.8").status_code == 200
    # The client itself wrote everything to the left of the last untrusted hop.
    assert ask_from("203.0.113.99, 203.0.113.7").status_code == 429
    # The last hop is another trusted proxy.
    assert ask_from("203.0.113.7, 127.0.0.1").status_code == 429


def test_an_ipv6_client_is_limited_by_its_network(sidecar):
    keys = {
        ask(sidecar, X_Forwarded_For=address).headers["x-ratelimit-key"]
        for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2")
    }
    assert len(keys) == 1


def test_a_forwarded_address_is_not_believed_from_an_untrusted_peer(start_sidecar):
    sidecar = start_sidecar("--redis", "memory://", "--trusted-proxies", "192.0.2.0/24")
    keys = {
        ask(sidecar, X_Forwarded_For=a).headers["x-ratelimit-key"] for a in ("203.0.113.7", "203.0.113.8")
    }
    assert len(keys) == 1


def test_without_an_anonymous_plan_a_request_without_a_key_is_401(start_sidecar):
    policy = "plans: {free: {limits: {requests: {rate: 5/minute}}}}"
    response = ask(start_sidecar("--redis", "memory://", policy=policy))
    assert response.status_code == 401
    assert "anonymous" in response.json()["detail"]


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key"])
def test_two_secrets_are_refused_because_the_api_might_take_the_other_one(sidecar, name):
    answer = sidecar.client.get("/v1/authorize", headers=[(name, "Bearer one"), (name, "Bearer two")])
    assert answer.status_code == 400
    assert f"{name} was sent more than once" in answer.json()["detail"]
