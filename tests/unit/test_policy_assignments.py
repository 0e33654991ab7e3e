"""`tenants` and `unknown_keys` of the policy file."""

import json

import pytest

from ratelimit import Limit, Policy, PolicyError

POLICY = """default_plan: free
plans:
  anonymous: {limits: {requests: {rate: 5/minute}}}
  free: {limits: {requests: {rate: 20/minute}}}
tenants:
  acme: {plan: free}
  quiet: {}
unknown_keys: anonymous
"""


def test_tenants_and_unknown_keys_are_read():
    policy = Policy.from_text(POLICY)
    assert policy.tenants == {"acme": "free"}
    assert policy.unknown_keys == "anonymous"


def test_unknown_secrets_get_the_default_plan_unless_the_policy_says_otherwise():
    assert Policy.from_text("plans: {free: {limits: {}}}").unknown_keys == "default_plan"
    assert Policy.of(Limit("requests", "5/minute")).unknown_keys == "default_plan"


def test_tenants_and_unknown_keys_survive_being_written():
    policy = Policy.from_text(POLICY)
    again = Policy.from_text(json.dumps(policy.as_dict()))
    assert (again.tenants, again.unknown_keys) == (policy.tenants, policy.unknown_keys)


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "says"),
    [
        ("acme: {plan: free}", "acme: {plan: gold}", 6, "tenants.acme.plan", "anonymous, free"),
        ("acme: {plan: free}", "acme: {paln: free}", 6, "tenants.acme.paln", "did you mean `plan`"),
        ("acme: {plan: free}", "acme: {tenant: b}", 6, "tenants.acme.tenant", "plan"),
        ("acme: {plan: free}", "'a b': {plan: free}", 6, "tenants.a b", "visible ASCII"),
        ("unknown_keys: anonymous", "unknown_keys: allow", 8, "unknown_keys", "'anonymous' or 'deny'"),
        ("  anonymous: {", "  other-plan: {", 8, "unknown_keys", "needs a plan of that name"),
    ],
)
def test_a_fault_is_refused_with_its_line(old, new, line, path, says):
    with pytest.raises(PolicyError) as raised:
        Policy.from_text(POLICY.replace(old, new), source="policy.yaml")
    [fault] = raised.value.faults
    assert (fault.line, fault.path) == (line, path)
    assert says in fault.message
