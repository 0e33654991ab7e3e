"""Tokens: a wrong one of any length has one answer, and every comparison takes constant time."""

import ast
import hmac
from pathlib import Path

import pytest
from pydantic import SecretStr
from starlette.requests import Request

import service
from ratelimit.web.problems import Problem
from service import tokens
from service.rls.service import RateLimitService

from .conftest import ADMIN_TOKEN, GATEWAY_TOKEN
from .wire import send_in_turn, write_request

SOURCES = sorted(Path(service.__file__).parent.rglob("*.py"))
SECRETS = {"admin_token", "gateway_token", "key_pepper", "get_secret_value", "token", "expected", "sent"}
LENGTHS = [*range(1, len(ADMIN_TOKEN) + 3), 100, 1_000, 60_000]


def list_names(node):
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def compares_to_none(node):
    return all(isinstance(other, ast.Constant) and other.value is None for other in node.comparators)


def test_no_comparison_in_the_sidecar_reads_a_secret_letter_by_letter():
    found = [
        f"{source.name}:{node.lineno}"
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Compare) and not compares_to_none(node)
        if isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn) and list_names(node) & SECRETS
    ]
    assert found == []


@pytest.fixture
def compared(monkeypatch):
    """What was compared in constant time."""
    pairs, compare = [], hmac.compare_digest

    def compare_and_note(first, second):
        pairs.append((first, second))
        return compare(first, second)

    monkeypatch.setattr(hmac, "compare_digest", compare_and_note)
    return pairs


def make_request(*headers):
    return Request({"type": "http", "headers": list(headers)})


@pytest.mark.parametrize("sent", [b"", b"s", b"secre", b"secret2", b"SECRET", b"\xff", b"secret\x00"])
def test_a_wrong_gateway_token_is_compared_in_constant_time(compared, sent):
    with pytest.raises(Problem):
        tokens.require_gateway_token(make_request((b"x-ratelimit-gateway-token", sent)), SecretStr("secret"))
    assert [second for _, second in compared] == [b"secret"]


def test_the_rate_limit_service_compares_in_constant_time(compared):
    class Context:
        def invocation_metadata(self):
            return [
                ("x-ratelimit-gateway-token", "wrong"),
                ("x-ratelimit-gateway-token", b"\xff"),
                ("x", "y"),
            ]

    checker = object.__new__(RateLimitService)
    checker._token = SecretStr("secret")
    assert not checker._has_token(Context())
    assert compared == [(b"wrong", b"secret"), (b"\xff", b"secret")]


def test_a_wrong_token_of_every_length_has_the_same_answer(sidecar):
    """Also one that begins like the right one, or goes on behind it."""
    endless = {token: (token * 3_000)[:60_000].encode() for token in (ADMIN_TOKEN, GATEWAY_TOKEN)}
    wrong = [sent[:length] for sent in (endless[GATEWAY_TOKEN], b"x" * 60_000) for length in LENGTHS]
    requests = [
        write_request("GET", "/v1/authorize", b"X-RateLimit-Key: vk_a", b"X-RateLimit-Gateway-Token: " + sent)
        for sent in wrong
        if sent != GATEWAY_TOKEN.encode()
    ]
    wrong = [sent[:length] for sent in (endless[ADMIN_TOKEN], b"x" * 60_000) for length in LENGTHS]
    admin = [
        write_request("GET", "/v1/policy", b"Authorization: Bearer " + sent)
        for sent in wrong
        if sent != ADMIN_TOKEN.encode()
    ]
    for sent in (requests, admin):
        answers = set(send_in_turn(sidecar.port, sent))
        assert len(answers) == 1
        assert next(iter(answers))[0] == 401
    print(f"wrong tokens: {len(requests) + len(admin)}, two answers")  # noqa: T201 - the figures of the run


@pytest.mark.parametrize("path", ["/v1/policy", "/v1/keys/vk_a", "/v1/tenants/acme"])
@pytest.mark.parametrize("token", [GATEWAY_TOKEN, f"{ADMIN_TOKEN} x"])
def test_the_gateways_token_opens_nothing_of_the_operators(sidecar, path, token):
    method = "PUT" if "tenants" in path else "GET"
    answer = sidecar.client.request(method, path, headers={"Authorization": f"Bearer {token}"}, content=b"{}")
    assert answer.status_code == 401


def test_the_operators_token_is_none_for_gateways(sidecar):
    headers = {"X-RateLimit-Gateway-Token": ADMIN_TOKEN, "Authorization": f"Bearer {ADMIN_TOKEN}"}
    assert sidecar.client.get("/v1/authorize", headers=headers).status_code == 401
    assert sidecar.client.post("/v1/settle", headers=headers, json={"key": "vk_a"}).status_code == 401


def test_without_any_token_nothing_under_v1_answers(sidecar):
    """But health, metrics and the documentation do: they name no key."""
    calls = [
        "POST /v1/check",
        "POST /v1/check/batch",
        "POST /v1/settle",
        "GET /v1/authorize",
        "GET /v1/policy",
    ]
    calls += ["DELETE /v1/reservations/x", "GET /v1/keys/a", "PUT /v1/keys/a", "DELETE /v1/keys/a"]
    calls += ["PUT /v1/tenants/a"]
    requests = [write_request(*call.split(), body=b'{"key": "vk_a"}') for call in calls]
    assert [status for status, _ in send_in_turn(sidecar.port, requests)] == [401] * len(calls)
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json"):
        assert sidecar.client.get(path, headers={"X-RateLimit-Gateway-Token": ""}).status_code == 200
    paths = sidecar.client.get("/openapi.json").json()["paths"]
    assert len([path for path in paths if path.startswith("/v1/")]) == len(
        {call.split()[1] for call in calls}
    )
