"""P10: secrets are sent by every door, and no log line, metric, answer or key of the store has one."""

import json
import secrets

import grpc
import pytest
import redis

from ..processes import run_ratelimit
from ..rls_client import make_request, run_rls_sidecar
from .conftest import POLICY

BEARER = f"sk-{secrets.token_hex(16)}"
FIELDS = ("key", "plan", "model", "tenant", "timestamp", "cost", "request_id", "reserve")


class Secrets:
    """Makes secrets and finds out where they went."""

    def __init__(self):
        self.made = {}

    def make(self, door):
        """Return a new secret for a door."""
        secret = f"sk-{secrets.token_hex(16)}"
        self.made[secret] = door
        return secret

    def find_in(self, text):
        """Return the doors whose secret is in a text."""
        return [door for secret, door in self.made.items() if secret in text]


@pytest.fixture
def made():
    return Secrets()


def _send_over_http(sidecar, made, token):
    """Send secrets over HTTP; yield the answers."""
    client, gateway = sidecar.client, {"X-RateLimit-Gateway-Token": token}

    def headers(**more):
        return {**gateway, **{name.replace("_", "-"): value for name, value in more.items()}}

    for number in range(8):  # until the plan denies, so that there is a log line, too
        yield client.get("/v1/authorize", headers=headers(Authorization=f"Bearer {BEARER}")), number
    doors = {
        "Bearer": headers(Authorization=f"Bearer {made.make('Bearer')}", X_RateLimit_Reserve="?1"),
        "bearer": headers(Authorization=f"bearer   {made.make('bearer')}"),
        "Basic": headers(Authorization=f"Basic {made.make('Basic')}"),
        "no scheme": headers(Authorization=made.make("no scheme")),
        "X-Api-Key": headers(X_Api_Key=made.make("X-Api-Key")),
        "Cookie": headers(Cookie=f"session={made.make('Cookie')}"),
        "wrong gateway token": {"X-RateLimit-Gateway-Token": made.make("wrong gateway token")},
        "cost": headers(X_RateLimit_Cost=f"(({made.make('cost')}"),
        "timestamp": headers(X_RateLimit_Timestamp=made.make("timestamp")),
        "plan": headers(X_RateLimit_Plan=made.make("plan")),
        "reserve": headers(X_RateLimit_Reserve=made.make("reserve")),
        "a key that is none": headers(X_RateLimit_Key=f"{made.make('a key that is none')} and more"),
        "a long request id": headers(X_RateLimit_Request_Id=made.make("a request id that is none") * 9),
    }
    for door, sent in doors.items():
        yield client.get("/v1/authorize", headers=sent), door
    yield client.get(f"/v1/authorize/{made.make('path')}?key={made.make('query')}", headers=gateway), "path"
    yield client.get(f"/v1/authorize?deny_status={made.make('deny_status')}", headers=gateway), "query"
    yield client.get(f"/{made.make('unknown path')}"), "unknown path"
    for field in FIELDS:
        body = {"key": "vk_a", field: {"sent": made.make(f"check {field}")}}
        yield client.post("/v1/check", json=body, headers=gateway), field
        yield client.post("/v1/check/batch", json=[body], headers=gateway), field
    yield (
        client.post("/v1/check", json={"key": "vk_a", "prompt": made.make("prompt")}, headers=gateway),
        "prompt",
    )
    yield client.post("/v1/check", content=made.make("not JSON"), headers=gateway), "not JSON"
    for field in ("key", "status", "model", "input_tokens", "latency_ms", "cost", "reservation", "answer"):
        body = {"key": "vk_a", field: [made.make(f"settle {field}")]}
        yield client.post("/v1/settle", json=body, headers=gateway), field
    yield client.delete(f"/v1/reservations/{made.make('reservation')}", headers=gateway), "reservation"
    wrong = {"Authorization": f"Bearer {made.make('wrong admin token')}"}
    yield client.get("/v1/policy", headers=wrong), "wrong admin token"
    yield client.put("/v1/keys/vk_a", headers=wrong, json={"plan": "pro"}), "wrong admin token"


