"""The sidecar's metrics: one registry for each application, and what `/metrics` answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from ratelimit.observers.metrics import PrometheusMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

MULTIPROCESS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the folder in which several workers share their metrics.

`prometheus_client` reads it when it is imported."""

_HIDDEN_SUFFIX: Final = "_created"
_POLICY_INFO: Final = "ratelimit_policy_info"


class SidecarMetrics(PrometheusMetrics):
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        super().__init__(self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics, those of other workers too, and their media type.

        Args:
            accept: the `Accept` header, which chooses between Prometheus' text format and OpenMetrics.
        """
        registry = self._registry
        if folder := os.environ.get(MULTIPROCESS):
            _forget_dead_workers(Path(folder))
            registry = CollectorRegistry()
            MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        shown = CollectorRegistry()
        shown.register(_ShownMetrics(registry))
        encode, media_type = choose_encoder(accept)
        return encode(shown), media_type


class _ShownMetrics(Collector):
    """The metrics of a registry without series that say nothing.

    Those are the times at which counters were created, and the versions of earlier policies, which a metric
    shared by several workers cannot remove.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith(_HIDDEN_SUFFIX) and (metric.name != _POLICY_INFO or sample.value)
            ]
            yield metric


def _forget_dead_workers(folder: Path) -> None:
    """Remove the gauges of workers that have ended. What they counted stays."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if not _is_alive(int(pid)):
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and belongs to another user
        return True
    return True
