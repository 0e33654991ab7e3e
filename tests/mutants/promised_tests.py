"""The promises, and the tests that are named after them. No test is imported for that."""

import ast
import re
from collections import defaultdict

from .table import ROOT

ROOMS = ["unit", "properties", "store", "service", "failover"]
"""The folders whose tests are run against mutants, the cheapest first."""

_NAME = re.compile(r"test_(?:p\d+_)+")
_PROMISE = re.compile(r"^\| \*\*(P\d+) (.+?)\*\* \| (.+) \|$", re.MULTILINE)


def read_promises():
    """Return the title and the text of each promise, as docs/semantics.md has them."""
    text = (ROOT / "docs" / "semantics.md").read_text(encoding="utf-8")
    return {promise: (title, sentence) for promise, title, sentence in _PROMISE.findall(text)}


def find_tests():
    """Return for each promise its tests: their names by file."""
    found = defaultdict(dict)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for promise in list_promises(node.name):
                    found[promise].setdefault(str(file.relative_to(ROOT)), []).append(node.name)
    return found


def list_promises(test):
    """Return the promises after which a test is named."""
    match = _NAME.match(test)
    return re.findall(r"P\d+", match[0].upper()) if match else []


def make_pattern(promise):
    """Return the pattern with which pytest's `-k` finds the tests of a promise."""
    return f"_{promise.lower()}_"


def list_other_files(tests, first):
    """Return the files in `tests` that are run after those named in `first`, the cheapest room first."""
    rooms = [(file.split("/")[1], file) for file in tests]
    files = [(ROOMS.index(room), file) for room, file in rooms if room in ROOMS]
    return [file for _, file in sorted(files) if file not in first]
