"""Reading policy files, and looking up keys and models in a policy."""

import json
from pathlib import Path

import pytest

from ratelimit import Limit, Policy, PolicyError, Rate
from ratelimit.policy.spec import LeaseSpec

ROOT = Path(__file__).parents[2]
WHOLE = """
default_plan: free
models: {xs: [qwen3-4b], l: [qwen3-235b, llama.405b]}
plans:
  anonymous: {limits: {requests: {rate: 5/minute}}}
  free:
    limits:
      requests: {rate: 20/minute, burst: 5}
      requests-daily: {rate: 100/day}
      tokens: {unit: tokens, rate: 30000/minute, on_outage: deny}
  pro:
    limits:
      requests: {per: [key, model], rate: {xs: 500/minute, l: 20/minute, other: 30/minute}}
      model-capacity: {per: [model], unit: tokens, rate: 5000000/minute, mode: shadow}
keys:
  vk_internal_eval: {plan: pro, tenant: acme}
  vk.dotted: {tenant: acme}
"""


@pytest.fixture(scope="module")
def policy():
    return Policy.from_text(WHOLE)


def test_limits_are_in_the_order_of_the_file(policy):
    assert list(policy.plans) == ["anonymous", "free", "pro"]
    assert [limit.name for limit in policy.plans["free"].limits] == ["requests", "requests-daily", "tokens"]


def test_fields_left_out_have_their_defaults(policy):
    [limit] = policy.plans["anonymous"].limits
    assert limit == Limit("requests", "5/minute")
    assert (limit.unit, limit.per, limit.mode) == ("requests", ("key",), "enforce")
    assert (limit.on_outage, limit.charge, limit.burst) == ("allow", "check", None)
    assert limit.shape_of(None).burst == 5


def test_a_burst_is_the_capacity_at_any_rate(policy):
    shape = policy.plans["free"].limits[0].shape_of("xs")
    assert (shape.count, shape.period, shape.burst) == (20, 60e6, 5)


def test_each_class_has_its_rate_and_the_default_burst_is_its_n(policy):
    limit = policy.plans["pro"].limits[0]
    rates = [limit.rate_of(name) for name in ("xs", "l", "other", None)]
    assert [str(rate) for rate in rates] == ["500/minute", "20/minute", "30/minute", "30/minute"]
    assert limit.shape_of("l").burst == 20


def test_a_model_is_of_the_class_that_lists_it_or_of_other(policy):
    models = ("qwen3-4b", "llama.405b", "QWEN3-4B", "not-listed", None)
    assert [policy.class_of(model) for model in models] == ["xs", "l", "other", "other", None]


def test_the_policy_assigns_plans_and_tenants_to_keys(policy):
    assigned = policy.assignment("vk_internal_eval")
    assert (assigned.plan, assigned.tenant) == ("pro", "acme")
    assert policy.assignment("vk.dotted").plan is None
    assert policy.assignment("anyone").tenant is None


def test_units_are_those_that_the_plans_meter(policy):
    assert policy.units == {"requests", "tokens"}


def test_one_plan_needs_no_default():
    assert Policy.from_text("plans: {only: {limits: {}}}").default_plan == "only"


def test_a_policy_reads_back_as_it_was_written(policy):
    again = Policy.from_text(json.dumps(policy.as_dict()))
    assert again.as_dict() == policy.as_dict()
    assert again.plans == policy.plans


def test_a_share_reads_back_too():
    policy = Policy.of(Limit("requests", "100/day", on_outage="local", local_share=0.25))
    again = Policy.from_text(json.dumps(policy.as_dict()))
    assert again.plans == policy.plans


def test_the_same_content_with_other_comments_has_the_same_version(policy):
    assert Policy.from_text(WHOLE + "# a comment\n").version == policy.version
    assert Policy.from_text(WHOLE.replace("20/minute", "21/minute")).version != policy.version


def test_every_example_policy_is_valid():
    for path in (ROOT / "examples" / "policies").glob("*.yaml"):
        assert Policy.from_file(path).source == str(path)


