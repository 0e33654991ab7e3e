"""Leases, with clocks of their own: when one is taken, what it decides, and what is returned."""

import itertools

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts.leases import CHECKS_BEFORE_LEASE, MAX_ACTIVE_KEYS, Leases

from ..stored import reply

NOW = 1_700_000_000_000_000  # the store's clock, microseconds
START = 5_000_000_000  # the local clock, nanoseconds
MS = 1_000_000
TTL = 1_000 * MS
SHARE = {"share": 0.1, "ttl": "1s"}
REQUESTS = Limit("requests", "100/day", lease=SHARE)  # a lease holds 10
TOKENS = Limit("tokens", "1000/day", unit="tokens", lease=SHARE)  # 100


def make_resolver(*limits):
    """Return a function that resolves checks under a policy with these limits."""
    resolver = Resolver(Policy.of(*(limits or (REQUESTS,))))

    def resolve(key="k", *, take=True, **fields):
        return resolver.resolve(make_check({"key": key, **fields}), take=take)

    return resolve


def resolve_default_check(*limits):
    """Return a check with the default cost as the cache has it: it is counted instead of subtracted."""
    resolver = Resolver(Policy.of(*limits))
    resolver.resolve(make_check({"key": "k"}), take=True)
    return resolver.find_cached("k", None)


@pytest.fixture
def leases():
    return Leases()


def make_grant(*states):
    """Return the script's reply that admits a lease."""
    return reply(1, NOW, *(states or (0, 0)))


def make_hot(leases, check, now=START):
    """Send as many checks of a key as are possible before a lease is taken for it."""
    assert [leases.plan_lease(check, now) for _ in range(CHECKS_BEFORE_LEASE)] == [None] * CHECKS_BEFORE_LEASE


def take_lease(leases, check, now=START, *states):
    """Take a lease, and return the check that took it."""
    make_hot(leases, check, now)
    wanted = leases.plan_lease(check, now)
    assert leases.add_lease(wanted, make_grant(*states or (0, 0) * len(check.costs)), now, now)
    return wanted


def spend_all(leases, check, now=START):
    return sum(1 for _ in itertools.takewhile(bool, iter(lambda: leases.spend(check, now), 0)))


def pop_unspent(leases, now=None):
    """Return the key and the unspent tokens of each lease that has ended."""
    return [(check.subject.key, check.costs) for check in leases.pop_expired(now)]


def test_p9_a_key_is_leased_once_it_is_hot(leases):
    resolve = make_resolver()
    make_hot(leases, resolve())
    wanted = leases.plan_lease(resolve(), START + TTL)
    assert (wanted.costs, wanted.subject) == ((10.0,), resolve().subject)
    assert leases.spend(resolve(), START) is None


def test_p9_a_key_that_is_asked_for_now_and_then_is_not(leases):
    resolve = make_resolver()
    make_hot(leases, resolve())
    make_hot(leases, resolve(), START + TTL + 1)
    assert leases.plan_lease(resolve("another"), START + TTL + 1) is None


def test_p9_a_check_that_costs_more_than_half_a_share_asks_the_store(leases):
    resolve = make_resolver(REQUESTS, TOKENS)
    for _ in range(3 * CHECKS_BEFORE_LEASE):
        assert leases.plan_lease(resolve(cost={"tokens": 51}), START) is None
        assert leases.plan_lease(resolve(cost={"requests": 5.5}), START) is None
    make_hot(leases, resolve(cost={"tokens": 50}))
    assert leases.plan_lease(resolve(cost={"tokens": 50}), START).costs == (10.0, 100.0)


NOT_PLAIN = [{"timestamp": NOW / 1e6}, {"request_id": "r"}, {"reserve": True}, {"take": False}]


