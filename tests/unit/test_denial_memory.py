"""The memory of denials, with clocks of its own: what it answers, and what it leaves to the store."""

import pytest

from ratelimit import Limit, Policy
from ratelimit.engine.check_script import read
from ratelimit.engine.resolver import Asker
from ratelimit.request.check import make_check
from ratelimit.shortcuts.denial_memory import LONGEST, MOST, Denials

from ..stored import reply

NOW = 1_700_000_000_000_000  # the store's clock, microseconds
SENT, HEARD = 5_000_000_000, 5_002_000_000  # ours, nanoseconds: the script ran somewhere in these 2 ms
SECOND = 1_000_000
BURST = Limit("requests", "1/second", burst=2)
SLOW = Limit("requests", "1/minute", burst=2)


def asker(*limits):
    ask = Asker(Policy.of(*limits)).ask

    def question(key="k", *, take=True, **fields):
        return ask(make_check({"key": key, **fields}), take=take)

    return question


@pytest.fixture
def memory():
    return Denials(5 * SECOND)


def denied(question, *states, at=NOW):
    return reply(0, at, *(states or (2, at)))


def test_p9_a_denial_is_repeated_until_the_bucket_admits(memory):
    ask = asker(BURST)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    decision = memory.answer(ask(), HEARD + 500_000_000)
    assert (decision.allowed, decision.source, decision.violated) == (False, "denial-memory", ("requests",))
    assert decision.retry_after == pytest.approx(0.5, abs=1e-5)
    assert decision == read(ask(), denied(ask(), 2, NOW, at=NOW + 500_000), "denial-memory")


def test_p9_a_doubt_about_the_clock_is_the_stores_to_settle(memory):
    """From sending the call on the script may have run: 1 s after that the bucket may admit again."""
    ask = asker(BURST)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    assert memory.answer(ask(), SENT + 998_000_000) is not None
    assert memory.answer(ask(), SENT + 999_500_000) is None  # clocks may run apart by a thousandth
    assert memory.answer(ask(), SENT + 1_000_000_000) is None


def test_p3_what_is_left_to_wait_is_told_so_that_waiting_it_is_enough(memory):
    """The script ran at HEARD at the latest: what has passed since then is sure to have passed."""
    ask = asker(BURST)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    decision = memory.answer(ask(), HEARD)
    assert decision.retry_after == pytest.approx(1.0, abs=1e-5)


def test_p9_no_denial_is_older_than_a_second(memory):
    ask = asker(SLOW)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    assert memory.answer(ask(), HEARD + LONGEST) is not None
    assert memory.answer(ask(), HEARD + LONGEST + 1) is None


@pytest.mark.parametrize(
    ("cost", "answered"), [({"requests": 1}, True), ({"requests": 2}, True), ({"requests": 0.5}, False)]
)
def test_p9_a_smaller_cost_may_pass_and_is_asked(memory, cost, answered):
    ask = asker(SLOW)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    assert (memory.answer(ask(cost=cost), HEARD) is not None) == answered


def test_p9_what_can_never_pass_is_told_so(memory):
    ask = asker(SLOW)
    memory.note(ask(cost={"requests": 3}), denied(None, 0, 0), SENT, HEARD)
    assert memory.answer(ask(cost={"requests": 3}), HEARD).retry_after is None
    assert memory.answer(ask(cost={"requests": 2}), HEARD) is None


@pytest.mark.parametrize(
    "other",
    [{"request_id": "r"}, {"take": False}, {"key": "another"}, {"tenant": "t"}, {"plan": None, "key": "K"}],
    ids="-".join,
)
def test_p9_another_question_is_asked(memory, other):
    ask = asker(SLOW)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    assert memory.answer(ask(**other), HEARD) is None


def test_p9_another_policy_is_asked(memory):
    memory.note(asker(SLOW)(), denied(None), SENT, HEARD)
    assert memory.answer(asker(SLOW)(), HEARD) is None


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
    ask = asker(limit)
    memory.note(ask(reserve=True), denied(None, 1, 60000000), SENT, HEARD)
    assert memory.answer(ask(reserve=True), HEARD) is None


def test_p9_a_limit_beside_one_that_is_not_remembered_still_is(memory):
    ask = asker(Limit("off", "1/minute", denial_memory=False), Limit("on", "1/minute"))
    memory.note(ask(), denied(None, 1, NOW, 0, 0), SENT, HEARD)
    assert memory.answer(ask(), HEARD) is None
    memory.note(ask(), denied(None, 0, 0, 1, NOW), SENT, HEARD)
    assert memory.answer(ask(), HEARD).violated == ("on",)


