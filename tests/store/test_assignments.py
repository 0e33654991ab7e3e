"""Assignments to keys and tenants, and which of them decides a key's plan."""

import asyncio

import pytest

from ratelimit import InvalidRequest, Policy

TEXT = """
default_plan: free
plans:
  free: {limits: {requests: {rate: 10/day}}}
  pro: {limits: {requests: {rate: 20/day}}}
  partner: {limits: {requests: {rate: 30/day}}}
  trial: {limits: {requests: {rate: 40/day}}}
keys:
  vk_plain: {tenant: acme}
  vk_own: {plan: trial, tenant: acme}
tenants:
  acme: {plan: pro}
  vk_alone: {plan: partner}
"""
POLICY = Policy.from_text(TEXT)
LARGER_PARTNER = TEXT.replace("30/day", "31/day")


@pytest.fixture
def limits(make_limiter):
    return make_limiter(POLICY)


def find_plan(limits, key, **options):
    return limits.peek(key, **options).plan


def test_the_plan_comes_from_the_request_the_key_the_tenant_or_the_default(limits):
    assert find_plan(limits, "vk_stranger") == "free"
    assert find_plan(limits, "vk_plain") == "pro"
    assert find_plan(limits, "vk_own") == "trial"
    assert find_plan(limits, "vk_own", plan="free") == "free"
    assert find_plan(limits, "vk_stranger", tenant="acme") == "pro"
    assert find_plan(limits, "vk_plain", tenant="another") == "free"
    assert find_plan(limits, "vk_alone") == "partner"  # a key without a tenant is its own


def test_an_assignment_to_a_tenant_goes_before_the_policys(limits):
    limits.assign_tenant("acme", plan="partner")
    assert find_plan(limits, "vk_plain") == "partner"
    assert find_plan(limits, "vk_own") == "trial"
    limits.assign("vk_plain", plan="free", tenant="acme")
    assert find_plan(limits, "vk_plain") == "free"
    limits.assign("vk_plain")
    limits.assign_tenant("acme")
    assert find_plan(limits, "vk_plain") == "pro"


def test_an_assigned_tenant_brings_its_plan(limits):
    limits.assign("vk_stranger", tenant="acme")
    assert find_plan(limits, "vk_stranger") == "pro"
    limits.assign_tenant("acme", plan="partner")
    assert find_plan(limits, "vk_stranger") == "partner"


def test_an_assigned_plan_that_the_policy_no_longer_has_is_passed_over(limits):
    limits.assign_tenant("acme", plan="partner")
    limits.policy = Policy.from_text("plans: {free: {limits: {requests: {rate: 10/day}}}}")
    assert find_plan(limits, "vk_plain", tenant="acme") == "free"


def test_p7_a_settlement_without_a_reservation_is_charged_to_the_plan_of_the_tenant(limits):
    limits.settle({"key": "vk_stranger", "tenant": "acme", "cost": {"requests": 3}})
    assert limits.peek("vk_stranger", tenant="acme").limits[0].remaining == 17


def test_p7_what_a_key_has_used_is_charged_to_the_tenant_it_was_assigned_to(limits):
    limits.assign("vk_stranger", tenant="acme")
    limits.settle({"key": "vk_stranger", "cost": {"requests": 3}})
    state = limits.peek("vk_stranger", tenant="acme")
    assert (state.plan, state.limits[0].remaining) == ("pro", 17)


def test_p11_what_was_used_stays_when_a_tenant_changes_plan(limits):
    limits.check("vk_plain", cost={"requests": 4})
    limits.assign_tenant("acme", plan="partner")
    assert limits.peek("vk_plain").limits[0].remaining == 26


def test_p11_an_edit_of_the_policy_keeps_what_was_assigned(limits):
    limits.assign_tenant("acme", plan="partner")
    limits.assign("vk_blocked", blocked=True)
    limits.policy = Policy.from_text(LARGER_PARTNER)
    assert (find_plan(limits, "vk_plain"), limits.peek("vk_plain").limits[0].limit) == ("partner", 31)
    assert not limits.check("vk_blocked")


def test_another_limiter_sees_assignments_at_its_next_refresh(make_limiter):
    writer, reader = make_limiter(POLICY), make_limiter(POLICY)
    assert not reader.has_read_assignments
    reader.refresh()
    assert reader.has_read_assignments
    writer.assign_tenant("acme", plan="partner")
    assert find_plan(reader, "vk_plain") == "pro"
    reader.refresh()
    assert find_plan(reader, "vk_plain") == "partner"


def test_a_key_is_known_when_the_policy_or_an_assignment_names_it(limits):
    assert [limits.is_known(key) for key in ("vk_plain", "vk_stranger", "vk_alone")] == [True, False, False]
    limits.assign("vk_stranger", plan="free")
    assert limits.is_known("vk_stranger")
    limits.assign("vk_stranger")
    assert not limits.is_known("vk_stranger")


@pytest.mark.parametrize("stored", ["{}", "[]", "5", "not JSON", '{"plan": 5}', '{"plan": null}', "\xff"])
def test_an_assignment_that_cannot_be_read_assigns_nothing(limits, client, stored):
    for store_key in ("rl1:keys", "rl1:tenants"):
        client.hset(store_key, "vk_odd", stored)
    client.incr("rl1:keys@")
    limits.refresh()
    assert find_plan(limits, "vk_odd") == "free"


def test_fields_of_a_newer_version_are_passed_over(limits, client):
    client.hset("rl1:tenants", "acme", '{"plan": "partner", "colour": "red"}')
    client.incr("rl1:keys@")
    limits.refresh()
    assert find_plan(limits, "vk_plain") == "partner"


@pytest.mark.parametrize(
    ("tenant", "plan"), [("", "pro"), ("a b", "pro"), ("x" * 257, "pro"), (None, "pro"), ("acme", "gold")]
)
def test_a_wrong_assignment_stores_nothing(limits, client, tenant, plan):
    with pytest.raises(InvalidRequest):
        limits.assign_tenant(tenant, plan=plan)
    assert not client.exists("rl1:tenants")


def test_an_asyncio_limiter_assigns_to_tenants_alike(make_async_limiter):
    async def assign_and_peek():
        async with make_async_limiter(POLICY) as limits:
            await limits.assign_tenant("acme", plan="partner")
            plan = (await limits.peek("vk_plain")).plan
            await limits.assign_tenant("acme")
            return plan, (await limits.peek("vk_plain")).plan, limits.is_known("vk_plain")

    assert asyncio.run(assign_and_peek()) == ("partner", "pro", True)
