"""The memory of denials, with clocks of its own: what it answers, and what it leaves to the store."""

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import read_decision
from ratelimit.engine.resolver import Resolver
from ratelimit.request.check import make_check
from ratelimit.shortcuts.denial_memory import LONGEST, MOST, DenialMemory

from ..stored import reply

NOW = 1_700_000_000_000_000  # the store's clock, microseconds
SENT, HEARD = 5_000_000_000, 5_002_000_000  # ours, nanoseconds: the script ran somewhere in these 2 ms
SECOND = 1_000_000
BURST = Limit("requests", "1/second", burst=2)
SLOW = Limit("requests", "1/minute", burst=2)


def resolver(*limits):
    ask = Resolver(Policy.of(*limits)).resolve

    def check(key="k", *, take=True, **fields):
        return ask(make_check({"key": key, **fields}), take=take)

    return check


@pytest.fixture
def memory():
    return DenialMemory(5 * SECOND)


def denied(check, *states, at=NOW):
    return reply(0, at, *(states or (2, at)))


def test_p9_a_denial_is_repeated_until_the_bucket_admits(memory):
    ask = resolver(BURST)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    decision = memory.find_denial(ask(), HEARD + 500_000_000)
    assert (decision.allowed, decision.source, decision.violated) == (False, "denial-memory", ("requests",))
    assert decision.retry_after == pytest.approx(0.5, abs=1e-5)
    assert decision == read_decision(ask(), denied(ask(), 2, NOW, at=NOW + 500_000), "denial-memory")


def test_p9_a_doubt_about_the_clock_is_the_stores_to_settle(memory):
    """From sending the call on the script may have run: 1 s after that the bucket may admit again."""
    ask = resolver(BURST)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    assert memory.find_denial(ask(), SENT + 998_000_000) is not None
    assert memory.find_denial(ask(), SENT + 999_500_000) is None  # clocks may run apart by a thousandth
    assert memory.find_denial(ask(), SENT + 1_000_000_000) is None


def test_p3_what_is_left_to_wait_is_told_so_that_waiting_it_is_enough(memory):
    """The script ran at HEARD at the latest: what has passed since then is sure to have passed."""
    ask = resolver(BURST)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    decision = memory.find_denial(ask(), HEARD)
    assert decision.retry_after == pytest.approx(1.0, abs=1e-5)


def test_p9_no_denial_is_older_than_a_second(memory):
    ask = resolver(SLOW)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD + LONGEST) is not None
    assert memory.find_denial(ask(), HEARD + LONGEST + 1) is None


@pytest.mark.parametrize(
    ("cost", "answered"), [({"requests": 1}, True), ({"requests": 2}, True), ({"requests": 0.5}, False)]
)
def test_p9_a_smaller_cost_may_pass_and_is_asked(memory, cost, answered):
    ask = resolver(SLOW)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    assert (memory.find_denial(ask(cost=cost), HEARD) is not None) == answered


def test_p9_what_can_never_pass_is_told_so(memory):
    ask = resolver(SLOW)
    memory.remember(ask(cost={"requests": 3}), denied(None, 0, 0), SENT, HEARD)
    assert memory.find_denial(ask(cost={"requests": 3}), HEARD).retry_after is None
    assert memory.find_denial(ask(cost={"requests": 2}), HEARD) is None


@pytest.mark.parametrize(
    "other",
    [{"request_id": "r"}, {"take": False}, {"key": "another"}, {"tenant": "t"}, {"plan": None, "key": "K"}],
    ids="-".join,
)
def test_p9_another_question_is_asked(memory, other):
    ask = resolver(SLOW)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    assert memory.find_denial(ask(**other), HEARD) is None


def test_p9_another_policy_is_asked(memory):
    memory.remember(resolver(SLOW)(), denied(None), SENT, HEARD)
    assert memory.find_denial(resolver(SLOW)(), HEARD) is None


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
    ask = resolver(limit)
    memory.remember(ask(reserve=True), denied(None, 1, 60000000), SENT, HEARD)
    assert memory.find_denial(ask(reserve=True), HEARD) is None


def test_p9_a_limit_beside_one_that_is_not_remembered_still_is(memory):
    ask = resolver(Limit("off", "1/minute", denial_memory=False), Limit("on", "1/minute"))
    memory.remember(ask(), denied(None, 1, NOW, 0, 0), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD) is None
    memory.remember(ask(), denied(None, 0, 0, 1, NOW), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD).violated == ("on",)


