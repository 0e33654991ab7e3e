"""Metrics as tests read them: numbers by name and labels."""

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ratelimit.observers.metrics import PrometheusMetrics


def read_counts(text, name, **labels):
    """Return the sum of the samples `name` that have these labels, in the text of `/metrics`."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert any(sample.name == name for sample in samples), f"there is no {name}"
    return sum(
        sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
    )


def list_series(text):
    """Return each series in the text of `/metrics`, as name and labels."""
    return sorted(
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


class Counts:
    """Metrics of a limiter in this process."""

    def __init__(self):
        self._registry = CollectorRegistry()
        self.observer = PrometheusMetrics(self._registry)

    def read(self, name, **labels):
        """Return the sum of the samples `name` that have these labels; 0 without any."""
        return sum(
            sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
