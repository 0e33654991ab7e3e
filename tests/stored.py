"""What lies in a store, for tests to look at. Clients of the tests read each byte as one character."""

import struct

from ratelimit.engine.limit_status import unpack_buckets


def buckets(client, name="rl1:{k}:k"):
    """Return the buckets under one of the store's keys, by the names of their limits."""
    state = client.get(name)
    return unpack_buckets(state.encode("latin-1")) if state else {}


def used(client, limit="requests", name="rl1:{k}:k"):
    """Return how many tokens of one limit are missing."""
    bucket = buckets(client, name).get(limit)
    return bucket.used if bucket else 0


def put(client, name, **buckets):
    """Put buckets under one of the store's keys: of each what is missing, and since when."""
    numbers = [number for bucket in buckets.values() for number in bucket]
    state = ",".join(buckets).encode() + b"|" + struct.pack(f"<{len(numbers) + 1}d", *numbers, 0)
    client.set(name, state, keepttl=True)


def reply(verdict, at, *states):
    """Return what the script says: 0 or 1, the time it judged at, and two numbers for each limit."""
    return str(verdict).encode() + struct.pack(f"<{len(states) + 1}d", at, *states)
