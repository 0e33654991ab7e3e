"""What the tests of failover print."""

import sys

import pytest


@pytest.fixture
def report(capsys):
    """Print a line that is seen without `-s`, too: how long the store did not answer is worth knowing."""

    def write(line):
        with capsys.disabled():
            sys.stdout.write(f"\n{line}\n")

    return write