@pytest.mark.parametrize("fields", NOT_PLAIN, ids=lambda fields: next(iter(fields)))
def test_p9_what_needs_the_store_neither_takes_a_lease_nor_spends_one(leases, fields):
    resolve = make_resolver()
    for _ in range(3 * CHECKS_BEFORE_LEASE):
        assert leases.plan_lease(resolve(**fields), START) is None
    take_lease(leases, resolve())
    assert leases.spend(resolve(**fields), START) is None
    assert leases.spend(resolve(), START) is not None


def test_p9_what_was_taken_is_spent_and_no_more(leases):
    resolve = make_resolver()
    take_lease(leases, resolve())
    assert spend_all(leases, resolve()) == 10
    assert leases.spend(resolve(cost={"requests": 0}), START).source == "lease"
    assert pop_unspent(leases) == []


def test_p9_usual_checks_are_spent_like_all_others(leases):
    check = resolve_default_check(REQUESTS)
    other = check.with_costs((2.5,))
    take_lease(leases, check)
    assert [leases.spend(check, START).limits[0].remaining for _ in range(3)] == [99, 98, 97]
    assert leases.spend(other, START).limits[0].remaining == 94  # and a half
    assert leases.plan_lease(check, START).costs == (5.5,)
    assert leases.spend(check, START).limits[0].remaining == 93
    assert spend_all(leases, check) == 3
    assert pop_unspent(leases) == [("k", (0.5,))]


def test_p9_what_another_lease_adds_is_spent_by_usual_checks_too(leases):
    check = resolve_default_check(REQUESTS)
    take_lease(leases, check)
    for _ in range(4):
        assert leases.spend(check, START)
    wanted = leases.plan_lease(check, START)
    assert leases.add_lease(wanted, make_grant(10, NOW), START, START)
    assert leases.spend(check, START).limits[0].remaining == 95
    assert spend_all(leases, check) == 9


def test_p9_usual_checks_that_take_nothing_are_as_many_as_there_are(leases):
    check = resolve_default_check(TOKENS)
    take_lease(leases, check)
    assert [leases.spend(check, START).limits[0].remaining for _ in range(200)] == [1000] * 200
    assert pop_unspent(leases) == [("k", (100.0,))]


def test_p9_several_limits_are_spent_together_or_not_at_all(leases):
    resolve = make_resolver(REQUESTS, TOKENS)
    take_lease(leases, resolve(cost={"tokens": 10}))
    assert leases.spend(resolve(cost={"requests": 1, "tokens": 95}), START)
    assert leases.spend(resolve(cost={"requests": 1, "tokens": 6}), START) is None
    assert leases.spend(resolve(cost={"requests": 10, "tokens": 1}), START) is None
    assert pop_unspent(leases) == [("k", (9.0, 5.0))]


def test_p9_fractions_are_spent_to_the_last_bit_and_not_below(leases):
    resolve = make_resolver()
    take_lease(leases, resolve())
    assert spend_all(leases, resolve(cost={"requests": 2.5})) == 4
    assert leases.spend(resolve(cost={"requests": 1e-9}), START) is None


def test_p9_a_lease_ends_when_its_time_is_over_counted_from_before_it_was_taken(leases):
    resolve = make_resolver()
    make_hot(leases, resolve())
    leases.add_lease(leases.plan_lease(resolve(), START), make_grant(), START, START + 5 * MS)
    assert leases.spend(resolve(), START + TTL - 1)
    assert leases.spend(resolve(), START + TTL) is None
    assert pop_unspent(leases, START + TTL - 1) == []
    assert pop_unspent(leases, START + TTL) == [("k", (9.0,))]
    assert (leases.count, pop_unspent(leases)) == (0, [])


def test_p9_the_shortest_time_of_a_plan_ends_the_lease(leases):
    resolve = make_resolver(REQUESTS, Limit("slow", "100/day", lease={"share": 0.1, "ttl": "3s"}))
    take_lease(leases, resolve())
    assert leases.spend(resolve(), START + TTL) is None


