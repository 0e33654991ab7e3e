"""One of several processes that check the same key at the same time; prints how many checks passed.

Arguments: the store's URL, the limit as `rate burst`, the first timestamp, the seconds from one timestamp to
the next, the number of checks, and how many of them go in one call.
"""

import sys

from ratelimit import Limit, Limiter


def main(url, rate, burst, start, stride, checks, batch_size):
    limit = Limit("requests", rate, burst=int(burst))
    timestamps = [float(start) + n * float(stride) for n in range(int(checks))]
    admitted = 0
    with Limiter(url, limit, max_skew=None, deadline=60) as limiter:
        limiter.ping()
        sys.stdin.readline()  # so that all processes begin at the same time
        for n in range(0, len(timestamps), int(batch_size)):
            batch = [{"key": "k", "timestamp": t} for t in timestamps[n : n + int(batch_size)]]
            decisions = limiter.check_many(batch) if len(batch) > 1 else [limiter.check(**batch[0])]
            assert all(decision.source != "outage" for decision in decisions)
            admitted += sum(map(bool, decisions))
    print(admitted)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
