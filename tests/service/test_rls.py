"""Envoy's rate-limit service over gRPC, on a real sidecar and a real server."""

import json
from itertools import count

import grpc
import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitResponse
from google.protobuf.json_format import MessageToDict
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from ratelimit.request.privacy import identifier_of

from ..processes import find_free_port, run_ratelimit
from ..rls_client import METHOD, RateLimitClient, make_request, run_rls_sidecar

OK, OVER_LIMIT = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
LIMIT = RateLimitResponse.RateLimit
PEPPER = "pepper-for-tests"
SECRET = "a-secret-that-is-known"
POLICY = f"""
default_plan: free
unknown_keys: anonymous
models: {{big: [opus]}}
plans:
  anonymous: {{limits: {{requests: {{rate: 2/day}}}}}}
  free:
    limits:
      requests: {{rate: 5/day}}
      tokens: {{unit: tokens, rate: 1000/day}}
  paid: {{limits: {{requests: {{rate: 3/day}}}}}}
  models: {{limits: {{requests: {{per: [key, model], rate: {{big: 1/day, other: 2/day}}}}}}}}
  vast: {{limits: {{requests: {{rate: 900000000000/second}}}}}}
  strict: {{limits: {{requests: {{rate: 5/day, on_outage: deny}}}}}}
keys:
  {identifier_of(SECRET, PEPPER)}: {{plan: paid}}
"""
_numbers = count()


@pytest.fixture(scope="module")
def service(valkey_url):
    with run_rls_sidecar("--redis", valkey_url, "--key-pepper", PEPPER, policy=POLICY) as (_, client, _):
        yield client


@pytest.fixture
def key():
    """A key that no other test uses."""
    return f"vk_rls_{next(_numbers):04}"


def count_allowed(service, *descriptors, of=10):
    codes = [service.ask(*descriptors).overall_code for _ in range(of)]
    return codes.count(OK)


def test_a_request_within_its_limits_is_ok_with_limits_headers_and_the_decision(service, key):
    answer = service.ask({"key": key, "generic_key": "ignored"})
    [status] = answer.statuses
    assert (answer.overall_code, status.code) == (OK, OK)
    assert (status.current_limit.name, status.current_limit.requests_per_unit) == ("requests", 5)
    assert status.current_limit.unit == LIMIT.DAY
    assert status.limit_remaining == 4
    assert 17_000 < status.duration_until_reset.seconds <= 17_280
    headers = {header.key: header.value for header in answer.response_headers_to_add}
    assert headers.keys() == {"RateLimit", "RateLimit-Policy"}
    assert headers["RateLimit"].startswith('"requests";r=4;t=')
    assert answer.raw_body == b""
    decision = MessageToDict(answer.dynamic_metadata)
    assert decision["allowed"] is True
    assert decision["plan"] == "free"
    assert decision["limits"][0]["remaining"] == 4


def test_p10_the_decision_in_the_metadata_has_the_masked_key(service, key):
    answer = service.ask({"key": key})
    # Only the API gets the identifier, as from /v1/authorize.
    [header] = answer.request_headers_to_add
    assert (header.key, header.value) == ("X-RateLimit-Key", key)
    answer.ClearField("request_headers_to_add")
    assert key not in str(answer)
    assert MessageToDict(answer.dynamic_metadata)["key"].endswith("…")


def test_a_request_over_its_limit_says_when_to_retry_and_has_the_problem_as_its_body(service, key):
    assert count_allowed(service, {"key": key}) == 5
    answer = service.ask({"key": key})
    assert (answer.overall_code, answer.statuses[0].code) == (OVER_LIMIT, OVER_LIMIT)
    assert answer.statuses[0].limit_remaining == 0
    headers = {header.key: header.value for header in answer.response_headers_to_add}
    assert 17_000 < int(headers["Retry-After"]) <= 17_280
    problem = json.loads(answer.raw_body)
    assert problem["status"] == 429
    assert problem["violated-policies"] == ["requests"]


def test_an_addend_of_the_request_holds_where_the_descriptor_has_none_and_0_stands_for_1(service, key):
    assert service.ask({"key": key}, hits_addend=3).statuses[0].limit_remaining == 2
    assert service.ask({"key": key}, hits_addend=0).statuses[0].limit_remaining == 1
    assert service.ask(({"key": key}, 1), hits_addend=3).statuses[0].limit_remaining == 0


