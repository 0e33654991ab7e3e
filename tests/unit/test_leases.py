"""Leases, with clocks of their own: when one is taken, what it decides, and what goes back."""

import itertools

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts.leases import HOT, MOST, Leases

from ..stored import reply

NOW = 1_700_000_000_000_000  # the store's clock, microseconds
START = 5_000_000_000  # ours, nanoseconds
MS = 1_000_000
TTL = 1_000 * MS
SHARE = {"share": 0.1, "ttl": "1s"}
REQUESTS = Limit("requests", "100/day", lease=SHARE)  # a lease holds 10
TOKENS = Limit("tokens", "1000/day", unit="tokens", lease=SHARE)  # 100


def resolver(*limits):
    ask = Resolver(Policy.of(*(limits or (REQUESTS,)))).resolve

    def check(key="k", *, take=True, **fields):
        return ask(make_check({"key": key, **fields}), take=take)

    return check


def default_costs(*limits):
    """Return what a key asks when it asks again, which is counted instead of subtracted."""
    asks = Resolver(Policy.of(*limits))
    asks.resolve(make_check({"key": "k"}), take=True)
    return asks.find_cached("k", None)


@pytest.fixture
def leases():
    return Leases()


def granted(*states):
    return reply(1, NOW, *(states or (0, 0)))


def heat(leases, check, now=START):
    """Ask as often as a key may before it counts as hot."""
    assert [leases.plan_lease(check, now) for _ in range(HOT)] == [None] * HOT


def hold(leases, check, now=START, *states):
    """Take a lease and return the check that took it."""
    heat(leases, check, now)
    wanted = leases.plan_lease(check, now)
    assert leases.add_lease(wanted, granted(*states or (0, 0) * len(check.costs)), now, now)
    return wanted


def spend_all(leases, check, now=START):
    return sum(1 for _ in itertools.takewhile(bool, iter(lambda: leases.spend(check, now), 0)))


def given_back(leases, now=None):
    return [(check.subject.key, check.costs) for check in leases.pop_expired(now)]


def test_p9_a_key_is_leased_once_it_is_hot(leases):
    ask = resolver()
    heat(leases, ask())
    wanted = leases.plan_lease(ask(), START + TTL)
    assert (wanted.costs, wanted.subject) == ((10.0,), ask().subject)
    assert leases.spend(ask(), START) is None


def test_p9_a_key_that_is_asked_for_now_and_then_is_not(leases):
    ask = resolver()
    heat(leases, ask())
    heat(leases, ask(), START + TTL + 1)
    assert leases.plan_lease(ask("another"), START + TTL + 1) is None


def test_p9_a_check_that_costs_more_than_half_a_share_asks_the_store(leases):
    ask = resolver(REQUESTS, TOKENS)
    for _ in range(3 * HOT):
        assert leases.plan_lease(ask(cost={"tokens": 51}), START) is None
        assert leases.plan_lease(ask(cost={"requests": 5.5}), START) is None
    heat(leases, ask(cost={"tokens": 50}))
    assert leases.plan_lease(ask(cost={"tokens": 50}), START).costs == (10.0, 100.0)


PLAIN_NOT = [{"timestamp": NOW / 1e6}, {"request_id": "r"}, {"reserve": True}, {"take": False}]


@pytest.mark.parametrize("fields", PLAIN_NOT, ids=lambda fields: next(iter(fields)))
def test_p9_what_needs_the_store_neither_takes_a_lease_nor_spends_one(leases, fields):
    ask = resolver()
    for _ in range(3 * HOT):
        assert leases.plan_lease(ask(**fields), START) is None
    hold(leases, ask())
    assert leases.spend(ask(**fields), START) is None
    assert leases.spend(ask(), START) is not None


def test_p9_what_was_taken_is_spent_and_no_more(leases):
    ask = resolver()
    hold(leases, ask())
    assert spend_all(leases, ask()) == 10
    assert leases.spend(ask(cost={"requests": 0}), START).source == "lease"
    assert given_back(leases) == []


def test_p9_usual_checks_are_spent_like_all_others(leases):
    check = default_costs(REQUESTS)
    other = check.with_costs((2.5,))
    hold(leases, check)
    assert [leases.spend(check, START).limits[0].remaining for _ in range(3)] == [99, 98, 97]
    assert leases.spend(other, START).limits[0].remaining == 94  # and a half
    assert leases.plan_lease(check, START).costs == (5.5,)
    assert leases.spend(check, START).limits[0].remaining == 93
    assert spend_all(leases, check) == 3
    assert given_back(leases) == [("k", (0.5,))]


def test_p9_what_another_lease_adds_is_spent_by_usual_checks_too(leases):
    check = default_costs(REQUESTS)
    hold(leases, check)
    for _ in range(4):
        assert leases.spend(check, START)
    wanted = leases.plan_lease(check, START)
    assert leases.add_lease(wanted, granted(10, NOW), START, START)
    assert leases.spend(check, START).limits[0].remaining == 95
    assert spend_all(leases, check) == 9


