"""Histories that plain buckets decide, and the same with one thing done wrong."""

import json
import random

from ratelimit import Policy
from ratelimit.engine.bucket import Bucket
from ratelimit.policy.shape import Shape

POLICY = Policy.from_text("""
default_plan: free
plans:
  free:
    limits:
      requests: {rate: 60/minute, burst: 20}
      tokens: {unit: tokens, rate: 30000/minute, burst: 30000}
""")
SHAPES = {"requests": Shape(60, 60e6, 20), "tokens": Shape(30_000, 60e6, 30_000)}
START = 1_700_000_000_000_000


def make_history(count, plant=None, *, keys=20, seed=1):
    """Return the lines of a history that keeps its limits busy, as JSON.

    Args:
        count: how many lines.
        plant: what is done wrong once, in the middle: `lost` (no charge is made), `twice` (it is made twice),
            `early` (a check is admitted that has no room), `charged` (a check is denied and charged).
        keys: how many keys.
        seed: of the pseudo-random checks.

    Returns:
        The lines, and the number of the line at which it was done, counted from 1.
    """
    chance, buckets, lines, t, planted = random.Random(seed), {}, [], START, 0
    for number in range(1, count + 1):
        t += chance.randrange(1, 60_000)
        key = f"vk_{chance.randrange(keys):012d}"
        cost = {"requests": 1, "tokens": chance.randrange(1, 1_500)}
        before = {unit: buckets.get((key, unit), Bucket(0.0, t)) for unit in SHAPES}
        allowed = all(before[unit].admits(SHAPES[unit], t, cost[unit]) for unit in SHAPES)
        is_time = plant and not planted and number > count // 2
        if is_time and allowed is (plant in {"lost", "twice"}):
            planted = number
            charges = {"lost": 0, "twice": 2, "early": 1, "charged": 1}[plant]
            allowed = plant != "charged"
        else:
            charges = int(allowed)
        for unit, bucket in before.items():
            for _ in range(charges):
                bucket = bucket.take(SHAPES[unit], t, cost[unit])  # noqa: PLW2901 - it is charged twice
            buckets[key, unit] = bucket
        lines.append({"timestamp": t / 1e6, "key": key, "plan": "free", "cost": cost, "allowed": allowed})
    return [json.dumps(line) for line in lines], planted