def test_a_unit_is_counted_by_its_addend_and_takes_no_request(service, key):
    answer = service.ask(({"key": key, "unit": "tokens"}, 600))
    assert answer.statuses[0].current_limit.name == "tokens"
    assert answer.statuses[0].limit_remaining == 400
    assert MessageToDict(answer.dynamic_metadata)["limits"][0]["remaining"] == 5
    assert service.ask(({"key": key, "unit": "tokens"}, 600)).overall_code == OVER_LIMIT


def test_an_addend_of_0_only_looks_whether_1_is_left(service, key):
    look = ({"key": key, "unit": "tokens"}, 0)
    assert service.ask(look).statuses[0].limit_remaining == 1000
    service.ask(({"key": key, "unit": "tokens"}, 1000))
    assert service.ask(look).overall_code == OVER_LIMIT
    assert service.ask(({"key": key}, 0)).statuses[0].limit_remaining == 5


def test_p2_a_request_with_one_descriptor_over_its_limit_takes_from_no_limit_of_the_key(service, key):
    answer = service.ask({"key": key}, ({"key": key, "unit": "tokens"}, 1001))
    assert answer.overall_code == OVER_LIMIT
    assert [status.code for status in answer.statuses] == [OK, OVER_LIMIT]
    assert service.ask(({"key": key}, 0)).statuses[0].limit_remaining == 5


def test_p2_a_request_with_one_key_over_its_limit_takes_from_no_other_key(service, key):
    other = f"{key}_other"
    assert count_allowed(service, {"key": other}) == 5
    answer = service.ask({"key": key}, {"key": other})
    assert [status.code for status in answer.statuses] == [OK, OVER_LIMIT]
    assert answer.overall_code == OVER_LIMIT
    assert service.ask(({"key": key}, 0)).statuses[0].limit_remaining == 5
    assert service.ask({"key": key}, ({"key": other}, 0)).overall_code == OVER_LIMIT
    assert service.ask(({"key": key}, 0)).statuses[0].limit_remaining == 5


def test_descriptors_of_several_keys_are_all_charged_once_and_answered_in_order(service, key):
    keys = [f"{key}_{number}" for number in range(4)]
    descriptors = [({"key": one}, number) for number, one in enumerate(keys)]
    answer = service.ask({"no": "limit"}, *descriptors)
    assert [status.limit_remaining for status in answer.statuses] == [0, 5, 4, 3, 2]
    assert not answer.statuses[0].HasField("current_limit")
    looks = service.ask(*[({"key": one}, 0) for one in keys])
    assert [status.limit_remaining for status in looks.statuses] == [5, 4, 3, 2]
    assert MessageToDict(answer.dynamic_metadata)["reservation"] is None


def test_p7_a_settlement_past_zero_is_ok_and_later_requests_wait_until_it_is_repaid(service, key):
    settled = service.ask(({"key": key, "unit": "tokens", "settle": "true"}, 5000))
    assert (settled.overall_code, settled.statuses[0].code) == (OK, OK)
    assert settled.statuses[0].limit_remaining == 0
    assert settled.statuses[0].duration_until_reset.seconds > 4 * 86_400
    assert service.ask({"key": key}).overall_code == OVER_LIMIT


def test_a_settlement_of_0_changes_nothing(service, key):
    assert service.ask(({"key": key, "unit": "tokens", "settle": "true"}, 0)).overall_code == OK
    assert service.ask(({"key": key, "unit": "tokens"}, 0)).statuses[0].limit_remaining == 1000


def test_plan_and_model_choose_the_limits(service, key):
    assert count_allowed(service, {"key": key, "plan": "models", "model": "opus"}) == 1
    assert count_allowed(service, {"key": key, "plan": "models", "model": "never-heard-of"}) == 2
    assert count_allowed(service, {"key": key, "plan": "paid", "model": ""}) == 3


@pytest.mark.parametrize("secret", [SECRET, f"Bearer {SECRET}", f"bearer  {SECRET} "])
def test_a_known_secret_has_its_own_plan(service, secret):
    answer = service.ask(({"secret": secret, "address": "192.0.2.1"}, 0))
    assert MessageToDict(answer.dynamic_metadata)["plan"] == "paid"
    assert SECRET not in str(answer)


