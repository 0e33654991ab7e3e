"""Where state is kept: no two owners ever meet, and all of a tenant lies in one cluster slot."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ratelimit import Limit, Policy
from ratelimit.layout import EVERYONE, hash_of, lay_out

visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=12)
nasty = st.text("{}:*%a2Bk/", min_size=1, max_size=6)
identifiers = nasty | visible | st.sampled_from(["k", "t", "*", "%2A", "{*}", "}:k", "k:t", ":", "rl1:{*}"])
pieces = st.lists(st.sampled_from(["a", "b", "}:k:", ":k:", "}", "{", ":t", "*"]), min_size=1, max_size=3)
pairs = st.tuples(identifiers | pieces.map("".join), identifiers | pieces.map("".join))


def hashes(key, tenant):
    return {"key": hash_of("key", key, tenant), "tenant": hash_of("tenant", key, tenant)}


@given(pairs, pairs)
@example(("a", "b:k:a"), ("b", "b"))
@example(("x:k", "y"), ("y", "x:k"))
@example(("a}:k:x", "y"), ("x", "y}:k:a"))
def test_no_two_owners_share_a_hash(one, other):
    mine, yours = hashes(*one), hashes(*other)
    assert (mine["key"] == yours["key"]) == (one == other)
    assert (mine["tenant"] == yours["tenant"]) == (one[1] == other[1])
    assert mine["key"] != yours["tenant"]
    assert EVERYONE not in {*mine.values(), *yours.values()}


@given(pairs)
def test_all_of_a_tenant_lies_in_one_cluster_slot(pair):
    key, tenant = pair
    assert len({key_slot(name.encode()) for name in hashes(key, tenant).values()}) == 1
    assert all(name.count("{") == name.count("}") == 1 for name in hashes(key, tenant).values())


@given(pairs)
def test_a_hash_says_its_version_and_holds_nothing_that_needs_quoting(pair):
    for name in hashes(*pair).values():
        assert name.startswith("rl1:{")
        assert name.isascii()
        assert not set(name) & set(" *?[]\"'\\\n")


def test_plain_names_stay_readable():
    assert hash_of("key", "vk_9f3", "acme") == "rl1:{acme}:k:vk_9f3"
    assert hash_of("key", "vk_9f3", "vk_9f3") == "rl1:{vk_9f3}:k"
    assert hash_of("tenant", "vk_9f3", "acme") == "rl1:{acme}:t"
    assert hash_of("everyone", "vk_9f3", "acme") == "rl1:{*}"


@pytest.mark.parametrize(
    ("per", "owner", "field"),
    [
        (["key"], "key", "requests"),
        (["key", "model"], "key", "requests:other"),
        (["tenant"], "tenant", "requests"),
        (["tenant", "model"], "tenant", "requests:other"),
        (["key", "tenant"], "key", "requests"),
        (["model"], "everyone", "requests:other"),
        ([], "everyone", "requests"),
    ],
)
def test_a_limits_scope_says_whose_hash_and_which_field(per, owner, field):
    policy = Policy.of(Limit("requests", "1/day", per=per))
    [(found, [slot])] = lay_out(policy, "default", "other").groups
    assert (found, slot.field) == (owner, field)


def test_all_limits_of_one_owner_share_one_hash():
    limits = [Limit(f"limit-{n}", "1/day", per=["tenant"] if n % 2 else ["key"]) for n in range(6)]
    groups = dict(lay_out(Policy.of(*limits), "default", None).groups)
    assert {owner: len(slots) for owner, slots in groups.items()} == {"key": 3, "tenant": 3}
