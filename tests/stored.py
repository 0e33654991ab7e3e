"""Reads and writes buckets in a store. The clients of the tests decode each byte as one character."""

import struct

from ratelimit.engine.limit_status import unpack_buckets


def buckets(client, name="rl1:{k}:k"):
    """Return the buckets under one store key, by the names of their limits."""
    state = client.get(name)
    return unpack_buckets(state.encode("latin-1")) if state else {}


def used(client, limit="requests", name="rl1:{k}:k"):
    """Return how many tokens of one limit are missing."""
    bucket = buckets(client, name).get(limit)
    return bucket.used if bucket else 0


def put(client, name, **buckets):
    """Write buckets under one store key; each is a pair: the tokens missing, and the time of that."""
    numbers = [number for bucket in buckets.values() for number in bucket]
    state = ",".join(buckets).encode() + b"|" + struct.pack(f"<{len(numbers) + 1}d", *numbers, 0)
    client.set(name, state, keepttl=True)


def reply(verdict, at, *states):
    """Return a reply of the check script: 0 or 1, the time of the decision, two numbers for each limit."""
    return str(verdict).encode() + struct.pack(f"<{len(states) + 1}d", at, *states)
