"""One of several processes that reserve for the same key at once, and settle when told to.

Arguments: the store's URL and a seed. Each line on standard input is `reserve N`, answered with how many of
N reservations passed, or `settle`, answered with the tokens that those were settled with.
"""

import random
import sys

from ratelimit import Limit, Limiter, RateLimited, Usage

BASE = 1_700_000_000
ESTIMATE = 10


def main(url, seed):
    actual = random.Random(seed)
    limit = Limit("tokens", "100/day", unit="tokens")
    with Limiter(url, limit, max_skew=None, deadline=60) as limiter:
        limiter.ping()
        held = []
        for line in sys.stdin:
            command, _, number = line.partition(" ")
            answer = reserve(limiter, held, int(number)) if command == "reserve" else settle(held, actual)
            print(answer, flush=True)  # noqa: T201


def reserve(limiter, held, number):
    before = len(held)
    for _ in range(number):
        try:
            held.append(limiter.reserve("k", cost={"tokens": ESTIMATE}, timestamp=BASE))
        except RateLimited:
            continue
    return len(held) - before


def settle(held, actual):
    total = 0
    while held:
        tokens = actual.choice([0, 1, 5, 10, 11, 15])
        held.pop().settle(Usage(input_tokens=tokens, timestamp=BASE))
        total += tokens
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])
