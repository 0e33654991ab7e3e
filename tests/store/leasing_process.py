"""One of several processes that lease tokens of the same keys.

Arguments: the store's URL, and the limit as `rate burst share`. It reads commands from standard input, one a
line: `check N KEY` makes N checks, one after the other, and prints how many passed; `close` closes the
limiter, which gives back what is left of the leases.
"""

import sys

from ratelimit import Limit, Limiter


def main(url, rate, burst, share):
    limit = Limit("requests", rate, burst=int(burst), lease={"share": float(share), "ttl": "60s"})
    with Limiter(url, limit, deadline=60) as limiter:
        for line in sys.stdin:
            if line == "close\n":
                break
            _, number, key = line.split()
            decisions = [limiter.check(key) for _ in range(int(number))]
            assert all(decision.source != "outage" for decision in decisions)
            print(sum(map(bool, decisions)), flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
