"""No sound history is called wrong: what plain buckets and real servers decide has no fault, ever."""

import io
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit import Limit, Limiter, Policy
from ratelimit.history import HistoryRecorder, read_history, read_lines, verify_history

from .model import Model
from .worlds import BASE, SECOND, busy_worlds, worlds

FEWER = settings(max_examples=max(1, settings().max_examples // 3))


def as_file(lines):
    return io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def verify(lines, policy):
    return verify_history(read_lines(as_file(lines), "h"), policy)


@given(world=worlds() | busy_worlds())
def test_p1_p2_what_plain_buckets_decide_in_any_order_of_time_is_sound(world):
    policy, sequence = world
    model = Model(policy)
    lines = [
        {**check, "timestamp": t / SECOND, "allowed": model.decide(check, t).allowed} for check, t in sequence
    ]
    assert verify(lines, policy).faults == []
    assert verify([{**line, "clock": "request"} for line in lines], policy).faults == []


@given(world=busy_worlds(), data=st.data())
def test_p1_p2_a_verdict_that_is_turned_round_is_seldom_missed(world, data):
    """A denial that is called an admission breaks the bound; it must be found wherever a bucket shows it."""
    policy, sequence = world
    model = Model(policy)
    lines = [
        {**check, "timestamp": t / SECOND, "allowed": model.decide(check, t).allowed} for check, t in sequence
    ]
    denied = [number for number, line in enumerate(lines) if not line["allowed"]]
    if not denied:
        return
    number = data.draw(st.sampled_from(denied))
    turned = [*lines[:number], {**lines[number], "allowed": True}, *lines[number + 1 :]]
    assert any(
        fault.kind == "over-admitted" and fault.line == number + 1 for fault in verify(turned, policy).faults
    )


POLICY = Policy.from_text("""
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 6/day, burst: 6}
      tokens: {unit: tokens, rate: 100/day, burst: 100}
      pages: {unit: pages, rate: 30/day, charge: settle}
      shadowed: {unit: tokens, rate: 50/day, mode: shadow}
      parallel: {unit: concurrent, capacity: 2, ttl: 1h}
      failures: {unit: failures, rate: 3/30s}
""")

_actions = st.lists(
    st.tuples(
        st.sampled_from(
            ["check", "check", "repeat", "reserve", "reserve", "settle", "cancel", "charge", "late"]
        ),
        st.sampled_from("ab"),
        st.integers(0, 60),
    ),
    max_size=30,
)


@FEWER
@given(actions=_actions)
def test_p1_p2_p6_p7_what_a_real_server_decides_is_sound(open_client, model_url, tmp_path_factory, actions):
    open_client(model_url).flushall()
    path = tmp_path_factory.mktemp("history") / "h.jsonl"
    with HistoryRecorder(path) as recorder:
        run(Limiter(model_url, POLICY, deadline=20, observers=[recorder]), actions)
    report = verify_history(read_history([path]), POLICY)
    assert report.faults == []


def run(limiter, actions):
    """Do the actions with a limiter; each reservation is settled or cancelled as often as it happens."""
    held = []
    with limiter:
        for number, (action, key, amount) in enumerate(actions):
            cost = {"tokens": amount}
            if action == "check":
                limiter.check(key, cost=cost)
            elif action == "repeat":
                for _ in range(2):
                    limiter.check(key, cost=cost, request_id=f"id-{number % 3}")
            elif action == "late":
                limiter.check(f"late-{key}", cost=cost, timestamp=(BASE + amount * SECOND) / SECOND)
            elif action == "reserve":
                decision = limiter.check({"key": key, "cost": cost, "reserve": True})
                if decision.reservation:
                    held.append(decision.reservation)
            elif action == "charge":
                limiter.settle({"key": key, "input_tokens": amount, "status": 500, "cost": {"pages": amount}})
            elif held:
                end(limiter, action, held[amount % len(held)], amount)


def end(limiter, action, reservation, amount):
    if action == "cancel":
        limiter.cancel(reservation)
    else:
        limiter.settle({"output_tokens": amount, "status": 200}, reservation=reservation)


def test_p8_what_an_outage_admits_is_counted_and_is_no_fault(tmp_path):
    path = tmp_path / "h.jsonl"
    limit = Limit("requests", "3/day", on_outage="allow")
    with (
        HistoryRecorder(path) as recorder,
        Limiter("redis://127.0.0.1:1", limit, observers=[recorder]) as limiter,
    ):
        assert all(limiter.check("a") for _ in range(10))
    report = verify_history(read_history([path]), limiter.policy)
    assert report.is_sound
    assert report.outage_admissions == 10
