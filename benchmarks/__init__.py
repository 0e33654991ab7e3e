"""Make the project's figures: `python -m benchmarks`."""


class BenchmarkError(RuntimeError):
    """A benchmark could not measure: a program did not start, or an answer did not come."""
