"""Every figure that the project claims, made by one command: `python -m benchmarks`."""
