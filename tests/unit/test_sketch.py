"""Sketches keep the largest counts, and say how much may be missing."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ratelimit.metering.sketch import Sketch, merge_sketches

ITEMS = st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.integers(0, 9)), max_size=300)


def make_sketch(capacity, items):
    sketch = Sketch(capacity)
    for item in items:
        sketch.add([item])
    return sketch


def count(items):
    exact = Counter()
    for item, amount in items:
        exact[item] += amount
    return exact


def assert_bounds(sketch, capacity, exact):
    assert len(sketch.counts) <= 2 * capacity
    assert sketch.error * (capacity + 1) <= exact.total()
    for item, true in exact.items():
        assert sketch.counts.get(item, 0) <= true <= sketch.counts.get(item, 0) + sketch.error
        if true * (capacity + 1) > exact.total():
            assert item in sketch.counts


@given(ITEMS, st.integers(1, 8))
def test_each_count_is_within_its_bounds_and_no_large_one_is_missing(items, capacity):
    assert_bounds(make_sketch(capacity, items), capacity, count(items))


@given(ITEMS)
def test_with_fewer_items_than_the_capacity_every_count_is_exact(items):
    sketch = make_sketch(16, items)
    assert sketch.error == 0
    assert {item: true for item, true in sketch.counts.items() if true} == +count(items)


@given(st.lists(ITEMS, min_size=1, max_size=5), st.integers(1, 8))
def test_a_merged_sketch_has_the_bounds_of_one(parts, capacity):
    sketches = [make_sketch(capacity, part) for part in parts]
    for sketch in sketches:
        sketch.trim()
    merged = merge_sketches(((sketch.counts, sketch.error) for sketch in sketches), capacity)
    assert len(merged.counts) <= capacity
    assert_bounds(merged, capacity, count(item for part in parts for item in part))


def test_a_flood_of_names_stays_small():
    sketch = Sketch(10)
    for number in range(10_000):
        sketch.add([(f"name-{number}", 1.0), ("large", 1.0)])
    assert len(sketch.counts) <= 20
    assert sketch.counts["large"] + sketch.error >= 10_000
    assert sketch.counts["large"] > 9_000
