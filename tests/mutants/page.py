"""docs/promises.md: what a run has shown."""

import re

from .promised_tests import find_tests, make_pattern, read_promises
from .table import PROMISES, ROOT

PAGE = ROOT / "docs" / "promises.md"

_HEAD = """\
# Each promise, its tests, and what they catch

Run on {date}, commit {commit}, by `make mutants`, which writes this page. {count} times, one guard of a
promise was broken in a copy of the project, and the tests named after it were run until one went red.
None of the changes was missed. Without them the same tests are green.

What the promises mean, and why they hold, is in [semantics.md](semantics.md).
"""

_ROW = re.compile(
    r"^\| (?P<name>P\d+\.\d+) \| (?P<guard>.+) \| `(?P<file>\S+)` \| `(?P<test>\S+)`(?: \(hangs\))? \|$",
    re.MULTILINE,
)


def write_page(outcomes, date, commit):
    """Write docs/promises.md.

    Args:
        outcomes: what became of each mutant; none has survived.
        date: the day of the run.
        commit: the commit that was run.
    """
    promises, tests = read_promises(), find_tests()
    parts = [_HEAD.format(date=date, commit=commit, count=len(outcomes))]
    for promise in PROMISES:
        of_promise = [outcome for outcome in outcomes if outcome.mutant.promise == promise]
        parts.append(_make_section(promise, promises[promise], tests[promise], of_promise))
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def read_rows():
    """Return the mutants on the page: name, guard, file and the test that caught each."""
    return [match.groupdict() for match in _ROW.finditer(PAGE.read_text(encoding="utf-8"))]


def _make_section(promise, described, tests, outcomes):
    title, sentence = described
    count = sum(map(len, tests.values()))
    files = ", ".join(f"`{file.removeprefix('tests/')}` ({len(names)})" for file, names in tests.items())
    lines = [
        f"## {promise} {title}",
        "",
        sentence,
        "",
        f"Tests: {count}, run by `pytest -k {make_pattern(promise)}`. In `tests/`: {files}.",
        "",
        "| | what was broken | in | caught by |",
        "|---|---|---|---|",
        *(_make_row(outcome) for outcome in outcomes),
        "",
    ]
    return "\n".join(lines)


def _make_row(outcome):
    mutant = outcome.mutant
    test = outcome.test.removeprefix("tests/")
    hangs = " (hangs)" if outcome.hangs else ""
    return f"| {mutant.name} | {mutant.guard} | `{mutant.file}` | `{test}`{hangs} |"
