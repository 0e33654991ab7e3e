"""`unknown_keys`: what the sidecar does with a secret that neither the policy nor an assignment knows."""

import pytest

from ratelimit.request.privacy import identifier_of

from ..processes import run_ratelimit, wait_until

PEPPER = "a-pepper-for-tests"
ADMIN = {"Authorization": "Bearer admin-token"}
KNOWN = "sk-known"
POLICY = f"""
default_plan: free
unknown_keys: RULE
plans:
  anonymous: {{limits: {{requests: {{rate: 5/day}}}}}}
  free: {{limits: {{requests: {{rate: 20/day}}}}}}
  pro: {{limits: {{requests: {{rate: 100/day}}}}}}
keys:
  {identifier_of(KNOWN, PEPPER)}: {{}}
"""


@pytest.fixture
def start(start_sidecar):
    def start(rule, redis="memory://"):
        flags = ["--redis", redis, "--key-pepper", PEPPER, "--admin-token", "admin-token"]
        return start_sidecar(*flags, policy=POLICY.replace("RULE", rule))

    return start


def authorize(sidecar, secret, address="203.0.113.7", **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": address, **names}
    return sidecar.client.get("/v1/authorize", headers=headers)


def read_policy(response):
    return response.headers["ratelimit-policy"]


def test_anonymous_limits_made_up_secrets_by_the_clients_address(start):
    sidecar = start("anonymous")
    answers = [authorize(sidecar, f"made-up-{number}", X_RateLimit_Plan="pro") for number in range(50)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 45
    assert len({answer.headers["x-ratelimit-key"] for answer in answers}) == 1
    assert answers[0].headers["x-ratelimit-key"].startswith("anon_")
    # The same address without a secret has the same bucket.
    assert sidecar.client.get("/v1/authorize", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 429
    assert authorize(sidecar, "made-up", "203.0.113.8").status_code == 200


def test_a_known_secret_has_its_own_bucket_whatever_its_address(start):
    sidecar = start("anonymous")
    answer = authorize(sidecar, KNOWN)
    assert read_policy(answer) == '"requests";q=20;w=86400'
    assert answer.headers["x-ratelimit-key"] == identifier_of(KNOWN, PEPPER)


def test_deny_answers_401_and_charges_nobody(start):
    sidecar = start("deny")
    refused = authorize(sidecar, "made-up")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert refused.headers["content-type"] == "application/problem+json"
    assert "not known" in refused.json()["detail"]
    assert authorize(sidecar, KNOWN).status_code == 200
    anonymous = sidecar.client.get("/v1/authorize", headers={"X-Forwarded-For": "203.0.113.7"})
    assert anonymous.headers["ratelimit"].startswith('"requests";r=4;')


def test_default_plan_gives_each_made_up_secret_a_bucket(start):
    sidecar = start("default_plan")
    answers = [authorize(sidecar, f"made-up-{number}") for number in range(50)]
    assert {answer.status_code for answer in answers} == {200}
    assert {read_policy(answer) for answer in answers} == {'"requests";q=20;w=86400'}


def test_a_secret_is_known_as_soon_as_its_key_is_assigned(start):
    sidecar = start("deny")
    done = run_ratelimit("keys", "id", input="sk-new\n", RATELIMIT_KEY_PEPPER=PEPPER)
    key = done.stdout.strip()
    assert (done.returncode, authorize(sidecar, "sk-new").status_code) == (0, 401)
    sidecar.client.put(f"/v1/keys/{key}", json={"plan": "pro"}, headers=ADMIN)
    answer = authorize(sidecar, "sk-new")
    assert read_policy(answer) == '"requests";q=100;w=86400'
    assert answer.headers["x-ratelimit-key"] == key
    sidecar.client.put(f"/v1/keys/{key}", json={}, headers=ADMIN)
    assert authorize(sidecar, "sk-new").status_code == 401


def test_a_key_that_the_gateway_states_is_never_unknown(start):
    sidecar = start("deny")
    headers = {"X-RateLimit-Key": "vk_stated_by_the_gateway"}
    assert sidecar.client.get("/v1/authorize", headers=headers).status_code == 200


def test_p8_deny_answers_503_while_assignments_have_never_been_read(start):
    sidecar = start("deny", "redis://127.0.0.1:1")
    refused = authorize(sidecar, "made-up")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["type"].endswith("#temporary-reduced-capacity")
    assert authorize(sidecar, KNOWN).status_code == 200  # known without the store; `on_outage: allow`


def test_an_operator_assigns_a_plan_to_a_tenant_for_every_sidecar(start, tmp_path, key):
    redis = f"embedded://{tmp_path / 'store'}"
    one, other = start("anonymous", redis), start("anonymous", redis)

    def assign(tenant, **fields):
        return one.client.put(f"/v1/tenants/{tenant}", json=fields, headers=ADMIN)

    assert assign("acme/eu", plan="pro").json() == {"plan": "pro"}
    assert one.check(key, tenant="acme/eu").json()["plan"] == "pro"
    wait_until(lambda: other.check(key, tenant="acme/eu").json()["plan"] == "pro")
    assert one.check(key, tenant="acme/eu", plan="free").json()["plan"] == "free"
    assert assign("acme/eu").json() == {"plan": None}
    assert one.check(key, tenant="acme/eu").json()["plan"] == "free"


@pytest.mark.parametrize(
    ("tenant", "fields", "field"),
    [
        ("acme", {"plan": "gold"}, "plan"),
        ("acme", {"plan": 5}, "plan"),
        ("acme", {"tenant": "acme"}, "tenant"),
        ("acme", {"blocked": True}, "blocked"),
        ("a%20b", {"plan": "pro"}, "tenant"),
    ],
)
def test_a_wrong_assignment_to_a_tenant_is_422_and_named(start, tenant, fields, field):
    sidecar = start("anonymous")
    response = sidecar.client.put(f"/v1/tenants/{tenant}", json=fields, headers=ADMIN)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, field)


def test_only_operators_assign_to_tenants(start, sidecar):
    assert start("anonymous").client.put("/v1/tenants/acme", json={"plan": "pro"}).status_code == 401
    assert sidecar.client.put("/v1/tenants/acme", json={"plan": "pro"}, headers=ADMIN).status_code == 404


@pytest.mark.parametrize("secret", ["sk-1234", "sk with spaces", "schlüssel", "  sk-1234\r"])
def test_p10_keys_id_makes_the_key_that_the_sidecar_makes_of_a_secret(sidecar, secret):
    done = run_ratelimit("keys", "id", input=f"{secret}\n", RATELIMIT_KEY_PEPPER=PEPPER)
    headers = {"Authorization": b"Bearer " + secret.strip().encode()}
    answer = sidecar.client.get("/v1/authorize", headers=headers)
    assert done.stdout == answer.headers["x-ratelimit-key"] + "\n"
    as_json = run_ratelimit("keys", "id", "--json", "--key-pepper", PEPPER, input=secret)
    assert as_json.stdout.split() == ["{", '"key":', f'"{done.stdout.strip()}"', "}"]


@pytest.mark.parametrize("secret", ["", " \n", "sk-one\nsk-two\n"])
def test_keys_id_wants_one_secret(secret):
    done = run_ratelimit("keys", "id", input=secret, RATELIMIT_KEY_PEPPER=PEPPER)
    assert (done.returncode, done.stdout) == (2, "")
    assert "one secret, on one line" in done.stderr
    assert "sk-one" not in done.stderr


def test_keys_id_wants_the_pepper():
    done = run_ratelimit("keys", "id", input="sk-1234")
    assert (done.returncode, done.stdout) == (2, "")
    assert "RATELIMIT_KEY_PEPPER" in done.stderr
