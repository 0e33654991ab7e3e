"""Where state is kept: no two owners ever meet, and all of a tenant lies in one cluster slot."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ratelimit import Limit, Policy
from ratelimit.engine.layout import EVERYONE, build_layout, owner_key
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
nasty = st.text("{}:*%a2Bk/", min_size=1, max_size=6)
identifiers = nasty | visible | st.sampled_from(["k", "t", "*", "%2A", "{*}", "}:k", "k:t", ":", "rl1:{*}"])
pieces = st.lists(st.sampled_from(["a", "b", "}:k:", ":k:", "}", "{", ":t", "*"]), min_size=1, max_size=3)
pairs = st.tuples(identifiers | pieces.map("".join), identifiers | pieces.map("".join))


def names(key, tenant):
    return {"key": owner_key("key", key, tenant), "tenant": owner_key("tenant", key, tenant)}


@given(pairs, pairs)
@example(("a", "b:k:a"), ("b", "b"))
@example(("x:k", "y"), ("y", "x:k"))
@example(("a}:k:x", "y"), ("x", "y}:k:a"))
def test_no_two_owners_share_a_name(one, other):
    mine, yours = names(*one), names(*other)
    assert (mine["key"] == yours["key"]) == (one == other)
    assert (mine["tenant"] == yours["tenant"]) == (one[1] == other[1])
    assert mine["key"] != yours["tenant"]
    assert EVERYONE not in {*mine.values(), *yours.values()}


@given(pairs)
def test_all_of_a_tenant_lies_in_one_cluster_slot(pair):
    key, tenant = pair
    assert len({key_slot(name.encode()) for name in names(key, tenant).values()}) == 1
    assert all(name.count("{") == name.count("}") == 1 for name in names(key, tenant).values())


@given(pairs)
def test_a_name_says_its_version_and_holds_nothing_that_needs_quoting(pair):
    for name in names(*pair).values():
        assert name.startswith("rl1:{")
        assert name.isascii()
        assert not set(name) & set(" *?[]\"'\\\n")


def test_plain_names_stay_readable():
    assert owner_key("key", "vk_9f3", "acme") == "rl1:{acme}:k:vk_9f3"
    assert owner_key("key", "vk_9f3", "vk_9f3") == "rl1:{vk_9f3}:k"
    assert owner_key("tenant", "vk_9f3", "acme") == "rl1:{acme}:t"
    assert owner_key("everyone", "vk_9f3", "acme") == "rl1:{*}"


@pytest.mark.parametrize(
    ("per", "owner", "file"),
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
def test_a_limits_scope_says_whose_it_is_and_of_which_class(per, owner, file):
    policy = Policy.of(Limit("requests", "1/day", per=per))
    [(found, after, [placed])] = build_layout(policy, "default", "other").groups
    assert (found, after, placed.file) == (owner, file, file)


@pytest.mark.parametrize(
    ("limit", "file"),
    [
        (Limit("parallel", unit="concurrent", capacity=2), "#parallel"),
        (Limit("parallel", unit="concurrent", capacity=2, per=["key", "model"]), "/small#parallel"),
        (Limit("failures", "5/minute", unit="failures"), "!failures"),
        (Limit("failures", "5/minute", unit="failures", per=["key", "model"]), "/small!failures"),
    ],
)
def test_what_is_no_bucket_lies_beside_the_buckets(limit, file):
    layout = build_layout(Policy.of(Limit("requests", "1/day"), limit), "default", "small")
    assert [after for _, after, _ in layout.groups] == ["", file]


def test_all_buckets_of_one_owner_and_class_lie_together():
    limits = [
        Limit(f"limit-{n}", "1/day", per=["tenant"] if n % 2 else ["key", "model"] if n % 3 else ["key"])
        for n in range(6)
    ]
    groups = build_layout(Policy.of(*limits), "default", "small").groups
    found = {
        (owner, file): [placed.limit.name[-1] for placed in placed_limits]
        for owner, file, placed_limits in groups
    }
    assert found == {("key", ""): ["0"], ("key", "/small"): ["2", "4"], ("tenant", ""): ["1", "3", "5"]}


def test_a_usual_check_takes_one_request_and_nothing_else():
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
    assert (
        Resolver(policy).resolve(make_check({"key": "k", "cost": {"requests": 1}}), take=True).costs
        == layout.default_costs
    )
