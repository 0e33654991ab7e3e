"""Denial memory, with clocks of its own: which denials it repeats, and what it leaves to the store."""

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts import denial_memory
from ratelimit.shortcuts.denial_memory import MAX_AGE, MAX_DENIALS, DenialMemory

from ..stored import reply

NOW = 1_700_000_000_000_000  # the store's clock, microseconds
SENT, RECEIVED = 5_000_000_000, 5_002_000_000  # the local clock, nanoseconds: the script ran in these 2 ms
SECOND = 1_000_000
BURST = Limit("requests", "1/second", burst=2)
SLOW = Limit("requests", "1/minute", burst=2)


def make_resolver(*limits):
    """Return a function that resolves checks under a policy with these limits."""
    resolver = Resolver(Policy.of(*limits))

    def resolve(key="k", *, take=True, **fields):
        return resolver.resolve(make_check({"key": key, **fields}), take=take)

    return resolve


@pytest.fixture
def memory():
    return DenialMemory(5 * SECOND)


def make_denial(check, *states, at=NOW):
    """Return the script's reply that denies a check."""
    return reply(0, at, *(states or (2, at)))


def test_p9_a_denial_is_repeated_until_the_bucket_admits(memory):
    resolve = make_resolver(BURST)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    decision = memory.find_denial(resolve(), RECEIVED + 500_000_000)
    assert (decision.allowed, decision.source, decision.violated) == (False, "denial-memory", ("requests",))
    assert decision.retry_after == pytest.approx(0.5, abs=1e-5)
    assert decision == read_decision(
        resolve(), make_denial(resolve(), 2, NOW, at=NOW + 500_000), "denial-memory"
    )


def test_p9_a_doubt_about_the_clock_is_the_stores_to_settle(memory):
    """The script may have run as soon as the call was sent, and 1 s after that the bucket may admit again."""
    resolve = make_resolver(BURST)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    assert memory.find_denial(resolve(), SENT + 998_000_000) is not None
    # Clocks may differ in speed by a thousandth.
    assert memory.find_denial(resolve(), SENT + 999_500_000) is None
    assert memory.find_denial(resolve(), SENT + 1_000_000_000) is None


def test_p3_what_is_left_to_wait_is_told_so_that_waiting_it_is_enough(memory):
    """The script ran at RECEIVED at the latest, so the time since RECEIVED has passed for the store, too."""
    resolve = make_resolver(BURST)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    decision = memory.find_denial(resolve(), RECEIVED)
    assert decision.retry_after == pytest.approx(1.0, abs=1e-5)


def test_p9_no_denial_is_older_than_a_second(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED + MAX_AGE) is not None
    assert memory.find_denial(resolve(), RECEIVED + MAX_AGE + 1) is None


@pytest.mark.parametrize(
    ("cost", "is_repeated"), [({"requests": 1}, True), ({"requests": 2}, True), ({"requests": 0.5}, False)]
)
def test_p9_a_smaller_cost_may_pass_and_is_asked(memory, cost, is_repeated):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    assert (memory.find_denial(resolve(cost=cost), RECEIVED) is not None) == is_repeated


def test_p9_what_can_never_pass_is_told_so(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(cost={"requests": 3}), make_denial(None, 0, 0), SENT, RECEIVED)
    assert memory.find_denial(resolve(cost={"requests": 3}), RECEIVED).retry_after is None
    assert memory.find_denial(resolve(cost={"requests": 2}), RECEIVED) is None


@pytest.mark.parametrize(
    "other",
    [{"request_id": "r"}, {"take": False}, {"key": "another"}, {"tenant": "t"}, {"plan": None, "key": "K"}],
    ids="-".join,
)
def test_p9_another_question_is_asked(memory, other):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    assert memory.find_denial(resolve(**other), RECEIVED) is None


def test_p9_another_policy_is_asked(memory):
    memory.remember(make_resolver(SLOW)(), make_denial(None), SENT, RECEIVED)
    assert memory.find_denial(make_resolver(SLOW)(), RECEIVED) is None


@pytest.mark.parametrize(
    "limit",
    [
        Limit("requests", "1/minute", denial_memory=False),
        Limit("requests", "1/minute", mode="shadow"),
        Limit("parallel", unit="concurrent", capacity=1),
    ],
    ids=["off", "shadow", "slots"],
)
def test_p9_what_is_not_to_be_remembered_is_not(memory, limit):
    resolve = make_resolver(limit)
    memory.remember(resolve(reserve=True), make_denial(None, 1, 60000000), SENT, RECEIVED)
    assert memory.find_denial(resolve(reserve=True), RECEIVED) is None


def test_p9_a_limit_beside_one_that_is_not_remembered_still_is(memory):
    resolve = make_resolver(Limit("off", "1/minute", denial_memory=False), Limit("on", "1/minute"))
    memory.remember(resolve(), make_denial(None, 1, NOW, 0, 0), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED) is None
    memory.remember(resolve(), make_denial(None, 0, 0, 1, NOW), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED).violated == ("on",)


