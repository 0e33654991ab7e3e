"""docs/soak.md, made from the result of a soak."""

from .soak import SECONDS_TO_WARM_UP, SHARE_OF_MAXIMUM

_NAMES = {
    "sidecar": "memory of the sidecar, MB",
    "store": "memory of the store, MB",
    "descriptors": "open descriptors of the sidecar",
    "p50": "p50, ms",
    "p99": "p99, ms",
}

_TEXT = """# Soak

`make soak` mixes everything for ten minutes on one sidecar: checks, repeated checks, reservations,
settlements, cancellations, `/v1/authorize` and operators' calls. They come on a fixed schedule, at
{share:.0%} of what this machine can do. Meanwhile an operator assigns plans, the policy is edited every two
seconds, and the store, a primary and a replica behind Sentinels, fails over every minute. Every decision is
recorded, and `ratelimit verify` checks the [history](history.md). `pytest tests/soak` does the same for
less than a minute.

The last run, {date} at commit {commit}: {seconds} seconds, {rate:.0f} requests a second (the maximum was
{maximum:.0f}, with the client, the store and the Sentinels on the same 2 cores).

| | first third | last third | change |
|---|--:|--:|--:|
{rows}

The figures are medians of the seconds of each third, after {warm_up} seconds of warm-up.

- Answers by status: {statuses}. 503 are settlements and operators' calls during a failover; each can be
  repeated. Unexpected answers: {unexpected}.
- Failovers: {failovers}. Edits of the policy: {reloads}.
- History: {decisions} decisions, {settlements} settlements, {by_outage} decided by `on_outage` during
  failovers; faults: {faults}.

![Memory, descriptors and latencies over time](figures/soak.svg)
"""


def write_page(path, result, date, commit):
    """Write the page."""
    history = result.history
    path.write_text(
        _TEXT.format(
            share=SHARE_OF_MAXIMUM,
            date=date,
            commit=commit,
            seconds=round(result.samples[-1].at),
            rate=result.rate,
            maximum=result.maximum,
            rows="\n".join(_make_row(result, name) for name in _NAMES),
            warm_up=SECONDS_TO_WARM_UP,
            statuses=", ".join(f"{count:,} times {status}" for status, count in result.statuses.items()),
            unexpected=len(result.unexpected),
            failovers=len(result.failovers),
            reloads=result.reloads,
            decisions=f"{history['decisions']:,}",
            settlements=f"{history['settlements']:,}",
            by_outage=f"{history['sources'].get('outage', 0):,}",
            faults=sum(history["fault_counts"].values()),
        )
    )


def _make_row(result, name):
    first, last = result.find_medians(name)
    return f"| {_NAMES[name]} | {first:.4g} | {last:.4g} | {result.find_growth(name):+.1%} |"
