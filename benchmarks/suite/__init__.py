"""The benchmarks, one file each: its cells, how to measure one, and what would be wrong."""