def test_p9_usual_checks_that_take_nothing_are_as_many_as_there_are(leases):
    check = default_costs(TOKENS)
    hold(leases, check)
    assert [leases.spend(check, START).limits[0].remaining for _ in range(200)] == [1000] * 200
    assert given_back(leases) == [("k", (100.0,))]


def test_p9_several_limits_are_spent_together_or_not_at_all(leases):
    ask = resolver(REQUESTS, TOKENS)
    hold(leases, ask(cost={"tokens": 10}))
    assert leases.spend(ask(cost={"requests": 1, "tokens": 95}), START)
    assert leases.spend(ask(cost={"requests": 1, "tokens": 6}), START) is None
    assert leases.spend(ask(cost={"requests": 10, "tokens": 1}), START) is None
    assert given_back(leases) == [("k", (9.0, 5.0))]


def test_p9_fractions_are_spent_to_the_last_bit_and_not_below(leases):
    ask = resolver()
    hold(leases, ask())
    assert spend_all(leases, ask(cost={"requests": 2.5})) == 4
    assert leases.spend(ask(cost={"requests": 1e-9}), START) is None


def test_p9_a_lease_ends_when_its_time_is_over_counted_from_before_it_was_taken(leases):
    ask = resolver()
    heat(leases, ask())
    leases.add_lease(leases.plan_lease(ask(), START), granted(), START, START + 5 * MS)
    assert leases.spend(ask(), START + TTL - 1)
    assert leases.spend(ask(), START + TTL) is None
    assert given_back(leases, START + TTL - 1) == []
    assert given_back(leases, START + TTL) == [("k", (9.0,))]
    assert (leases.held, given_back(leases)) == (0, [])


def test_p9_the_shortest_time_of_a_plan_ends_the_lease(leases):
    ask = resolver(REQUESTS, Limit("slow", "100/day", lease={"share": 0.1, "ttl": "3s"}))
    hold(leases, ask())
    assert leases.spend(ask(), START + TTL) is None


def test_p9_at_the_end_all_that_is_left_of_all_leases_is_given_back(leases):
    ask = resolver(REQUESTS, TOKENS)
    for key in "ab":
        hold(leases, ask(key))
    leases.spend(ask("a", cost={"tokens": 7.5}), START)
    assert given_back(leases) == [("a", (9.0, 92.5)), ("b", (10.0, 100.0))]
    assert leases.spend(ask("a"), START) is None


def test_p9_a_renewal_takes_what_is_missing_of_a_share(leases):
    ask = resolver(REQUESTS, TOKENS)
    hold(leases, ask(cost={"tokens": 10}))
    leases.spend(ask(cost={"requests": 8, "tokens": 40}), START)
    wanted = leases.plan_lease(ask(cost={"requests": 3}), START + MS)
    assert wanted.costs == (8.0, 40.0)
    leases.spend(ask(), START + 2 * MS)  # while the renewal is under way
    assert leases.add_lease(wanted, granted(10, NOW, 100, NOW), START + MS, START + 3 * MS)
    assert leases.spend(ask(cost={"requests": 0}), START + MS + TTL - 1)
    assert given_back(leases) == [("k", (9.0, 100.0))]


def test_p9_a_renewal_that_is_late_takes_a_share_at_the_most(leases):
    """Two at once, where the store is slower than a lease is long: the second finds nothing missing."""
    ask = resolver()
    heat(leases, ask())
    first = leases.plan_lease(ask(), START)
    later = START + TTL
    second = leases.plan_lease(ask(), later)
    for wanted in (first, second):
        assert leases.add_lease(wanted, granted(), later, later)
    leases.spend(ask(cost={"requests": 0.5}), later)
    heat(leases, ask(), later + TTL + 1)
    assert min(leases.plan_lease(ask(), later + TTL + 1).costs) == 0


