"""Where state is kept: no two owners share a store key, and a tenant's state is in one cluster slot."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ratelimit import Limit, Policy
from ratelimit.engine.keyspace import EVERYONE, ONE_SERVER, SHARDS, Keyspace, make_owner_store_key
from ratelimit.engine.layout import build_layout
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
special = st.text("{}:*%a2Bk/", min_size=1, max_size=6)
identifiers = special | visible | st.sampled_from(["k", "t", "*", "%2A", "{*}", "}:k", "k:t", ":", "rl1:{*}"])
pieces = st.lists(st.sampled_from(["a", "b", "}:k:", ":k:", "}", "{", ":t", "*"]), min_size=1, max_size=3)
pairs = st.tuples(identifiers | pieces.map("".join), identifiers | pieces.map("".join))


keyspaces = st.sampled_from([ONE_SERVER, Keyspace(SHARDS)])


def make_store_keys(keyspace, key, tenant):
    prefix = keyspace.make_prefix(tenant)
    return {owner: make_owner_store_key(owner, prefix, key, tenant) for owner in ("key", "tenant")}


@given(keyspaces, pairs, pairs)
@example(ONE_SERVER, ("a", "b:k:a"), ("b", "b"))
@example(ONE_SERVER, ("x:k", "y"), ("y", "x:k"))
@example(ONE_SERVER, ("a}:k:x", "y"), ("x", "y}:k:a"))
def test_p1_no_two_owners_share_a_store_key(keyspace, pair, other_pair):
    store_keys, other_store_keys = make_store_keys(keyspace, *pair), make_store_keys(keyspace, *other_pair)
    assert (store_keys["key"] == other_store_keys["key"]) == (pair == other_pair)
    assert (store_keys["tenant"] == other_store_keys["tenant"]) == (pair[1] == other_pair[1])
    assert store_keys["key"] != other_store_keys["tenant"]
    assert EVERYONE not in {*store_keys.values(), *other_store_keys.values()}


@given(keyspaces, pairs)
def test_all_state_of_a_tenant_is_in_one_cluster_slot(keyspace, pair):
    store_keys = make_store_keys(keyspace, *pair).values()
    assert len({key_slot(store_key.encode()) for store_key in store_keys}) == 1
    assert all(store_key.count("{") == store_key.count("}") == 1 for store_key in store_keys)


@given(keyspaces, pairs)
def test_a_store_key_begins_with_its_version_and_needs_no_quoting(keyspace, pair):
    for store_key in make_store_keys(keyspace, *pair).values():
        assert store_key.startswith("rl1:{")
        assert store_key.isascii()
        assert not set(store_key) & set(" *?[]\"'\\\n")


def test_plain_identifiers_stay_readable():
    assert make_store_keys(ONE_SERVER, "vk_9f3", "acme") == {
        "key": "rl1:{acme}:k:vk_9f3",
        "tenant": "rl1:{acme}:t",
    }
    assert make_store_keys(ONE_SERVER, "vk_9f3", "vk_9f3")["key"] == "rl1:{vk_9f3}:k"
    assert make_owner_store_key("everyone", "rl1:{acme}", "vk_9f3", "acme") == "rl1:{*}"


@pytest.mark.parametrize(
    ("per", "owner", "suffix"),
    [
        (["key"], "key", ""),
        (["key", "model"], "key", "/other"),
        (["tenant"], "tenant", ""),
        (["tenant", "model"], "tenant", "/other"),
        (["key", "tenant"], "key", ""),
        (["model"], "everyone", "/other"),
        ([], "everyone", ""),
    ],
)
def test_a_scope_gives_the_owner_and_the_model_class(per, owner, suffix):
    policy = Policy.of(Limit("requests", "1/day", per=per))
    [(group_owner, group_suffix, [placed])] = build_layout(policy, "default", "other").groups
    assert (group_owner, group_suffix, placed.suffix) == (owner, suffix, suffix)


@pytest.mark.parametrize(
    ("limit", "suffix"),
    [
        (Limit("parallel", unit="concurrent", capacity=2), "#parallel"),
        (Limit("parallel", unit="concurrent", capacity=2, per=["key", "model"]), "/small#parallel"),
        (Limit("failures", "5/minute", unit="failures"), "!failures"),
        (Limit("failures", "5/minute", unit="failures", per=["key", "model"]), "/small!failures"),
    ],
)
def test_slots_and_failures_have_a_store_key_of_their_own(limit, suffix):
    layout = build_layout(Policy.of(Limit("requests", "1/day"), limit), "default", "small")
    assert [group_suffix for _, group_suffix, _ in layout.groups] == ["", suffix]


def test_all_buckets_of_one_owner_and_class_share_a_store_key():
    limits = [
        Limit(f"limit-{n}", "1/day", per=["tenant"] if n % 2 else ["key", "model"] if n % 3 else ["key"])
        for n in range(6)
    ]
    groups = build_layout(Policy.of(*limits), "default", "small").groups
    numbers = {
        (owner, suffix): [placed.limit.name[-1] for placed in placed_limits]
        for owner, suffix, placed_limits in groups
    }
    assert numbers == {("key", ""): ["0"], ("key", "/small"): ["2", "4"], ("tenant", ""): ["1", "3", "5"]}


def test_a_default_check_takes_one_request_and_nothing_else():
    policy = Policy.of(
        Limit("tokens", "9/day", unit="tokens"),
        Limit("requests", "9/day"),
        Limit("paid", "9/day", charge="settle"),
        Limit("parallel", unit="concurrent", capacity=2),
        Limit("failures", "9/day", unit="failures"),
        Limit("shadow", "9/day", mode="shadow"),
    )
    layout = build_layout(policy, "default", None)
    costs = {
        placed.limit.name: cost
        for placed, cost in zip(layout.placed_limits, layout.default_costs, strict=True)
    }
    assert costs == {"tokens": 0, "requests": 1, "paid": 0, "parallel": 0, "failures": 0, "shadow": 1}
    check = make_check({"key": "k", "cost": {"requests": 1}})
    assert Resolver(policy).resolve(check, take=True).costs == layout.default_costs