def test_made_up_secrets_share_the_limit_of_their_address(service):
    codes = [
        service.ask({"secret": f"Bearer made-up-{number}", "address": "192.0.2.2"}).overall_code
        for number in range(10)
    ]
    assert codes.count(OK) == 2
    assert service.ask({"address": "192.0.2.2"}).overall_code == OVER_LIMIT
    assert service.ask({"secret": "Basic xyz", "address": "192.0.2.2"}).overall_code == OVER_LIMIT
    assert service.ask({"address": "192.0.2.3"}).overall_code == OK


def test_addresses_of_one_ipv6_network_are_one_client(service):
    addresses = [f"2001:db8::{number:x}" for number in range(1, 6)]
    assert [service.ask({"address": one}).overall_code for one in addresses].count(OK) == 2


def test_a_descriptor_without_a_key_has_no_limit(service):
    answer = service.ask({"generic_key": "x"}, {"plan": "free"}, {})
    assert answer.overall_code == OK
    assert [status.HasField("current_limit") for status in answer.statuses] == [False] * 3
    assert not answer.response_headers_to_add
    assert service.ask().overall_code == OK


def test_uint32_fields_are_clamped(service, key):
    [status] = service.ask({"key": key, "plan": "vast"}).statuses
    assert status.current_limit.requests_per_unit == 2**32 - 1
    assert status.limit_remaining == 2**32 - 1
    assert status.current_limit.unit == LIMIT.SECOND


def test_the_largest_addend_is_a_denial_and_a_debt_and_not_an_error(service, key):
    most = 2**64 - 1
    assert service.ask(({"key": key}, most)).overall_code == OVER_LIMIT
    assert service.ask(({"key": key, "settle": "true"}, most)).overall_code == OK
    assert service.ask({"key": key}).statuses[0].duration_until_reset.seconds > 10**9


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ({"key": ""}, "key"),
        ({"key": "with space"}, "key"),
        ({"key": "x" * 257}, "key"),
        ({"key": "vk_x", "plan": "nobody-has-this"}, "plan"),
        ({"key": "vk_x", "model": "two words"}, "model"),
        ({"key": "vk_x", "unit": "bananas"}, "cost.bananas"),
        ({"key": "vk_x", "settle": "yes"}, "settle"),
        ({"secret": ""}, "address"),
        ({"secret": "made-up"}, "address"),
    ],
)
def test_what_cannot_be_read_is_denied_and_says_why(service, entries, field):
    """A gRPC error would let it pass wherever Envoy lets failures pass."""
    answer = service.ask(entries)
    assert (answer.overall_code, answer.statuses[0].code) == (OVER_LIMIT, OVER_LIMIT)
    problem = json.loads(answer.raw_body)
    assert problem["status"] == 422
    assert field in problem["errors"][0]["field"]


def test_an_entry_given_twice_is_denied(service):
    request = make_request({"key": "vk_mine"})
    request.descriptors[0].entries.add(key="key", value="vk_the_clients")
    answer = service.send(request)
    assert answer.overall_code == OVER_LIMIT
    assert "twice" in json.loads(answer.raw_body)["detail"]