def test_p9_a_lease_that_was_refused_is_not_asked_for_again_for_its_time(leases):
    ask = resolver()
    heat(leases, ask())
    wanted = leases.plan_lease(ask(), START)
    assert not leases.add_lease(wanted, reply(0, NOW, 95, NOW), START, START + MS)
    assert (leases.held, leases.pop_expired()) == (0, [])
    for now in (START + MS, START + TTL // 2, START + TTL - 1):
        assert leases.plan_lease(ask(), now) is None
    assert leases.plan_lease(ask(), START + TTL) is not None


def test_p9_nor_is_one_whose_answer_is_still_to_come(leases):
    ask = resolver()
    heat(leases, ask())
    assert leases.plan_lease(ask(), START) is not None
    assert leases.plan_lease(ask(), START + TTL - 1) is None


def test_p9_one_that_was_granted_is_renewed_at_once_when_it_is_used_up(leases):
    ask = resolver()
    hold(leases, ask())
    assert spend_all(leases, ask()) == 10
    assert leases.plan_lease(ask(), START + MS) is not None


def test_p9_p11_another_policy_does_not_spend_it_and_gets_its_rest_back(leases):
    old, new = resolver(), resolver(Limit("requests", "50/day", lease=SHARE))
    hold(leases, old())
    assert leases.spend(new(), START) is None
    hold(leases, new(), START + MS)
    assert spend_all(leases, new(), START + MS) == 5
    assert given_back(leases, START + TTL) == [("k", (10.0,))]


def test_p9_model_classes_of_one_key_have_a_lease_each(leases):
    """Their buckets lie in one hash. A key that asks for both in turn must not take a lease each time."""
    policy = Policy.from_text(
        "models: {small: [s], large: [l]}\nplans: {p: {limits: {requests: {rate: 100/day, per: [key, model],"
        " lease: {share: 0.1}}}}}"
    )
    ask = Resolver(policy).resolve
    small, large = (ask(make_check({"key": "k", "model": model}), take=True) for model in "sl")
    for check in (small, large):
        hold(leases, check)
    assert leases.held == 2
    assert [bool(leases.spend(check, START)) for check in (small, large) * 10] == [True] * 20
    assert given_back(leases) == []


def test_p9_what_a_shadow_limit_did_not_give_is_not_given_back_to_it(leases):
    """It denies nothing, and takes nothing where it would have denied: such checks ask the store."""
    ask = resolver(REQUESTS, Limit("shadow", "100/day", mode="shadow", lease=SHARE))
    heat(leases, ask())
    wanted = leases.plan_lease(ask(), START)
    leases.add_lease(wanted, granted(0, 0, 95, NOW), START, START)
    assert leases.spend(ask(), START) is None
    assert leases.plan_lease(ask(), START + TTL - 1) is None
    assert given_back(leases) == [("k", (10.0, 0.0))]


def test_p9_after_a_reset_nothing_is_spent_or_given_back(leases):
    ask = resolver()
    hold(leases, ask())
    hold(leases, ask("another"))
    leases.drop_store_keys(["rl1:{k}:k", "rl1:{k}:t"])
    assert leases.spend(ask(), START) is None
    assert given_back(leases) == [("another", (10.0,))]


def test_p9_a_reset_gives_back_what_was_taken_from_buckets_that_stay(leases):
    """A key is reset, its tenant is not: what was leased of the tenant is the tenant's."""
    ask = resolver(REQUESTS, Limit("tenant", "100/day", per=["tenant"], lease=SHARE))
    hold(leases, ask(tenant="t"))
    leases.drop_store_keys(["rl1:{t}:k:k"])
    assert leases.spend(ask(tenant="t"), START) is None
    assert leases.next_end is not None
    assert given_back(leases, START) == [("k", (0.0, 10.0))]


def test_p5_what_is_watched_is_bounded(leases):
    ask = resolver()
    hold(leases, ask("held"))
    for number in range(MOST + 10):
        leases.plan_lease(ask(f"k{number}"), START)
    assert len(leases._watched) <= MOST
    assert leases.spend(ask("held"), START)


def test_p9_the_next_lease_to_end_is_known(leases):
    ask = resolver()
    assert leases.next_end is None
    hold(leases, ask("late"), START + MS)
    hold(leases, ask("soon"), START)
    assert leases.next_end == START + TTL
    leases.pop_expired(START + TTL)
    assert leases.next_end == START + MS + TTL
    leases.pop_expired()
    assert leases.next_end is None


def test_p9_a_decision_says_what_the_store_would_with_the_rest_in_the_bucket(leases):
    ask = resolver(Limit("requests", "1/second", burst=100, lease=SHARE), TOKENS)
    hold(leases, ask(), START, 40, NOW, 7, NOW)
    first = leases.spend(ask(cost={"tokens": 3}), START)
    assert first == read_decision(ask(cost={"tokens": 3}), reply(1, NOW, 40, NOW, 7, NOW), "lease")
    later = leases.spend(ask(), START + 500 * MS)
    assert [state.remaining for state in later.limits] == [58, 990]
    assert [state.reset_after for state in later.limits] == pytest.approx([41.5, 86.4 * 10 - 0.5])
    assert [state.remaining for state in first.limits] == [59, 990]  # whenever it is asked
    assert (first.retry_after, first.violated, first.reservation, first.clamped) == (0.0, (), None, False)
    assert later.timestamp.timestamp() == NOW / 1e6 + 0.5


def test_p9_a_decision_counts_no_refill_twice(leases):
    """What came back to the bucket while tokens were out does not lift it above its capacity."""
    ask = resolver(Limit("requests", "10/second", burst=100, lease=SHARE))
    hold(leases, ask())
    [state] = leases.spend(ask(), START + 900 * MS).limits
    assert (state.remaining, state.reset_after) == (99, pytest.approx(0.1))
