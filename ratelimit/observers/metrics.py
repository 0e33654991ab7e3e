"""Metrics for Prometheus. Their labels come from the policy alone: never a key, a tenant or a model id.

```python
limiter = Limiter("redis://localhost:6379", policy, observers=[PrometheusMetrics()])
```

Every series of a policy exists from the start, with the value 0: a query sees the first denial of a limit as
an increase, and no request can add a series. `docs/metrics.md` lists all metrics.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final, Literal, get_args

from ratelimit.decision.limit_state import BLOCKED
from ratelimit.engine.check_script import find_raw_decision, unpack_time
from ratelimit.engine.limit_scan import LimitScan
from ratelimit.observers.metric_families import MetricFamilies
from ratelimit.observers.observer import EndOutcome, Observer
from ratelimit.policy.spec import OTHER
from ratelimit.stores.failures import FailureReason
from ratelimit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from ratelimit.decision.decision import Decision, Source
    from ratelimit.engine.layout import Layout
    from ratelimit.engine.resolver import ResolvedCheck
    from ratelimit.observers.metric_families import Count
    from ratelimit.observers.observer import End
    from ratelimit.policy import Policy

ReloadResult = Literal["loaded", "refused"]
"""What became of a policy file that was read again."""

UnlimitedReason = Literal["unknown-domain", "no-key"]
"""Why a request of Envoy's rate-limit service has no limit."""

_ADMITTING: Final[tuple[Source, ...]] = ("store", "lease", "outage")
_DENYING: Final[tuple[Source, ...]] = ("store", "denial-memory", "outage")
_STATUS_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_MILLISECONDS: Final = 1000
_MAX_LAYOUTS: Final = 10_000


class PrometheusMetrics(Observer):
    """Counts what a limiter does, in metrics of `prometheus_client`.

    With several processes, set `PROMETHEUS_MULTIPROC_DIR` as the documentation of `prometheus_client` says.

    Args:
        registry: where the metrics are registered; None for the default registry of `prometheus_client`.

    Raises:
        ImportError: `prometheus_client` is missing; the extra `metrics` has it.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._families = MetricFamilies(registry)
        self._by_layout: dict[Layout, _SubjectCounters] = {}
        self._policy_version = ""
        self._is_up: bool | None = None
        self._leased_names: set[str] = set()
        families = self._families
        self._count_invalid = families.checks.labels("", "", "invalid", "").inc
        self._count_opened = families.make_count(families.reservations.labels("opened"))
        self._observe_seconds = families.observe_store_seconds
        self._observe_checks = families.observe_checks_per_call
        self._count_clamped = families.make_count(families.clamped_timestamps)
        self._ends = {
            outcome: families.reservations.labels(outcome)
            for outcome in get_args(EndOutcome)
            if outcome != "charged"
        }
        self._failures = {reason: families.store_errors.labels(reason) for reason in get_args(FailureReason)}
        self._reloads = {result: families.policy_reloads.labels(result) for result in get_args(ReloadResult)}
        self._unlimited = {
            reason: families.unlimited_requests.labels(reason) for reason in get_args(UnlimitedReason)
        }
        families.build_info.labels(__version__).set(1)
        families.store_up.set(0)
        families.breaker_open.set(0)

    def note_decision(self, check: ResolvedCheck, decision: Decision, started: int, call_size: int) -> None:  # noqa: ARG002 - the interface
        """Count a decision; see `Observer.note_decision`."""
        subject = check.subject
        counters = self._by_layout.get(subject.layout)
        if counters is None:
            counters = self._add_counters(subject.plan, subject.model_class, subject.layout)
        allowed, source = decision.allowed, decision.source
        if allowed:
            counters.count_allowed[source]()
            if source == "lease":
                return
        elif source == "outage" and decision.is_unavailable:
            counters.count_unavailable()
        else:
            counters.count_denied[source]()
        self._count_limits(check, decision, counters)

    def _count_limits(self, check: ResolvedCheck, decision: Decision, counters: _SubjectCounters) -> None:
        """Count the limits that denied a check or are nearly used up, and what else the reply tells."""
        allowed = decision.allowed
        raw = find_raw_decision(decision)
        if raw is None or check.subject.blocked:
            for name in decision.violated:
                counters.count_denial_by_name[name]()
            return
        _, _, raw_check, reply, t, reservation, _ = raw
        if check.timestamp is not None and check.timestamp != (unpack_time(reply) if t is None else t):
            self._count_clamped()
        if reservation is not None and reservation == check.reservation and allowed:
            self._count_opened()
        # During an outage only the limits that are decided in this process are in the reply.
        if raw_check.subject.layout is not counters.layout:
            counters = counters.with_layout(raw_check.subject.layout)
        denying, near = counters.scan.find(raw_check, reply, t, allowed)
        for index in denying:
            counters.count_denial[index]()
        for index in near:
            counters.count_near[index]()

    def note_invalid(self) -> None:
        """Count a check that was refused before it was decided; see `Observer.note_invalid`."""
        self._count_invalid()

    def note_call(self, checks: int, seconds: float) -> None:
        """Count a call that the store answered; see `Observer.note_call`."""
        self._observe_seconds(seconds)
        if checks:
            self._observe_checks(checks)
        if self._is_up is not True:
            self._set_up(value=True)

    def note_failure(self, reason: FailureReason) -> None:
        """Count a call that failed; see `Observer.note_failure`."""
        self._failures[reason].inc()
        if self._is_up is not False:
            self._set_up(value=False)

    def note_breaker(self, is_open: bool) -> None:  # noqa: FBT001 - the interface
        """Set the gauge of the circuit breaker; see `Observer.note_breaker`."""
        self._families.breaker_open.set(is_open)

    def _set_up(self, *, value: bool) -> None:
        self._is_up = value
        self._families.store_up.set(value)

    def note_end(self, end: End) -> None:
        """Count a settlement or a cancellation; see `Observer.note_end`."""
        if end.outcome != "charged":
            self._ends[end.outcome].inc()
        usage = end.usage
        if usage is None or end.outcome not in {"settled", "charged"}:
            return
        plan, model_class = end.plan, end.model_class or ""
        for direction, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if tokens:
                self._families.tokens.labels(plan, model_class, direction).inc(tokens)
        if usage.latency_ms is not None:
            self._families.upstream_seconds.labels(plan, model_class).observe(
                usage.latency_ms / _MILLISECONDS
            )
        if usage.status is not None:
            status_class = _STATUS_CLASSES[usage.status // 100 - 1]
            self._families.upstream_responses.labels(plan, model_class, status_class).inc()

    def note_policy(self, policy: Policy) -> None:
        """Make every series of a policy; see `Observer.note_policy`."""
        if self._policy_version:
            self._families.policy_info.labels(self._policy_version).set(0)
        self._policy_version = policy.version
        self._families.policy_info.labels(policy.version).set(1)
        self._by_layout.clear()
        classes = (None, OTHER, *dict.fromkeys(policy.classes.values()))
        for plan, limits in policy.plans.items():
            modes = {limit.name: limit.mode for limit in limits.limits}
            for name in modes:
                self._families.leased_tokens.labels(name)
            for model_class in classes:
                _SubjectCounters(self._families, plan, model_class, modes)
                self._families.make_usage_series(plan, model_class or "", _STATUS_CLASSES)

    def count_reload(self, result: ReloadResult) -> None:
        """Count a policy file that was read again."""
        self._reloads[result].inc()

    def count_unlimited_request(self, reason: UnlimitedReason) -> None:
        """Count a request of Envoy's rate-limit service that has no limit."""
        self._unlimited[reason].inc()

    def set_leased_tokens(self, tokens: Mapping[str, float]) -> None:
        """Set how many tokens are out on lease, from `Limiter.count_leased_tokens`.

        Call this every second, or before each scrape.
        """
        self._leased_names |= tokens.keys()
        for name in self._leased_names:
            self._families.leased_tokens.labels(name).set(tokens.get(name, 0.0))

    def set_trimmed_unread_records(self, count: int) -> None:
        """Set how many usage records left the stream before they were read."""
        self._families.usage_trimmed_unread.set(count)

    def _add_counters(self, plan: str, model_class: str | None, layout: Layout) -> _SubjectCounters:
        modes = {placed.limit.name: placed.limit.mode for placed in layout.placed_limits}
        counters = _SubjectCounters(self._families, plan, model_class, modes).with_layout(layout)
        if len(self._by_layout) >= _MAX_LAYOUTS:  # the limiter makes new ones whenever the policy changes
            self._by_layout.clear()
        self._by_layout[layout] = counters
        return counters