def test_p9_at_the_end_all_that_is_left_of_all_leases_is_given_back(leases):
    resolve = make_resolver(REQUESTS, TOKENS)
    for key in "ab":
        take_lease(leases, resolve(key))
    leases.spend(resolve("a", cost={"tokens": 7.5}), START)
    assert pop_unspent(leases) == [("a", (9.0, 92.5)), ("b", (10.0, 100.0))]
    assert leases.spend(resolve("a"), START) is None


def test_p9_a_renewal_takes_what_is_missing_of_a_share(leases):
    resolve = make_resolver(REQUESTS, TOKENS)
    take_lease(leases, resolve(cost={"tokens": 10}))
    leases.spend(resolve(cost={"requests": 8, "tokens": 40}), START)
    wanted = leases.plan_lease(resolve(cost={"requests": 3}), START + MS)
    assert wanted.costs == (8.0, 40.0)
    leases.spend(resolve(), START + 2 * MS)  # while the call for the renewal is under way
    assert leases.add_lease(wanted, make_grant(10, NOW, 100, NOW), START + MS, START + 3 * MS)
    assert leases.spend(resolve(cost={"requests": 0}), START + MS + TTL - 1)
    assert pop_unspent(leases) == [("k", (9.0, 100.0))]


def test_p9_a_renewal_that_is_late_takes_a_share_at_the_most(leases):
    """If the store answers later than a lease lasts, two may be taken at once: then nothing is missing."""
    resolve = make_resolver()
    make_hot(leases, resolve())
    first = leases.plan_lease(resolve(), START)
    later = START + TTL
    second = leases.plan_lease(resolve(), later)
    for wanted in (first, second):
        assert leases.add_lease(wanted, make_grant(), later, later)
    leases.spend(resolve(cost={"requests": 0.5}), later)
    make_hot(leases, resolve(), later + TTL + 1)
    assert min(leases.plan_lease(resolve(), later + TTL + 1).costs) == 0


