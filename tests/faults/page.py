"""Writes what the tests of faults saw into docs/faults.md.

pytest tests/faults --faults-json ROWS.json && python -m tests.faults.page ROWS.json
"""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
TITLES = {
    "test_store.py": "The store",
    "test_links.py": "The link to the store",
    "test_failovers.py": "Clusters and Sentinels",
    "test_sidecars.py": "Sidecars",
    "test_clocks.py": "Clocks",
}
"""The files of the tests, in the order of the page."""

_COLUMNS = {
    "Fault": "fault",
    "Allowed": "allowed",
    "Decisions": "decisions",
    "By `on_outage`": "by_on_outage",
    "Over-admitted": "over_admitted",
    "Lost": "lost",
    "Charged more": "charged_more",
    "Denied without reason": "denied_without_reason",
    "Hung": "hung",
    "Test": "test",
}
_BEGIN, _END = "<!-- rows -->", "<!-- end of rows -->"


def make_section(rows, seen):
    """Return the tables of the page.

    Args:
        rows: what the tests saw.
        seen: when, and at which commit.
    """
    lines = [_BEGIN, "", f"Seen {seen}.", ""]
    order = list(TITLES)
    rows = sorted(rows, key=lambda row: order.index(row["file"]))
    for file, group in groupby(rows, key=itemgetter("file")):
        lines += [f"### {TITLES[file]}", "", f"In [{file}](../tests/faults/{file}).", ""]
        lines += [make_line(_COLUMNS), make_line("---" for _ in _COLUMNS)]
        lines += [make_line(_read_cells(row)) for row in group]
        lines += [""]
    return "\n".join([*lines, _END])


def make_line(cells):
    return f"| {' | '.join(cells)} |"


def _read_cells(row):
    for name in _COLUMNS.values():
        value = row[name]
        if name == "test":
            yield f"`{value}`"
        elif name == "fault" and row["store"] != "one server":
            yield f"{value} ({row['store']})"
        else:
            yield f"{value:,}" if isinstance(value, int) else value


def main(*paths):
    rows = [row for path in paths for row in json.loads(Path(path).read_text())]
    commit = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    section = make_section(rows, f"on {datetime.now(UTC):%Y-%m-%d}, at commit {commit}")
    pattern = re.compile(f"{re.escape(_BEGIN)}.*{re.escape(_END)}", re.DOTALL)
    PAGE.write_text(pattern.sub(lambda _: section, PAGE.read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
