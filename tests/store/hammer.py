"""One of several processes that ask for the same key at once; prints how many checks passed.

Arguments: the store's URL, the limit as `rate burst`, the first timestamp, the stride to the next, how many
checks, and how many of them travel together.
"""

import sys

from ratelimit import Limit, Limiter


def main(url, rate, burst, start, stride, checks, together):
    limit = Limit("requests", rate, burst=int(burst))
    times = [float(start) + n * float(stride) for n in range(int(checks))]
    admitted = 0
    with Limiter(url, limit, max_skew=None, deadline=60) as limiter:
        limiter.ping()
        sys.stdin.readline()  # so that all begin together
        for n in range(0, len(times), int(together)):
            batch = [{"key": "k", "timestamp": t} for t in times[n : n + int(together)]]
            decisions = limiter.check_many(batch) if len(batch) > 1 else [limiter.check(**batch[0])]
            assert all(decision.source != "outage" for decision in decisions)
            admitted += sum(map(bool, decisions))
    print(admitted)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