class _SubjectCounters:
    """The counters of one plan and model class, as functions that count one.

    Attributes:
        layout: the limits that apply.
        scan: finds the limits to count.
        count_allowed: for checks that were admitted, by source.
        count_denied: for checks that were denied, by source.
        count_unavailable: for checks that were denied because the store did not answer.
        count_denial_by_name: for denials, by the name of the limit.
        count_denial: for denials, one for each placed limit of the layout.
        count_near: for checks after which a limit was nearly used up, likewise.
    """

    layout: Layout | None = None
    scan: LimitScan
    count_denial: Sequence[Count]
    count_near: Sequence[Count]

    def __init__(
        self, families: MetricFamilies, plan: str, model_class: str | None, modes: Mapping[str, str]
    ) -> None:
        label = model_class or ""
        count, checks = families.make_count, families.checks
        self.count_allowed = {
            source: count(checks.labels(plan, label, "allowed", source)) for source in _ADMITTING
        }
        self.count_denied = {
            source: count(checks.labels(plan, label, "denied", source)) for source in _DENYING
        }
        self.count_unavailable = count(checks.labels(plan, label, "unavailable", "outage"))
        self.count_denial_by_name = {
            name: count(families.denials.labels(plan, name, label, mode)) for name, mode in modes.items()
        }
        self.count_denial_by_name[BLOCKED] = count(families.denials.labels(plan, BLOCKED, label, "enforce"))
        self._count_near_by_name = {
            name: count(families.near_limit.labels(plan, name)) if mode == "enforce" else _count_nothing
            for name, mode in modes.items()
        }

    def with_layout(self, layout: Layout) -> _SubjectCounters:
        """Return the same counters for the limits of a layout."""
        made = copy.copy(self)
        made.layout, made.scan = layout, LimitScan(layout)
        names = [placed.limit.name for placed in layout.placed_limits]
        made.count_denial = [self.count_denial_by_name[name] for name in names]
        made.count_near = [self._count_near_by_name[name] for name in names]
        return made


def _count_nothing() -> None:
    """Count nothing: a limit in shadow mode is not near."""
