"""Checks in two parts: together they say what one call would have said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import compute_checksum, read_decision, split_replies, unpack_time
from ratelimit.engine.keyspace import SHARDS, Keyspace
from ratelimit.engine.parts import merge_replies, must_refund, plan_shared, split_check
from ratelimit.engine.resolver import Resolver
from ratelimit.engine.simulation import SimulatedBuckets
from ratelimit.request.check import make_check

BASE = 1_700_000_000
POLICY = Policy.of(
    Limit("everyone", "5/minute", per=[]),
    Limit("mine", "3/minute"),
    Limit("model", "4/minute", per=["model"], mode="shadow"),
    Limit("ours", "4/minute", per=["tenant"]),
)
RESOLVER = Resolver(POLICY, keyspace=Keyspace(SHARDS))


def resolve(key="k", cost=1, second=0, **fields):
    check = {"key": key, "cost": {"requests": cost}, "timestamp": BASE + second, "model": "m", **fields}
    return RESOLVER.resolve(make_check(check), take=True)


def decide_in_parts(check, own_buckets, shared_buckets):
    parts = split_check(check)
    [own] = own_buckets.decide([parts.own], now=BASE * 1_000_000, max_skew=None)
    [shared] = shared_buckets.decide([plan_shared(parts, own)], now=BASE * 1_000_000, max_skew=None)
    return parts, own, shared


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 90)), max_size=12))
def test_p1_p2_the_parts_decide_as_the_whole_if_refunds_are_exact(steps):
    whole, own_buckets, shared_buckets = SimulatedBuckets(), SimulatedBuckets(), SimulatedBuckets()
    for key, cost, second in steps:
        check = resolve(key, cost, second)
        before = dict(own_buckets.buckets)
        parts, own, shared = decide_in_parts(check, own_buckets, shared_buckets)
        [expected] = whole.decide([check], now=BASE * 1_000_000, max_skew=None)
        if must_refund(parts, own, shared):
            own_buckets.buckets.clear()
            own_buckets.buckets.update(before)
        assert merge_replies(check, parts, own, shared) == expected


def test_p6_only_what_this_call_has_taken_is_given_back():
    parts = split_check(resolve(request_id="r"))
    denied = b"0" + bytes(40)
    assert must_refund(parts, b"1" + bytes(40), denied)
    # An earlier check with the same request id has paid: it gives that back itself, if it has to.
    assert not must_refund(parts, b"again - 12345678 1" + bytes(40), denied)
    assert not must_refund(parts, denied, denied)


def test_a_check_of_the_tenants_own_limits_has_no_parts():
    resolver = Resolver(Policy.of(Limit("mine", "3/minute")), keyspace=Keyspace(SHARDS))
    assert split_check(resolver.resolve(make_check({"key": "k"}), take=True)) is None


def test_each_part_lies_in_one_slot_and_has_its_own_record():
    parts = split_check(resolve(tenant="acme", reserve=True, request_id="r"))
    assert {key.partition("}")[0] for key in parts.shared.subject.store_keys} == {"rl1:{*"}
    assert parts.shared.record_store_key.startswith("rl1:{*}:acme:R:")
    assert parts.shared.answer_store_key == "rl1:{*}:acme:q:k:r"
    assert len({key.partition("}")[0] for key in parts.own.subject.store_keys}) == 1
    assert parts.own.subject.prefix.endswith("}:acme")


@pytest.mark.parametrize(
    ("fields", "needed"), [({}, False), ({"reserve": True}, True), ({"request_id": "r"}, True)]
)
def test_without_limits_of_its_own_a_part_is_sent_only_to_be_remembered(fields, needed):
    resolver = Resolver(Policy.of(Limit("everyone", "3/minute", per=[])), keyspace=Keyspace(SHARDS))
    parts = split_check(resolver.resolve(make_check({"key": "k", **fields}), take=True))
    assert parts.needs_own == needed


def test_the_shared_part_only_looks_when_the_first_denies():
    check = resolve(cost=4)
    parts, own, _ = decide_in_parts(check, SimulatedBuckets(), SimulatedBuckets())
    planned = plan_shared(parts, own)
    assert not planned.take
    assert planned.timestamp == unpack_time(own) == BASE * 1_000_000


def test_a_remembered_answer_keeps_its_reservation_and_is_not_given_back():
    check = resolve(reserve=True, request_id="r")
    parts, own, shared = decide_in_parts(check, SimulatedBuckets(), SimulatedBuckets())
    remembered = f"again first {compute_checksum(parts.own)} ".encode() + own
    assert plan_shared(parts, remembered).reservation == "first"
    merged = merge_replies(check, parts, remembered, shared)
    decision = read_decision(check, merged)
    assert (decision.allowed, decision.reservation, len(decision.limits)) == (True, "first", 4)
    denied = b"0" + shared[1:]
    assert not must_refund(parts, remembered, denied)
    assert must_refund(parts, own, denied)
    other = b"again first 00000000 " + own
    assert read_decision(check, merge_replies(check, parts, other, shared)).limits == ()


@pytest.mark.parametrize(
    ("reply", "replies"),
    [
        (b"1ab", [b"1ab"]),
        (b"3|1ab0cd", [b"1ab", b"0cd"]),
        (b"11|1aaaaaaaaa|0|cccccccc|", [b"1aaaaaaaaa|", b"0|cccccccc|"]),
        ([b"1ab", b"0"], [b"1ab", b"0"]),
    ],
)
def test_the_replies_of_a_call_are_told_apart(reply, replies):
    assert split_replies(reply, len(replies)) == replies