def test_health_is_served_and_reflection_is_not(service):
    health = HealthStub(service.channel)
    for name in ("", "envoy.service.ratelimit.v3.RateLimitService"):
        assert health.Check(HealthCheckRequest(service=name)).status == HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        service.channel.unary_unary("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(b"")
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_gateway_token_is_required_where_one_is_set_and_other_domains_have_no_limit():
    flags = ("--gateway-token", "the-token", "--grpc-domains", "mine, yours", "--redis", "memory://")
    with run_rls_sidecar(*flags, policy=POLICY) as (_, client, _):
        for sent in ({}, {"x_ratelimit_gateway_token": "wrong"}):
            with pytest.raises(grpc.RpcError) as error:
                client.send(make_request({"key": "vk_1"}, domain="mine"), **sent)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        right = {"x_ratelimit_gateway_token": "the-token"}
        for domain in ("mine", "yours"):
            limited = client.send(make_request({"key": "vk_1"}, domain=domain), **right)
            assert limited.statuses[0].HasField("current_limit")
        other = client.send(make_request({"key": "vk_1"}, domain="theirs"), **right)
        assert (other.overall_code, other.statuses[0].HasField("current_limit")) == (OK, False)


def test_p8_without_the_store_each_limits_on_outage_decides_and_a_settlement_is_unavailable(key):
    flags = ("--redis", f"redis://127.0.0.1:{find_free_port()}")
    with run_rls_sidecar(*flags, policy=POLICY) as (_, client, _):
        assert client.ask({"key": key}).overall_code == OK
        denied = client.ask({"key": key, "plan": "strict"})
        assert denied.overall_code == OVER_LIMIT
        assert json.loads(denied.raw_body)["status"] == 503
        with pytest.raises(grpc.RpcError) as error:
            client.ask(({"key": key, "unit": "tokens", "settle": "true"}, 5))
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_http_and_grpc_share_the_buckets(valkey_url, key):
    with run_rls_sidecar("--redis", valkey_url, policy=POLICY) as (sidecar, client, _):
        assert sidecar.check(key).status_code == 200
        assert client.ask({"key": key}).statuses[0].limit_remaining == 3


def test_workers_share_the_port(valkey_url, key):
    flags = ("--workers", "2", "--redis", valkey_url)
    with run_rls_sidecar(*flags, policy=POLICY) as (_, _, port):
        clients = [RateLimitClient(port) for _ in range(8)]
        codes = [client.ask({"key": key}).overall_code for client in clients]
        for client in clients:
            client.channel.close()
    assert codes.count(OK) == 5


def test_a_port_that_is_taken_is_a_clear_error(service, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    with run_rls_sidecar("--redis", "memory://", policy=POLICY) as (_, _, port):
        command = ("serve", "--policy", policy, "--port", "0", "--redis", "memory://", "--grpc-port", port)
        done = run_ratelimit(*map(str, command))
    assert done.returncode != 0
    assert f"cannot listen on 127.0.0.1:{port} for gRPC" in done.stderr
    assert "--grpc-port" in done.stderr


def test_calls_under_way_are_answered_when_the_sidecar_stops(valkey_url, key):
    with run_rls_sidecar("--redis", valkey_url, policy=POLICY) as (sidecar, client, _):
        call = client.channel.unary_unary(METHOD)
        message = make_request({"key": key, "plan": "vast"}).SerializeToString()
        calls = [call.future(message, timeout=20) for _ in range(200)]
        calls[0].result()
        code = sidecar.stop()
        ended = [one.exception() is None or one.code() for one in calls]
    assert code == 0
    assert set(ended) <= {True, grpc.StatusCode.UNAVAILABLE}
    assert ended.count(True) >= 1


def test_concurrent_calls_share_calls_to_the_store(valkey_url, key, open_client):
    store = open_client(valkey_url)
    with run_rls_sidecar("--redis", valkey_url, policy=POLICY) as (_, client, _):
        call = client.channel.unary_unary(METHOD)
        message = make_request({"key": key, "plan": "vast"}).SerializeToString()
        call(message, timeout=20)
        store.config_resetstat()
        for one in [call.future(message, timeout=20) for _ in range(500)]:
            one.result()
        assert store.info("commandstats")["cmdstat_evalsha"]["calls"] < 250


@pytest.mark.parametrize(
    "refused", [{"key": "vk_x", "unit": "bananas"}, {"key": "vk_x", "plan": "nobody"}, {"key": "two words"}]
)
def test_p2_a_settlement_that_is_refused_leaves_the_other_descriptors_uncharged(service, key, refused):
    settle = {"settle": "true"}
    answer = service.ask({"key": key}, ({"key": key, "unit": "tokens"} | settle, 100), refused | settle)
    assert answer.overall_code == OVER_LIMIT
    assert service.ask(({"key": key}, 0)).statuses[0].limit_remaining == 5
    assert service.ask(({"key": key, "unit": "tokens"}, 0)).statuses[0].limit_remaining == 1000


def test_addends_of_one_unit_add_up_to_the_largest_cost_at_most(service, key):
    settle = ({"key": key, "settle": "true"}, 2**64 - 1)
    assert service.ask(settle, settle).overall_code == OK
