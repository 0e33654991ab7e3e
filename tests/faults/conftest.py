"""The rows of all faults, and what the tests of one file share."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from .judgement import Row, read_report
from .load import POLICY, Load


def pytest_addoption(parser):
    parser.addoption("--faults-json", help="a file for what the tests of tests/faults saw")


@pytest.fixture(scope="session")
def rows(request):
    """All rows; printed at the end if pytest runs with -s, and written if --faults-json names a file."""
    rows = []
    yield rows
    if request.config.getoption("capture") == "no" and rows:
        sys.stdout.write("\n" + "\n".join(format_rows(rows)) + "\n")
    if path := request.config.getoption("--faults-json", None):
        text = json.dumps([dataclasses.asdict(row) for row in rows], indent=1)
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")  # each has a file of its own
        Path(path + worker).write_text(text + "\n")


def format_rows(rows):
    """Return the lines of a plain table."""
    table = [[field.name for field in dataclasses.fields(Row)][2:]]
    table += [[str(value) for value in dataclasses.astuple(row)][2:] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True))


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Where the sidecars of a file of tests write their history."""
    return tmp_path_factory.mktemp("history") / "history"


@pytest.fixture
def tenant(request):
    """Whom the keys of one test belong to."""
    return "".join(letter for letter in request.node.name if letter.isalnum())[-40:]


@pytest.fixture
def judge(rows, request, tenant):
    """Check what a load left in the histories; note a row and return the checker's report.

    `denied` is the number of denials without a reason, if another policy than `policy` tells it. `may_break`:
    whether connections to the sidecar may end.
    """

    def check(
        load, paths, fault, allowed, store="one server", *, policy=POLICY, denied=None, may_break=False
    ):
        report = read_report(paths, tenant, policy)
        over, lost, more, denied_here = (
            len(report.select_faults(kind))
            for kind in ("over-admitted", "lost", "charged-more", "denied-without-reason")
        )
        denied = denied_here if denied is None else denied
        outages = report.sources["outage"]
        counts = (report.decisions, over, lost, more, denied, outages, load.hung)
        rows.append(Row(request.path.name, request.node.originalname, fault, store, allowed, *counts))
        assert not load.wrong, load.wrong[:5]
        assert load.hung == 0
        assert load.broken == 0 or may_break
        assert report.decisions > 0
        assert report.select_faults("answered-differently") == [] or "forgotten" in allowed
        return report

    return check


@pytest.fixture
def make_load(tenant):
    """Make the load of one test; used as a block."""
    return lambda ports, *options: Load(ports, tenant, *options)