def test_anchors_and_aliases_work():
    policy = Policy.from_text("""
plans:
  one: {limits: {requests: &minute {rate: 5/minute}}}
  two: {limits: {requests: *minute, more: *minute}}
default_plan: one
""")
    assert [limit.name for limit in policy.plans["two"].limits] == ["requests", "more"]


def test_a_merged_anchor_can_be_overridden():
    policy = Policy.from_text("""
plans:
  only:
    limits:
      a: &a {rate: 5/minute, burst: 9}
      b: {<<: *a, burst: 7}
      c:
        rate: 6/minute
        <<: *a
      d: {<<: [*a, {unit: tokens}]}
""")
    limits = {limit.name: limit for limit in policy.plans["only"].limits}
    assert (limits["b"].rate, limits["b"].burst) == (Rate.parse("5/minute"), 7)
    assert (limits["c"].rate, limits["c"].burst) == (Rate.parse("6/minute"), 9)
    assert (limits["d"].unit, limits["d"].burst) == ("tokens", 9)


def test_names_that_yaml_would_read_as_other_types_stay_text():
    policy = Policy.from_text("""
models: {on: [a], 1: [b], 2024-01-01: [c], null: [d], 1_0: [e]}
plans: {yes: {limits: {no: {rate: 1/day}, 007: {rate: 1/day}}}}
keys: {12345: {plan: "yes"}, true: {plan: "yes"}, 1e3: {}, 0x1F: {tenant: "9"}}
""")
    assert set(policy.classes.values()) == {"on", "1", "2024-01-01", "null", "1_0"}
    assert [limit.name for limit in policy.plans["yes"].limits] == ["no", "007"]
    assert set(policy.keys) == {"12345", "true", "1e3", "0x1F"}


def test_a_large_file_is_read():
    keys = "\n".join(f"  vk_{n}: {{plan: only, tenant: t{n % 100}}}" for n in range(3_000))
    policy = Policy.from_text(
        f"plans: {{only: {{limits: {{requests: {{rate: 5/minute}}}}}}}}\nkeys:\n{keys}\n"
    )
    assert len(policy.keys) == 3_000
    assert policy.assignment("vk_2999").tenant == "t99"


def test_a_limit_written_in_python_is_validated_by_the_same_schema():
    for fault in ({"burst": 0}, {"burst": True}, {"unit": "a b"}, {"per": ["team"]}, {"per": ["key", "key"]}):
        with pytest.raises(PolicyError, match=next(iter(fault))):
            Limit("requests", "5/minute", **fault)
    for fault in ({"mode": "off"}, {"on_outage": "panic"}, {"charge": "later"}, {"unit": "concurrent"}):
        with pytest.raises(PolicyError, match=next(iter(fault.values()))):
            Limit("requests", "5/minute", **fault)
    with pytest.raises(PolicyError, match="rate"):
        Limit("requests", "5 a minute")
    with pytest.raises(PolicyError, match="not allowed"):
        Limit("re:quests", "5/minute")


def test_the_schema_shows_the_default_of_a_period_as_text():
    assert LeaseSpec.model_json_schema()["properties"]["ttl"]["default"] == "1s"


def test_rates_by_class_need_the_classes_of_a_policy():
    limit = Limit("requests", {"small": "5/minute", "other": "1/minute"}, per=["key", "model"])
    with pytest.raises(PolicyError, match="model class"):
        Policy.of(limit)


def test_limits_of_one_policy_have_different_names():
    with pytest.raises(PolicyError, match="different names"):
        Policy.of(Limit("a", "1/day"), Limit("a", "2/day"))
    with pytest.raises(PolicyError, match="one or more"):
        Policy.of()


def test_a_policy_and_its_limits_cannot_be_changed(policy):
    with pytest.raises(AttributeError):
        policy.default_plan = "pro"
    with pytest.raises(AttributeError):
        policy.plans["free"].limits[0].burst = 7