def test_p9_a_limit_in_shadow_mode_denies_nothing_however_empty_it_is(memory):
    ask = resolver(Limit("shadow", "1/day", mode="shadow"), BURST)
    memory.remember(ask(), denied(None, 1, NOW, 2, NOW), SENT, HEARD)
    assert memory.find_denial(ask(), SENT + 998_000_000).violated == ("requests",)
    assert memory.find_denial(ask(), SENT + 1_000_000_000) is None


@pytest.mark.parametrize("kind", ["failures", "post-paid"])
def test_p9_keys_that_are_shut_and_debts_are_remembered(memory, kind):
    if kind == "failures":
        ask, states = resolver(Limit("failures", "2/30s", unit="failures")), (NOW + 30 * SECOND, 0)
    else:
        ask, states = resolver(Limit("paid", "1/minute", unit="tokens", charge="settle")), (7, NOW)
    memory.remember(ask(), denied(None, *states), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD) is not None


def test_p9_timestamps_are_judged_by_themselves(memory):
    ask = resolver(SLOW)
    memory.remember(ask(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
    late, later = ask(timestamp=(NOW - SECOND) / SECOND), ask(timestamp=NOW / SECOND + 60)
    assert memory.find_denial(late, HEARD).retry_after == pytest.approx(61, abs=1e-3)
    assert memory.find_denial(later, HEARD) is None
    assert memory.find_denial(ask(), HEARD) is None  # what the store's clock shows is not known


def test_p4_p9_a_timestamp_that_may_be_clamped_is_the_stores_to_judge(memory):
    ask = resolver(SLOW)
    memory.remember(ask(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
    ahead = ask(timestamp=NOW / SECOND + 3)
    assert memory.find_denial(ahead, HEARD) is None
    memory.remember(
        resolver(SLOW)("unstamped"), denied(None), SENT, HEARD
    )  # so 5 s ahead of NOW are not clamped
    assert memory.find_denial(ahead, HEARD).clamped is False


def test_p9_what_is_given_back_here_is_seen_at_once(memory):
    ask = resolver(SLOW)
    memory.remember(ask(), denied(ask()), SENT, HEARD)
    memory.forget_store_keys(["rl1:{another}:k"], HEARD)
    assert memory.find_denial(ask(), HEARD) is not None
    memory.forget_store_keys(["rl1:{k}:k"], HEARD)
    assert memory.find_denial(ask(), HEARD + 1) is None
    memory.remember(ask(), denied(ask()), HEARD + 1, HEARD + 2)
    assert memory.find_denial(ask(), HEARD + 3) is not None


def test_p9_what_was_taken_meanwhile_makes_the_rest_untrue(memory):
    ask = resolver(SLOW)
    memory.remember(ask(cost={"requests": 2}), denied(None, 1, NOW), SENT, HEARD)
    memory.forget_check(ask())
    assert memory.find_denial(ask(cost={"requests": 2}), HEARD) is None


def test_p5_the_memory_is_bounded(memory):
    ask = resolver(SLOW)
    for number in range(MOST + 10):
        memory.remember(ask(f"k{number}"), denied(None), SENT, HEARD)
        memory.forget_store_keys([f"rl1:{{g{number}}}:k"], HEARD)
    assert len(memory._known) <= MOST
    assert len(memory._given_back) <= MOST
    assert memory.find_denial(ask(f"k{MOST + 9}"), HEARD) is not None


def test_p9_an_answer_given_again_or_a_look_is_no_denial_to_remember(memory):
    ask = resolver(SLOW)
    memory.remember(ask(), b"again - 12345678 " + reply(1, NOW, 0, 0), SENT, HEARD)
    memory.remember(ask(take=False), denied(None), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD) is None


def test_p9_a_denial_says_nothing_of_slots_that_it_did_not_ask_for(memory):
    ask = resolver(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.remember(ask(), denied(None, 2, NOW, 1, -1), SENT, HEARD)
    assert memory.find_denial(ask(), HEARD) is not None
    assert memory.find_denial(ask(reserve=True), HEARD) is None
    memory.remember(ask(reserve=True), denied(None, 2, NOW, 1, 7 * SECOND), SENT, HEARD)
    assert memory.find_denial(ask(reserve=True), HEARD).violated == ("requests", "parallel")
    assert memory.find_denial(ask(), HEARD).violated == ("requests",)


def test_p9_in_a_replay_slots_are_counted_at_the_time_of_each_check():
    memory = DenialMemory(None)
    ask = resolver(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.remember(ask(timestamp=NOW / SECOND), denied(None, 2, NOW, 0, -1), SENT, HEARD)
    assert memory.find_denial(ask(timestamp=NOW / SECOND), HEARD) is None
    memory.remember(resolver(SLOW)(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
