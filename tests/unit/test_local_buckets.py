"""`on_outage: local` on a driven clock: where a bucket of a process starts, and what the store is charged."""

import pytest
from redis.exceptions import ConnectionError as LostConnection

from ratelimit import Limit
from ratelimit.engine.resolver import Resolver
from ratelimit.policy import Policy
from ratelimit.request.check import make_check
from ratelimit.stores import outage as outage_module
from ratelimit.stores.breaker import PausedCalls

from ..outages import MAX_SKEW, SECOND, Process, Store
from ..stored import reply

HOUR = 3600 * SECOND
SLOW = Limit("requests", "10/day", on_outage="local")
FAST = Limit("requests", "60/minute", burst=10, on_outage="local")


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def make_process(store):
    return lambda *limits: Process(store, *(limits or (SLOW,)))


def test_p8_an_outage_starts_from_what_the_store_last_said(store, make_process):
    process = make_process()
    assert process.count_admitted(7) == 7
    store.is_up = False
    assert process.count_admitted(10) == 3
    assert process.check("another"), "nothing is known of this one: it is full"


def test_p8_a_denial_and_a_look_tell_the_state_too(store, make_process):
    others, seen = make_process(), [make_process(), make_process()]
    others.count_admitted(8)
    assert not seen[0].check(cost={"requests": 5})
    assert seen[1].check(take=False)
    store.is_up = False
    assert [process.count_admitted(10) for process in seen] == [2, 2]


def test_p8_what_one_limit_denied_was_taken_from_no_limit(store, make_process):
    process = make_process(SLOW, Limit("tokens", "5/day", unit="tokens"))
    process.check(cost={"requests": 3})
    assert not process.check(cost={"requests": 3, "tokens": 6})
    store.is_up = False
    assert process.count_admitted(10) == 7


def test_p8_what_was_used_is_refilled_during_the_outage(store, make_process):
    process = make_process(FAST)
    process.count_admitted(10)
    store.is_up = False
    assert not process.check()
    store.now += 4 * SECOND
    assert process.count_admitted(10) == 4


def test_p8_the_newest_state_counts_whichever_plan_or_thread_told_it(make_process):
    process = make_process()
    check = Resolver(Policy.of(SLOW)).resolve(make_check({"key": "k"}), take=True)
    newer, older = reply(1, 2_000 * SECOND, 8, 2_000 * SECOND), reply(1, 1_000 * SECOND, 1, 1_000 * SECOND)
    process.outage.remember_reply(check, newer)
    process.outage.remember_reply(check, older)
    assert process.outage._last_states.find(("rl1:{k}:k", "requests")) == (9, 2_000 * SECOND)


def test_p8_limits_of_two_plans_under_one_store_key_are_both_remembered(store):
    policy = Policy.from_text(
        """
        default_plan: a
        plans:
          a: {limits: {requests: {rate: 10/day, on_outage: local}, x: {rate: 5/day, on_outage: local}}}
          b: {limits: {requests: {rate: 10/day, on_outage: local}, y: {rate: 5/day, on_outage: local}}}
        """
    )
    process = Process(store, SLOW)
    process._resolver = Resolver(policy)
    assert process.count_admitted(4, plan="a") == 4
    assert process.count_admitted(3, plan="b") == 3
    store.is_up = False
    assert process.count_admitted(10, plan="a") == 1
    assert process.count_admitted(10, plan="b") == 2, "of y 2 are left, and of requests 2"


def test_p8_a_remembered_answer_tells_no_state(make_process):
    process = make_process()
    check = Resolver(Policy.of(SLOW)).resolve(make_check({"key": "k", "request_id": "r"}), take=True)
    process.outage.remember_reply(check, b"again - 00000000 " + reply(1, SECOND, 8, SECOND))
    assert process.outage._last_states.find(("rl1:{k}:k", "requests")) is None


def test_p8_a_shadow_limit_that_took_nothing_is_remembered_as_it_is(store, make_process):
    shadow = Limit("shadow", "2/day", mode="shadow", on_outage="local")
    process = make_process(SLOW, shadow)
    process.count_admitted(4)
    store.is_up = False
    assert [state.remaining for state in process.check().limits] == [5, 0]
    assert process.outage._last_states.find(("rl1:{k}:k", "shadow")).used == pytest.approx(2, abs=1e-3)