def test_p9_a_lease_that_was_refused_is_not_asked_for_again_for_its_time(leases):
    resolve = make_resolver()
    make_hot(leases, resolve())
    wanted = leases.plan_lease(resolve(), START)
    assert not leases.add_lease(wanted, reply(0, NOW, 95, NOW), START, START + MS)
    assert (leases.count, leases.pop_expired()) == (0, [])
    for now in (START + MS, START + TTL // 2, START + TTL - 1):
        assert leases.plan_lease(resolve(), now) is None
    assert leases.plan_lease(resolve(), START + TTL) is not None


def test_p9_nor_is_one_whose_answer_is_still_to_come(leases):
    resolve = make_resolver()
    make_hot(leases, resolve())
    assert leases.plan_lease(resolve(), START) is not None
    assert leases.plan_lease(resolve(), START + TTL - 1) is None


def test_p9_one_that_was_granted_is_renewed_at_once_when_it_is_used_up(leases):
    resolve = make_resolver()
    take_lease(leases, resolve())
    assert spend_all(leases, resolve()) == 10
    assert leases.plan_lease(resolve(), START + MS) is not None


def test_p9_p11_another_policy_does_not_spend_it_and_gets_its_rest_back(leases):
    old, new = make_resolver(), make_resolver(Limit("requests", "50/day", lease=SHARE))
    take_lease(leases, old())
    assert leases.spend(new(), START) is None
    take_lease(leases, new(), START + MS)
    assert spend_all(leases, new(), START + MS) == 5
    assert pop_unspent(leases, START + TTL) == [("k", (10.0,))]


def test_p9_model_classes_of_one_key_have_a_lease_each(leases):
    """Their buckets lie under one store key. Checks of both in turn must not take a lease each time."""
    policy = Policy.from_text(
        "models: {small: [s], large: [l]}\nplans: {p: {limits: {requests: {rate: 100/day, per: [key, model],"
        " lease: {share: 0.1}}}}}"
    )
    resolve = Resolver(policy).resolve
    small, large = (resolve(make_check({"key": "k", "model": model}), take=True) for model in "sl")
    for check in (small, large):
        take_lease(leases, check)
    assert leases.count == 2
    assert [bool(leases.spend(check, START)) for check in (small, large) * 10] == [True] * 20
    assert pop_unspent(leases) == []


def test_p9_what_a_shadow_limit_did_not_give_is_not_given_back_to_it(leases):
    """It denies nothing, and takes nothing where it would have denied. Such checks go to the store."""
    resolve = make_resolver(REQUESTS, Limit("shadow", "100/day", mode="shadow", lease=SHARE))
    make_hot(leases, resolve())
    wanted = leases.plan_lease(resolve(), START)
    leases.add_lease(wanted, make_grant(0, 0, 95, NOW), START, START)
    assert leases.spend(resolve(), START) is None
    assert leases.plan_lease(resolve(), START + TTL - 1) is None
    assert pop_unspent(leases) == [("k", (10.0, 0.0))]


def test_p9_after_a_reset_nothing_is_spent_or_given_back(leases):
    resolve = make_resolver()
    take_lease(leases, resolve())
    take_lease(leases, resolve("another"))
    leases.drop_store_keys(["rl1:{k}:k", "rl1:{k}:t"])
    assert leases.spend(resolve(), START) is None
    assert pop_unspent(leases) == [("another", (10.0,))]


def test_p9_a_reset_gives_back_what_was_taken_from_buckets_that_stay(leases):
    """A key is reset and its tenant is not: the tenant's leased tokens go back to the tenant's bucket."""
    resolve = make_resolver(REQUESTS, Limit("tenant", "100/day", per=["tenant"], lease=SHARE))
    take_lease(leases, resolve(tenant="t"))
    leases.drop_store_keys(["rl1:{t}:k:k"])
    assert leases.spend(resolve(tenant="t"), START) is None
    assert leases.next_end is not None
    assert pop_unspent(leases, START) == [("k", (0.0, 10.0))]


def test_p5_what_is_watched_is_bounded(leases):
    resolve = make_resolver()
    take_lease(leases, resolve("held"))
    for number in range(MAX_ACTIVE_KEYS + 10):
        leases.plan_lease(resolve(f"k{number}"), START)
    assert len(leases._activity) <= MAX_ACTIVE_KEYS
    assert leases.spend(resolve("held"), START)


def test_p9_the_next_lease_to_end_is_known(leases):
    resolve = make_resolver()
    assert leases.next_end is None
    take_lease(leases, resolve("late"), START + MS)
    take_lease(leases, resolve("soon"), START)
    assert leases.next_end == START + TTL
    leases.pop_expired(START + TTL)
    assert leases.next_end == START + MS + TTL
    leases.pop_expired()
    assert leases.next_end is None


def test_p9_a_decision_says_what_the_store_would_with_the_rest_in_the_bucket(leases):
    resolve = make_resolver(Limit("requests", "1/second", burst=100, lease=SHARE), TOKENS)
    take_lease(leases, resolve(), START, 40, NOW, 7, NOW)
    first = leases.spend(resolve(cost={"tokens": 3}), START)
    assert first == read_decision(resolve(cost={"tokens": 3}), reply(1, NOW, 40, NOW, 7, NOW), "lease")
    later = leases.spend(resolve(), START + 500 * MS)
    assert [state.remaining for state in later.limits] == [58, 990]
    assert [state.reset_after for state in later.limits] == pytest.approx([41.5, 86.4 * 10 - 0.5])
    # A decision shows the state at its own time, however late its members are read.
    assert [state.remaining for state in first.limits] == [59, 990]
    assert (first.retry_after, first.violated, first.reservation, first.clamped) == (0.0, (), None, False)
    assert later.timestamp.timestamp() == NOW / 1e6 + 0.5


def test_p9_a_decision_counts_no_refill_twice(leases):
    """Refill during the lease does not lift the bucket above its capacity."""
    resolve = make_resolver(Limit("requests", "10/second", burst=100, lease=SHARE))
    take_lease(leases, resolve())
    [state] = leases.spend(resolve(), START + 900 * MS).limits
    assert (state.remaining, state.reset_after) == (99, pytest.approx(0.1))
