"""The benchmarks, one file each: its cells, how to measure one, and what would be wrong."""

from typing import Final

from benchmarks.suite import accuracy, azure, gateways, growth, http, library, memory, shortcuts

_MODULES: Final = (library, accuracy, memory, growth, shortcuts, http, gateways, azure)

FULL: Final = {benchmark.name: benchmark for module in _MODULES for benchmark in module.FULL}
QUICK: Final = {benchmark.name: benchmark for module in _MODULES for benchmark in module.QUICK}
