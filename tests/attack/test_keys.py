"""Look-alike keys: no key, tenant, plan or model can be written so that it meets another one's state."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from ratelimit import Policy
from ratelimit.engine.keyspace import EVERYONE, ONE_SERVER, SHARDS, Keyspace
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check

POLICY = Policy.from_text("""
default_plan: a
models: {k: [k, "*"], t: [t, "k:t", "{*}"]}
plans:
  a: &limits
    limits:
      k: {rate: 1/day}
      t: {rate: 1/day, per: [tenant]}
      m: {rate: {k: 1/day, t: 1/day, other: 1/day}, per: [key, model]}
      n: {rate: {k: 1/day, t: 1/day, other: 1/day}, per: [tenant, model]}
      f: {unit: failures, rate: 1/day, block: 1h}
      s: {unit: concurrent, capacity: 1, ttl: 1h, per: [tenant]}
      all: {rate: 1/day, per: []}
  k: *limits
""")
ESCAPES = "% %25 %2A %3A %7B %00 { } {*} }: : :k :k: :t / /k !f #s *"
pieces = st.sampled_from([*ESCAPES.split(), "rl1:", "R:", "q:", "a", "A", "k", "t", "usage", "keys", "@"])
names = st.lists(pieces, min_size=1, max_size=4).map("".join)
plans, models = st.sampled_from(["a", "k"]), st.sampled_from([None, "k", "t", "k:t", "{*}", "other"])
subjects = st.tuples(names, names, plans, models)
keyspaces = st.sampled_from([ONE_SERVER, Keyspace(SHARDS)])

LOOK_ALIKES = r"""
a A %61 %2561 a%00 a%20 {a} {a a} }a{ a:k a:t k:a a/k a!f a#s * %2A {*} rl1:{a}:k a:R:x a:q::x a. a.. a\ a\n
a\x00 a" a' a, a| a; a= a&b a? [a] a* -a -- $a a~ `a` a@ rl1 usage rl1:usage keys top 0 00 -1 1e3 null None
"""
LOOK_ALIKE_KEYS = [*LOOK_ALIKES.split(), "a" * 255, "a" * 256]


def resolve(keyspace, subject):
    key, tenant, plan, model = subject
    fields = {"key": key, "tenant": tenant, "plan": plan, "model": model, "request_id": "r", "reserve": True}
    return Resolver(POLICY, keyspace=keyspace).resolve(make_check(fields), take=True)


def list_store_keys(check):
    """Return the store keys of a check by whom they belong to: the key, the tenant, and everyone."""
    owned = {"key": {check.answer_store_key}, "tenant": {check.record_store_key}, "everyone": set()}
    for store_key, (owner, _, _) in zip(check.subject.store_keys, check.subject.layout.groups, strict=True):
        owned[owner].add(store_key)
    return owned


@given(keyspaces, subjects, subjects)
@example(ONE_SERVER, ("a", "b:k:a", "a", None), ("b", "b", "a", None))
@example(ONE_SERVER, ("x", "a", "a", "k"), ("x/k", "a", "a", None))
@example(ONE_SERVER, ("x!f", "a", "a", None), ("x", "a", "a", None))
@example(Keyspace(SHARDS), ("a", "%2A", "a", None), ("a", "*", "a", None))
def test_only_the_same_key_of_the_same_tenant_has_the_same_state(keyspace, one, other):
    checks = resolve(keyspace, one), resolve(keyspace, other)
    (of_key, of_tenant, of_everyone), others = (tuple(list_store_keys(check).values()) for check in checks)
    if one[:2] != other[:2]:
        assert not of_key & others[0]
    if one[1] != other[1]:
        assert not of_tenant & others[1]
    assert of_everyone == others[2] == {EVERYONE}
    kinds = [of_key | others[0], of_tenant | others[1], of_everyone]
    assert not any(first & second for first, second in itertools.combinations(kinds, 2))
    # Plans share what has the same name, and classes of models what is not limited by model.
    classes = {check.subject.model_class or "other" for check in checks}
    assert len(classes) == 1 or of_key != others[0]


@given(keyspaces, subjects)
def test_the_cluster_slot_follows_the_tenant_and_nothing_else(keyspace, subject):
    check = resolve(keyspace, subject)
    owned = list_store_keys(check)
    slots = {key_slot(store_key.encode()) for store_key in owned["key"] | owned["tenant"]}
    assert len(slots) == 1
    neighbour = list_store_keys(resolve(keyspace, ("}{", *subject[1:])))
    assert {key_slot(store_key.encode()) for store_key in neighbour["key"]} == slots
    for store_key in owned["key"] | owned["tenant"]:
        assert store_key.count("{") == store_key.count("}") == 1


def test_each_of_the_look_alikes_has_a_bucket_of_its_own(sidecar, store):
    for key in LOOK_ALIKE_KEYS:
        limits = sidecar.check(key, cost={"tokens": 7}).json()["limits"]
        assert [limit["remaining"] for limit in limits[:2]] == [4, 993], key
    assert len(store.keys("rl1:{*}:k")) == len(LOOK_ALIKE_KEYS)
    print(f"look-alike keys: {len(LOOK_ALIKE_KEYS)}, each with a bucket of its own")  # noqa: T201 - the figures of the run


def test_a_tenant_with_the_name_of_a_key_does_not_share_its_bucket(sidecar):
    for tenant, key in itertools.product(["a", "a:k", "a:k:b", "{a}"], ["b", "k:b", "a", "b/k"]):
        name = f"{tenant}~t", f"{key}~t"
        limits = sidecar.check(name[1], tenant=name[0]).json()["limits"]
        assert limits[0]["remaining"] == 4, name


def test_a_letter_that_looks_like_another_is_refused(sidecar, read_state):
    before = read_state()
    for key in [
        "vk_\u0430",
        "vk_\uff41",
        "vk_a\u0301",
        "vk_a\u200b",
        "\u202evk_a",
        "vk_a\u00a0",
        "vk_a\x00",
        "vk_a ",
    ]:
        assert sidecar.check(key).status_code == 422
        assert sidecar.check("vk_a", tenant=key).status_code == 422
        assert sidecar.check("vk_a", model=key).status_code == 422
    assert read_state() == before