def test_p9_a_limit_in_shadow_mode_denies_nothing_however_empty_it_is(memory):
    resolve = make_resolver(Limit("shadow", "1/day", mode="shadow"), BURST)
    memory.remember(resolve(), make_denial(None, 1, NOW, 2, NOW), SENT, RECEIVED)
    assert memory.find_denial(resolve(), SENT + 998_000_000).violated == ("requests",)
    assert memory.find_denial(resolve(), SENT + 1_000_000_000) is None


@pytest.mark.parametrize("kind", ["failures", "post-paid"])
def test_p9_keys_that_are_shut_and_debts_are_remembered(memory, kind):
    if kind == "failures":
        resolve, states = make_resolver(Limit("failures", "2/30s", unit="failures")), (NOW + 30 * SECOND, 0)
    else:
        resolve, states = make_resolver(Limit("paid", "1/minute", unit="tokens", charge="settle")), (7, NOW)
    memory.remember(resolve(), make_denial(None, *states), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED) is not None


def test_p9_timestamps_are_judged_by_themselves(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(timestamp=NOW / SECOND), make_denial(None), SENT, RECEIVED)
    late, later = resolve(timestamp=(NOW - SECOND) / SECOND), resolve(timestamp=NOW / SECOND + 60)
    assert memory.find_denial(late, RECEIVED).retry_after == pytest.approx(61, abs=1e-3)
    assert memory.find_denial(later, RECEIVED) is None
    assert memory.find_denial(resolve(), RECEIVED) is None  # the store's clock is not known


def test_p4_p9_a_timestamp_that_may_be_clamped_is_the_stores_to_judge(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(timestamp=NOW / SECOND), make_denial(None), SENT, RECEIVED)
    ahead = resolve(timestamp=NOW / SECOND + 3)
    assert memory.find_denial(ahead, RECEIVED) is None
    # After this, timestamps up to 5 s ahead of NOW are known not to be clamped.
    memory.remember(make_resolver(SLOW)("no-timestamp"), make_denial(None), SENT, RECEIVED)
    assert memory.find_denial(ahead, RECEIVED).clamped is False


def test_p9_what_is_given_back_here_is_seen_at_once(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(), make_denial(resolve()), SENT, RECEIVED)
    memory.forget_store_keys(["rl1:{another}:k"], RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED) is not None
    memory.forget_store_keys(["rl1:{k}:k"], RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED + 1) is None
    memory.remember(resolve(), make_denial(resolve()), RECEIVED + 1, RECEIVED + 2)
    assert memory.find_denial(resolve(), RECEIVED + 3) is not None


def test_p9_what_was_taken_meanwhile_makes_the_rest_untrue(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(cost={"requests": 2}), make_denial(None, 1, NOW), SENT, RECEIVED)
    memory.forget_check(resolve())
    assert memory.find_denial(resolve(cost={"requests": 2}), RECEIVED) is None


def test_p5_the_memory_is_bounded(memory):
    resolve = make_resolver(SLOW)
    for number in range(MAX_DENIALS + 10):
        memory.remember(resolve(f"k{number}"), make_denial(None), SENT, RECEIVED)
        memory.forget_store_keys([f"rl1:{{g{number}}}:k"], RECEIVED)
    assert len(memory.denials) <= MAX_DENIALS
    assert len(memory._refunded_at) <= MAX_DENIALS
    assert memory.find_denial(resolve(f"k{MAX_DENIALS + 9}"), RECEIVED) is not None


def test_p5_denials_are_bounded_though_nothing_is_given_back(memory, monkeypatch):
    monkeypatch.setattr(denial_memory, "MAX_DENIALS", 10)
    resolve = make_resolver(SLOW)
    for number in range(50):
        memory.remember(resolve(f"k{number}"), make_denial(None), SENT, RECEIVED)
    assert len(memory.denials) <= 10


def test_p9_an_answer_given_again_or_a_look_is_no_denial_to_remember(memory):
    resolve = make_resolver(SLOW)
    memory.remember(resolve(), b"again - 12345678 " + reply(1, NOW, 0, 0), SENT, RECEIVED)
    memory.remember(resolve(take=False), make_denial(None), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED) is None


def test_p9_a_denial_says_nothing_of_slots_that_it_did_not_ask_for(memory):
    resolve = make_resolver(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.remember(resolve(), make_denial(None, 2, NOW, 1, -1), SENT, RECEIVED)
    assert memory.find_denial(resolve(), RECEIVED) is not None
    assert memory.find_denial(resolve(reserve=True), RECEIVED) is None
    memory.remember(resolve(reserve=True), make_denial(None, 2, NOW, 1, 7 * SECOND), SENT, RECEIVED)
    assert memory.find_denial(resolve(reserve=True), RECEIVED).violated == ("requests", "parallel")
    assert memory.find_denial(resolve(), RECEIVED).violated == ("requests",)


def test_p9_in_a_replay_slots_are_counted_at_the_time_of_each_check():
    memory = DenialMemory(None)
    resolve = make_resolver(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.remember(resolve(timestamp=NOW / SECOND), make_denial(None, 2, NOW, 0, -1), SENT, RECEIVED)
    assert memory.find_denial(resolve(timestamp=NOW / SECOND), RECEIVED) is None
    memory.remember(make_resolver(SLOW)(timestamp=NOW / SECOND), make_denial(None), SENT, RECEIVED)