def test_p8_a_reset_is_seen(store, make_process):
    process = make_process()
    process.count_admitted(10)
    store.reset()
    process.outage.forget_store_keys(["rl1:{k}:k"])
    store.is_up = False
    assert process.count_admitted(20) == 10
    process.outage.forget_store_keys(["rl1:{k}:k"])
    store.is_up = True
    process.outage.note_answer()
    assert store.charges == []


def test_p8_only_so_many_owners_are_remembered(store, make_process, monkeypatch):
    monkeypatch.setattr(outage_module, "MAX_OWNERS", 3)
    process = make_process()
    for number in [1, 2, 3, 1, 4]:
        process.check(f"k{number}", cost={"requests": 4})
    store.is_up = False
    assert [process.count_admitted(10, key=f"k{number}") for number in [1, 3, 4, 1, 2]] == [2, 6, 6, 0, 10]
    store.is_up = True
    process.outage.note_answer()
    charges = [("rl1:{k2}:k", "requests", 10), ("rl1:{k1}:k", "requests", 2), ("rl1:{k4}:k", "requests", 6)]
    assert [(*where, round(cost, 3)) for *where, cost in store.charges] == charges


def test_p8_layouts_without_local_limits_are_not_remembered():
    layout = Resolver(Policy.of(Limit("requests", "1/day"))).resolve(make_check({"key": "k"}), take=True)
    assert layout.subject.layout.local_groups == ()


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_p8_processes_with_their_shares_admit_together_what_the_store_would(store, make_process, processes):
    limit = Limit("requests", "120/day", on_outage="local", local_share=1 / processes)
    group = [make_process(limit) for _ in range(processes)]
    assert group[0].count_admitted(24) == 24
    for process in group:
        process.check(take=False)
    store.is_up = False
    assert [process.count_admitted(120) for process in group] == [96 // processes] * processes
    store.now += HOUR  # refills 5
    together = sum(process.count_admitted(120) for process in group)
    assert 5 - processes < together <= 5
    store.is_up = True
    for process in group:
        process.outage.note_answer()
    assert store.read_missing(limit) >= 120 - 1e-3 - (5 - together)


def test_p8_a_share_is_of_the_state_the_rate_and_the_burst_and_answers_name_the_whole(store, make_process):
    limit = Limit("requests", "100/day", on_outage="local", local_share=0.1)
    process = make_process(limit)
    process.count_admitted(40)
    store.is_up = False
    decision = process.check()
    assert decision
    [state] = decision.limits
    assert (state.limit, state.burst, state.remaining, state.retry_after) == (100, 100, 5, 0)
    assert process.count_admitted(10) == 5
    decision = process.check()
    assert decision.violated == ("requests",)
    assert decision.retry_after == decision.limits[0].retry_after == pytest.approx(86_400 / 10, abs=1)


def test_p8_more_than_the_share_but_not_than_the_burst_may_pass_after_the_outage(store, make_process):
    process = make_process(Limit("requests", "100/day", on_outage="local", local_share=0.1))
    store.is_up = False
    assert process.check(cost={"requests": 11}).retry_after == 1
    assert process.check(cost={"requests": 101}).retry_after is None


def test_p8_what_was_admitted_is_charged_once_when_the_store_is_back(store, make_process):
    process = make_process()
    process.count_admitted(2)
    store.is_up = False
    process.count_admitted(5)
    store.is_up = True
    process.outage.note_answer()
    process.outage.note_answer()
    [(_, _, cost)] = store.charges
    assert cost == pytest.approx(5)
    assert store.read_missing(SLOW) == pytest.approx(7)


def test_p8_nobody_pays_for_what_was_refilled_in_the_outage(store, make_process):
    process = make_process(FAST)
    store.is_up = False
    process.count_admitted(10)
    store.now += 4 * SECOND
    store.is_up = True
    process.outage.note_answer()
    assert store.read_missing(FAST) == pytest.approx(6)
    store.is_up = False
    process.count_admitted(4)
    store.now += HOUR
    store.is_up = True
    process.outage.note_answer()
    assert len(store.charges) == 1, "all is refilled: nothing to charge"


def test_p7_p8_several_processes_may_leave_a_debt(store, make_process):
    group = [make_process(), make_process()]
    store.is_up = False
    assert [process.count_admitted(20) for process in group] == [10, 10]
    store.is_up = True
    for process in group:
        process.outage.note_answer()
    assert store.read_missing(SLOW) == pytest.approx(20)


def test_p8_the_next_outage_starts_from_the_state_after_the_charge(store, make_process):
    process = make_process()
    process.check()
    store.is_up = False
    process.count_admitted(6)
    store.is_up = True
    process.outage.note_answer()
    assert not process.outage.has_buckets
    store.is_up = False
    assert process.count_admitted(20) == 3


def test_p8_even_if_the_store_has_decided_no_check_before(store, make_process):
    process = make_process()
    store.is_up = False
    process.count_admitted(6)
    store.is_up = True
    process.outage.note_answer()
    store.is_up = False
    assert process.count_admitted(20) == 4
    process.outage.forget_store_keys(["rl1:{k}:k"])
    assert process.count_admitted(20) == 10


def test_p8_a_charge_whose_outcome_is_unknown_is_not_repeated(store, make_process):
    process = make_process()
    store.is_up = False
    process.count_admitted(5)
    store.charge_error = LostConnection("no answer")
    process.outage.note_answer()
    store.charge_error = None
    assert process.count_admitted(20) == 5, "the outage goes on, and this process knows what it admitted"
    store.is_up = True
    process.outage.note_answer()
    [(_, _, cost)] = store.charges
    assert cost == pytest.approx(5), "only what was admitted later"


def test_p8_a_charge_that_was_certainly_not_made_is_made_later(store, make_process):
    process = make_process()
    store.is_up = False
    process.count_admitted(5)
    store.charge_error = PausedCalls("paused")
    process.outage.note_answer()
    process.count_admitted(1)
    store.charge_error, store.is_up = None, True
    process.outage.note_answer()
    assert store.charges == [], "tried again after a second"
    store.now += SECOND
    process.outage.note_answer()
    [(_, _, cost)] = store.charges
    assert cost == pytest.approx(6, abs=0.01)


def test_p8_after_a_failure_the_other_charges_wait_for_the_next_answer(store, make_process):
    process = make_process()
    store.is_up = False
    for number in range(5):
        process.check(f"k{number}")
    store.charge_error = LostConnection("no answer")
    process.outage.note_answer()
    store.charge_error = None
    process.outage.note_answer()
    assert [store_key for store_key, _, _ in store.charges] == [
        f"rl1:{{k{number}}}:k" for number in [3, 2, 1, 0]
    ]


def test_p8_what_is_admitted_while_a_charge_is_under_way_is_charged_next(store, make_process):
    process = make_process()
    outage = process.outage
    store.is_up = False
    process.count_admitted(3)
    with outage.charging() as [bucket_id]:
        charge = outage.make_charge(bucket_id)
        process.count_admitted(2)
        outage.note_charge(charge, store.charge(charge.check))
    process.charge(outage)
    assert [round(cost, 3) for _, _, cost in store.charges] == [3, 2]


def test_p8_a_refund_is_seen_by_the_process_that_made_it(store, make_process):
    process = make_process()
    process.count_admitted(10)
    check = Resolver(Policy.of(SLOW)).resolve(make_check({"key": "k"}), take=True).with_costs((-4.0,))
    store.now += SECOND
    process.outage.remember_settled(store.charge(check))
    store.is_up = False
    assert process.count_admitted(20) == 4


def test_p8_a_late_check_is_decided_at_its_own_time(store, make_process):
    process = make_process(FAST)
    process.count_admitted(10)
    store.is_up = False
    store.now += 5 * SECOND
    assert not process.check(timestamp=(store.now - 5 * SECOND) / SECOND)
    assert process.check(timestamp=(store.now + 60 * SECOND) / SECOND).timestamp.timestamp() == pytest.approx(
        (store.now + MAX_SKEW) / SECOND
    )
