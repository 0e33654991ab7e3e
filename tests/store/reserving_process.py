"""One of several processes that reserve for the same key at the same time, and settle on command.

Arguments: the store's URL and a seed. It reads commands from standard input, one a line: `reserve N` tries N
reservations and prints how many passed; `settle` settles them and prints how many tokens they used together.
"""

import random
import sys

from ratelimit import Limit, Limiter, RateLimited, Usage

BASE = 1_700_000_000
ESTIMATE = 10


def main(url, seed):
    randomness = random.Random(seed)
    limit = Limit("tokens", "100/day", unit="tokens")
    with Limiter(url, limit, max_skew=None, deadline=60) as limiter:
        limiter.ping()
        held = []
        for line in sys.stdin:
            command, _, number = line.partition(" ")
            if command == "reserve":
                result = open_reservations(limiter, held, int(number))
            else:
                result = settle_reservations(held, randomness)
            print(result, flush=True)  # noqa: T201 - the test reads it


def open_reservations(limiter, held, number):
    before = len(held)
    for _ in range(number):
        try:
            held.append(limiter.reserve("k", cost={"tokens": ESTIMATE}, timestamp=BASE))
        except RateLimited:
            continue
    return len(held) - before


def settle_reservations(held, randomness):
    total = 0
    while held:
        tokens = randomness.choice([0, 1, 5, 10, 11, 15])
        held.pop().settle(Usage(input_tokens=tokens, timestamp=BASE))
        total += tokens
    return total


if __name__ == "__main__":
    main(*sys.argv[1:])