def _send_over_grpc(client, made, token):
    """Send secrets over gRPC; yield the answers."""
    for name, descriptor in {
        "secret": {"secret": f"Bearer {made.make('gRPC secret')}"},
        "bare secret": {"secret": made.make("gRPC bare secret")},
        "plan": {"key": "vk_a", "plan": made.make("gRPC plan")},
        "settle": {"key": "vk_a", "settle": made.make("gRPC settle")},
    }.items():
        yield client.send(make_request(descriptor), x_ratelimit_gateway_token=token), name
    with pytest.raises(grpc.RpcError) as refused:
        client.send(make_request({"key": "vk_a"}), x_ratelimit_gateway_token=made.make("gRPC token"))
    yield refused.value, "token"


def _read_whole_store(url):
    """Return everything in the store as text: keys and values of each type."""
    readers = {
        "string": lambda client, key: client.get(key),
        "hash": lambda client, key: client.hgetall(key),
        "zset": lambda client, key: client.zrange(key, 0, -1, withscores=True),
        "stream": lambda client, key: client.xrange(key),
    }
    with redis.Redis.from_url(url, encoding="latin-1", decode_responses=True) as client:
        return repr([(key, readers[client.type(key)](client, key)) for key in client.scan_iter()])


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_p10_no_secret_comes_out(made, real_url, log_format):
    made.made[BEARER] = "Bearer that is denied"
    tokens = {name: made.make(name) for name in ("gateway_token", "admin_token", "key_pepper")}
    flags = [word for name, value in tokens.items() for word in (f"--{name.replace('_', '-')}", value)]
    flags += ["--redis", real_url, "--log-format", log_format]
    with run_rls_sidecar(*flags, policy=POLICY) as (sidecar, client, _):
        token = tokens["gateway_token"]
        statuses = set()
        for response, door in _send_over_http(sidecar, made, token):
            shown = f"{response.headers} {response.text}"
            assert made.find_in(shown) == [], (door, shown)
            statuses.add(response.status_code)
        assert statuses == {200, 400, 401, 404, 422, 429}
        for answer, door in _send_over_grpc(client, made, token):
            shown = f"{answer}"
            assert made.find_in(shown) == [], (door, shown)
        admin = {"Authorization": f"Bearer {tokens['admin_token']}"}
        for path in ("/metrics", "/readyz", "/healthz", "/openapi.json", "/v1/policy", "/v1/keys/vk_a"):
            response = sidecar.client.get(path, headers=admin)
            assert response.status_code == 200, path
            assert made.find_in(f"{response.headers} {response.text}") == [], path
        sidecar.policy_file.write_text(f"plans: {{free: {{{made.make('policy')}: 1}}}}")
        sidecar.wait_for_output("policy refused")
        output = sidecar.output
    assert "denied" in output
    assert made.find_in(output.replace(_find_policy_text(made), "")) == []
    assert made.find_in(_read_whole_store(real_url)) == []


def _find_policy_text(made):
    """Return the text in the policy: the faults of a policy name what is wrong, and no client wrote it."""
    return next(secret for secret, door in made.made.items() if door == "policy")


def test_p10_the_password_of_the_store_comes_out_nowhere(made, start_sidecar):
    password = made.make("password")
    sidecar = start_sidecar("--redis", f"redis://user:{password}@127.0.0.1:1", "--admin-token", "t")
    shown = [
        sidecar.client.get("/readyz").text,
        sidecar.check("vk_a").text,
        sidecar.client.get("/metrics").text,
    ]
    assert sidecar.client.get("/readyz").status_code == 503
    sidecar.wait_for_output("does not answer")
    for text in (*shown, sidecar.output):
        assert made.find_in(text) == [], text
    checked = run_ratelimit("check", "vk_a", "--redis", f"redis://user:{password}@127.0.0.1:1")
    assert made.find_in(checked.stdout + checked.stderr) == []


def test_p10_the_identifier_of_a_secret_does_not_contain_it(made):
    secret, pepper = made.make("stdin"), made.make("pepper")
    done = run_ratelimit("keys", "id", "--json", input=secret, RATELIMIT_KEY_PEPPER=pepper)
    assert made.find_in(done.stdout + done.stderr) == []
    assert json.loads(done.stdout)["key"].startswith("vk_")
