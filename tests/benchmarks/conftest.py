"""What the tests of the benchmarks share: the command as a function."""

import pytest

from benchmarks import cli


@pytest.fixture
def run_command(tmp_path):
    """Run the command with results in a folder of the test's; returns the exit code."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main([*map(str, arguments), "--results", str(tmp_path)])
        return left.value.code

    return run


@pytest.fixture
def figure():
    """Look up the rounds of a figure in a document, by contestant, cell and step of a sweep."""

    def rounds(document, contestant, name, cell=None, at=None):
        [found] = [
            entry
            for entry in document["figures"]
            if (entry["contestant"], entry["figure"], entry["at"]) == (contestant, name, at)
            and cell in {None, entry["cell"]}
        ]
        assert found["min"] <= found["median"] <= found["max"]
        return found["rounds"]

    return rounds
