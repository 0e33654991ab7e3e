"""P1 across outages: what the store and the local buckets admit together stays within the bound."""

import hypothesis.strategies as st
from hypothesis import given

from ratelimit import Limit

from ..outages import SECOND, Process, Store
from .model import find_worst_window

steps = st.lists(
    st.tuples(
        st.integers(0, 20 * SECOND),  # microseconds since the previous step
        st.sampled_from(["check", "check", "check", "fail", "recover"]),
        st.integers(0, 3),  # the process
        st.integers(1, 12),  # the cost
    ),
    max_size=60,
)


@given(steps=steps, processes=st.integers(1, 4))
def test_p1_p8_store_outages_and_recoveries_admit_no_more_than_the_bound(steps, processes):
    """One process with the whole limit; or several with a share each, if all have seen the state."""
    limit = Limit("requests", "60/minute", burst=40, on_outage="local", local_share=1 / processes)
    store = Store()
    group = [Process(store, limit) for _ in range(processes)]
    admitted, recoveries = [], 0
    for pause, action, number, cost in steps:
        store.now += pause
        if action == "check":
            if group[number % processes].check(cost={"requests": cost}):
                admitted.append((store.now, cost))
        elif action == "fail" and store.is_up:
            for process in group if processes > 1 else []:
                process.check(take=False)
            store.is_up = False
        elif action == "recover" and not store.is_up:
            store.is_up = True
            recoveries += 1
            for process in group:
                process.outage.note_answer()
    if admitted:
        shape = limit.shape_of(None)
        excess, tolerance = find_worst_window(shape, admitted)
        # A charge of less than the tolerance is not made, and each local bucket tolerates its own.
        assert excess <= tolerance * (1 + processes * (recoveries + 1))


@given(steps=steps)
def test_p1_p8_one_process_decides_in_an_outage_as_the_store_would(steps):
    limit = Limit("requests", "60/minute", burst=40, on_outage="local")
    failing, answering = Store(), Store()
    process, same = Process(failing, limit), Process(answering, limit)
    for pause, action, _, cost in steps:
        failing.now += pause
        answering.now += pause
        if action == "fail":
            failing.is_up = False
        elif action == "recover":
            failing.is_up = True
            process.outage.note_answer()
        elif abs(answering.read_missing(limit) + cost - 40) > 1e-3:  # not where rounding decides
            decisions = process.check(cost={"requests": cost}), same.check(cost={"requests": cost})
            assert bool(decisions[0]) == bool(decisions[1])
            assert decisions[0].limits[0].remaining - decisions[1].limits[0].remaining in {-1, 0, 1}