def test_p9_a_limit_in_shadow_mode_denies_nothing_however_empty_it_is(memory):
    ask = asker(Limit("shadow", "1/day", mode="shadow"), BURST)
    memory.note(ask(), denied(None, 1, NOW, 2, NOW), SENT, HEARD)
    assert memory.answer(ask(), SENT + 998_000_000).violated == ("requests",)
    assert memory.answer(ask(), SENT + 1_000_000_000) is None


@pytest.mark.parametrize("kind", ["failures", "post-paid"])
def test_p9_keys_that_are_shut_and_debts_are_remembered(memory, kind):
    if kind == "failures":
        ask, states = asker(Limit("failures", "2/30s", unit="failures")), (NOW + 30 * SECOND, 0)
    else:
        ask, states = asker(Limit("paid", "1/minute", unit="tokens", charge="settle")), (7, NOW)
    memory.note(ask(), denied(None, *states), SENT, HEARD)
    assert memory.answer(ask(), HEARD) is not None


def test_p9_timestamps_are_judged_by_themselves(memory):
    ask = asker(SLOW)
    memory.note(ask(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
    late, later = ask(timestamp=(NOW - SECOND) / SECOND), ask(timestamp=NOW / SECOND + 60)
    assert memory.answer(late, HEARD).retry_after == pytest.approx(61, abs=1e-3)
    assert memory.answer(later, HEARD) is None
    assert memory.answer(ask(), HEARD) is None  # what the store's clock shows is not known


def test_p4_p9_a_timestamp_that_may_be_clamped_is_the_stores_to_judge(memory):
    ask = asker(SLOW)
    memory.note(ask(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
    ahead = ask(timestamp=NOW / SECOND + 3)
    assert memory.answer(ahead, HEARD) is None
    memory.note(asker(SLOW)("unstamped"), denied(None), SENT, HEARD)  # so 5 s ahead of NOW are not clamped
    assert memory.answer(ahead, HEARD).clamped is False


def test_p9_what_is_given_back_here_is_seen_at_once(memory):
    ask = asker(SLOW)
    memory.note(ask(), denied(ask()), SENT, HEARD)
    memory.forget(["rl1:{another}:k"], HEARD)
    assert memory.answer(ask(), HEARD) is not None
    memory.forget(["rl1:{k}:k"], HEARD)
    assert memory.answer(ask(), HEARD + 1) is None
    memory.note(ask(), denied(ask()), HEARD + 1, HEARD + 2)
    assert memory.answer(ask(), HEARD + 3) is not None


def test_p9_what_was_taken_meanwhile_makes_the_rest_untrue(memory):
    ask = asker(SLOW)
    memory.note(ask(cost={"requests": 2}), denied(None, 1, NOW), SENT, HEARD)
    memory.admitted(ask())
    assert memory.answer(ask(cost={"requests": 2}), HEARD) is None


def test_p5_the_memory_is_bounded(memory):
    ask = asker(SLOW)
    for number in range(MOST + 10):
        memory.note(ask(f"k{number}"), denied(None), SENT, HEARD)
        memory.forget([f"rl1:{{g{number}}}:k"], HEARD)
    assert len(memory._known) <= MOST
    assert len(memory._given_back) <= MOST
    assert memory.answer(ask(f"k{MOST + 9}"), HEARD) is not None


def test_p9_an_answer_given_again_or_a_look_is_no_denial_to_remember(memory):
    ask = asker(SLOW)
    memory.note(ask(), b"again - 12345678 " + reply(1, NOW, 0, 0), SENT, HEARD)
    memory.note(ask(take=False), denied(None), SENT, HEARD)
    assert memory.answer(ask(), HEARD) is None


def test_p9_a_denial_says_nothing_of_slots_that_it_did_not_ask_for(memory):
    ask = asker(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.note(ask(), denied(None, 2, NOW, 1, -1), SENT, HEARD)
    assert memory.answer(ask(), HEARD) is not None
    assert memory.answer(ask(reserve=True), HEARD) is None
    memory.note(ask(reserve=True), denied(None, 2, NOW, 1, 7 * SECOND), SENT, HEARD)
    assert memory.answer(ask(reserve=True), HEARD).violated == ("requests", "parallel")
    assert memory.answer(ask(), HEARD).violated == ("requests",)


def test_p9_in_a_replay_slots_are_counted_at_the_time_of_each_check():
    memory = Denials(None)
    ask = asker(SLOW, Limit("parallel", unit="concurrent", capacity=1))
    memory.note(ask(timestamp=NOW / SECOND), denied(None, 2, NOW, 0, -1), SENT, HEARD)
    assert memory.answer(ask(timestamp=NOW / SECOND), HEARD) is None
    memory.note(asker(SLOW)(timestamp=NOW / SECOND), denied(None), SENT, HEARD)
