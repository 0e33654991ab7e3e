"""The metrics themselves: names, labels, buckets."""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

try:
    from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    advice = "prometheus_client is missing: pip install 'ratelimit-sidecar[metrics]'"
    raise ModuleNotFoundError(advice, name=error.name) from None

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry

STORE_BUCKETS: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
"""Seconds of a call to the store. Its deadline is 0.05 unless a setting says otherwise."""

CALL_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
"""Checks of one call."""

UPSTREAM_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
"""Seconds of an answer of the API. Those of a language model take long."""


_HAS_SEVERAL_PROCESSES: Final = "PROMETHEUS_MULTIPROC_DIR" in os.environ
"""Whether counts must be shared at once. `prometheus_client` decides that when it is imported, too."""

_CAN_WAIT: Final = not _HAS_SEVERAL_PROCESSES and getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether counts may be added to their series later."""

Count = Callable[[], None]
"""Adds one to a series."""


class _PendingCount:
    """A count that is added to its series when metrics are collected. It takes a tenth of `Counter.inc`."""

    __slots__ = ("_series", "pending")

    def __init__(self, series: Counter) -> None:
        self._series = series
        self.pending = 0

    def add_one(self) -> None:
        # With the global interpreter lock no other thread runs within this line: a test shows it.
        self.pending += 1

    def flush(self) -> None:
        """Add the count to the series."""
        count, self.pending = self.pending, 0
        if count:
            self._series.inc(count)


class _PendingHistogram(Collector):
    """A histogram without labels, of this process only. It takes a third of `Histogram.observe`."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = buckets
        # As `Histogram` writes them: 1 is 1.0.
        self._names = [*(str(float(bound)) for bound in buckets), "+Inf"]
        self._counts = [0] * len(self._names)
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        sums = accumulate(self._counts)
        buckets = [*zip(self._names, map(float, sums), strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum)


class _PendingCounts(Collector):
    """Flushes all pending counts before other metrics are collected: it is registered first."""

    def __init__(self) -> None:
        self._counts: dict[int, _PendingCount] = {}

    def add(self, series: Counter) -> _PendingCount:
        """Return the pending count of a series; always the same one."""
        return self._counts.setdefault(id(series), _PendingCount(series))

    def collect(self) -> Iterable[Metric]:
        """Flush all counts. There is no metric of its own."""
        for count in [*self._counts.values()]:
            count.flush()
        return ()

    def describe(self) -> Iterable[Metric]:
        """Say that there is no metric of its own."""
        return ()


class MetricFamilies:
    """All metrics. `docs/metrics.md` says what each counts.

    The modes of gauges say how the values of several processes become one.

    Args:
        registry: where they are registered; None for the default registry.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        registry = REGISTRY if registry is None else registry
        self._pending = _PendingCounts()
        registry.register(self._pending)
        subject = ("plan", "model_class")
        self.checks = Counter(
            "ratelimit_checks_total",
            "Checks, by what became of them.",
            (*subject, "result", "source"),
            registry=registry,
        )
        self.denials = Counter(
            "ratelimit_denials_total",
            "Checks that a limit denied, or would have denied in shadow mode.",
            ("plan", "limit", "model_class", "mode"),
            registry=registry,
        )
        self.near_limit = Counter(
            "ratelimit_near_limit_total",
            "Admitted checks after which less than a fifth of the limit's burst was left.",
            ("plan", "limit"),
            registry=registry,
        )
        self.clamped_timestamps = Counter(
            "ratelimit_clamped_timestamps_total",
            "Checks whose timestamp was too far ahead of the store's clock.",
            registry=registry,
        )
        self.observe_store_seconds = _make_histogram(
            registry,
            "ratelimit_store_seconds",
            "Seconds of a call to the store that was answered.",
            STORE_BUCKETS,
        )
        self.observe_checks_per_call = _make_histogram(
            registry, "ratelimit_checks_per_call", "Checks that shared a call to the store.", CALL_BUCKETS
        )
        self.store_errors = Counter(
            "ratelimit_store_errors_total", "Calls to the store that failed.", ("reason",), registry=registry
        )
        self.store_up = Gauge(
            "ratelimit_store_up",
            "1 if the store answered the last call, else 0.",
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.breaker_open = Gauge(
            "ratelimit_breaker_open",
            "1 while no calls are made because the store has failed.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.leased_tokens = Gauge(
            "ratelimit_leased_tokens",
            "Tokens that are out on lease and not spent.",
            ("limit",),
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.reservations = Counter(
            "ratelimit_reservations_total",
            "Reservations, by what became of them.",
            ("outcome",),
            registry=registry,
        )
        self.tokens = Counter(
            "ratelimit_tokens_total", "Tokens that were settled.", (*subject, "direction"), registry=registry
        )
        self.upstream_seconds = Histogram(
            "ratelimit_upstream_seconds",
            "Seconds that the API took to answer, as settlements say.",
            subject,
            buckets=UPSTREAM_BUCKETS,
            registry=registry,
        )
        self.upstream_responses = Counter(
            "ratelimit_upstream_responses_total",
            "Answers of the API, as settlements say.",
            (*subject, "status_class"),
            registry=registry,
        )
        self.policy_reloads = Counter(
            "ratelimit_policy_reloads_total",
            "Policy files that were read again.",
            ("result",),
            registry=registry,
        )
        self.policy_info = Gauge(
            "ratelimit_policy_info",
            "1 for the version of the policy in force.",
            ("version",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.build_info = Gauge(
            "ratelimit_build_info",
            "1 for the version of the program.",
            ("version",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.usage_trimmed_unread = Gauge(
            "ratelimit_usage_trimmed_unread_records",
            "Usage records that left the stream before they were read, of all sidecars on the store.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.unlimited_requests = Counter(
            "ratelimit_unlimited_requests_total",
            "Requests of Envoy's rate-limit service that have no limit.",
            ("reason",),
            registry=registry,
        )

    def make_count(self, series: Counter) -> Count:
        """Return a function that adds one to a series, as fast as possible.

        With several processes it adds to the series at once: what a process that is killed has counted must
        not be lost.
        """
        if not _CAN_WAIT:
            return series.inc
        return self._pending.add(series).add_one

    def make_usage_series(self, plan: str, model_class: str, status_classes: Iterable[str]) -> None:
        """Make the series that settlements of a plan and model class count in."""
        for direction in ("input", "output"):
            self.tokens.labels(plan, model_class, direction)
        self.upstream_seconds.labels(plan, model_class)
        for status_class in status_classes:
            self.upstream_responses.labels(plan, model_class, status_class)


def _make_histogram(
    registry: CollectorRegistry, name: str, documentation: str, buckets: Sequence[float]
) -> Callable[[float], None]:
    """Make a histogram and return what counts a value in it."""
    if not _CAN_WAIT:
        return Histogram(name, documentation, buckets=buckets, registry=registry).observe
    histogram = _PendingHistogram(name, documentation, buckets)
    registry.register(histogram)
    return histogram.observe
