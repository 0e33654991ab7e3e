"""P6 and P7: the store agrees with a plain model after any checks, reservations, settlements and edits."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ratelimit import Limit, Policy, UnknownReservation, Usage

from ..stored import buckets
from .metering import Metering

SECOND = 1_000_000
BASE = 1_700_000_000 * SECOND
REMEMBER = 600

FIRST_POLICY = Policy.of(
    Limit("requests", "30/minute", burst=5),
    Limit("tokens", "100/minute", unit="tokens"),
    Limit("images", "10/minute", unit="images", charge="settle"),
    Limit("parallel", unit="concurrent", capacity=2, ttl="30s"),
    Limit("failures", "2/30s", unit="failures", block="20s"),
    Limit("watched", "20/minute", unit="tokens", mode="shadow"),
)
SECOND_POLICY = Policy.of(
    Limit("tokens", "70/7s", unit="tokens", burst=60),
    Limit("failures", "1/10s", unit="failures", block="5s"),
    Limit("parallel", unit="concurrent", capacity=1, ttl="60s"),
    Limit("requests", "7/second"),
)

keys = st.sampled_from(["vk_one", "vk_two"])
moments = st.integers(0, 90 * SECOND)
amounts = st.integers(0, 130) | st.floats(0, 150, allow_nan=False)
tokens = st.integers(0, 200)
statuses = st.sampled_from([200, 200, 399, 400, 500, None])


class History(RuleBasedStateMachine):
    """Runs the same steps on a limiter and on the model."""

    limiter = None
    client = None
    reservations = Bundle("reservations")
    requests = Bundle("requests")

    @initialize()
    def begin(self):
        self.client.flushall()
        self.limiter.policy = self.policy = FIRST_POLICY
        self.model = Metering()
        self.request_count = 0

    @rule(target=reservations, key=keys, at=moments, cost=amounts, reserve=st.booleans())
    def check(self, key, at, cost, reserve):
        return self._check(key, BASE + at, cost, reserve=reserve)[1]

    @rule(target=requests, key=keys, at=moments, cost=amounts, reserve=st.booleans())
    def check_with_a_request_id(self, key, at, cost, reserve):
        self.request_count += 1
        arguments = {
            "key": key,
            "cost": cost,
            "reserve": reserve,
            "request_id": f"r{self.request_count}",
        }
        decision, _ = self._check(t=BASE + at, **arguments)
        return arguments, decision

    @rule(request=requests, later=moments)
    def repeat(self, request, later):
        arguments, first = request
        if first.allowed:
            repeated = self._call_check(t=BASE + later, **arguments)
            assert (repeated.allowed, repeated.reservation, repeated.timestamp) == (
                True,
                first.reservation,
                first.timestamp,
            )

    @rule(
        reservation=reservations,
        at=moments,
        input_tokens=tokens,
        output_tokens=tokens,
        images=amounts,
        status=statuses,
    )
    def settle(self, reservation, at, input_tokens, output_tokens, images, status):
        usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cost={} if self.policy is SECOND_POLICY else {"images": images},
            status=status,
            timestamp=(BASE + at) / SECOND,
        )
        before = self.model.records.get(reservation)
        state_before = before and before.state
        record = self.model.settle(reservation, BASE + at, usage.known(), failed=usage.failed)
        if record is None:
            with pytest.raises(UnknownReservation):
                self.limiter.settle(usage, reservation=reservation or "unknown")
            return
        settlement = self.limiter.settle(usage, reservation=reservation)
        assert settlement.settled == (record.state == "settled")
        assert settlement.replayed == (state_before != "open")

    @rule(reservation=reservations)
    def cancel(self, reservation):
        before = self.model.records.get(reservation)
        state_before = before and before.state
        record = self.model.cancel(reservation)
        if record is None:
            with pytest.raises(UnknownReservation):
                self.limiter.cancel(reservation or "unknown")
            return
        assert self.limiter.cancel(reservation).replayed == (state_before != "open")

    @rule(reservation=reservations)
    def expire(self, reservation):
        if self.model.records.pop(reservation, None) is not None:
            self.client.delete(*self.client.keys(f"*:R:{reservation.partition('.')[0]}"))

    @rule()
    def edit_the_policy(self):
        self.policy = SECOND_POLICY if self.policy is FIRST_POLICY else FIRST_POLICY
        self.limiter.policy = self.policy

    def _call_check(self, key, t, cost, reserve, request_id=None):
        return self.limiter.check(
            key, timestamp=t / SECOND, cost={"tokens": cost}, reserve=reserve, request_id=request_id
        )

    def _check(self, key, t, cost, *, reserve, request_id=None):
        allowed, violated, limit_costs = self.model.check(
            self.policy, key, t, {"tokens": float(cost)}, reserve=reserve
        )
        decision = self._call_check(key, t, cost, reserve, request_id)
        assert (decision.allowed, list(decision.violated)) == (allowed, violated)
        assert (decision.reservation is not None) == (allowed and reserve)
        if allowed:
            self.model.take(key, t, limit_costs, decision.reservation)
        return decision, decision.reservation

    @invariant()
    def the_store_holds_what_the_model_holds(self):
        if not hasattr(self, "model"):
            return
        stored = {}
        for name in self.client.keys("rl1:{*}:k"):
            key = name[5:-3]
            stored |= {(key, limit): bucket for limit, bucket in buckets(self.client, name).items()}
        written = {bucket_id: bucket for bucket_id, bucket in stored.items() if bucket != (0, 0)}
        assert written == {
            bucket_id: (bucket.used, bucket.at) for bucket_id, bucket in self.model.buckets.items()
        }

    def teardown(self):
        for name in self.client.keys("*"):
            if name != "rl1:usage":
                assert 0 < self.client.pttl(name) <= self._find_longest_ttl()

    def _find_longest_ttl(self):
        """Return the longest TTL allowed in milliseconds: the time to full with debt, or to remember."""
        used = sum(bucket.used for bucket in self.model.buckets.values())
        return max(REMEMBER * 1000, used * 60_000 / 10) + 60_000


def test_p6_p7_any_history_ends_as_the_model_says(limiters, open_client, model_url):
    History.limiter, History.client = limiters(model_url, None), open_client(model_url)
    examples = settings.get_profile(settings.get_current_profile_name()).max_examples
    run_state_machine_as_test(History, settings=settings(max_examples=examples, stateful_step_count=30))
