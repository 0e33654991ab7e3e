"""docs/faults.md lists every fault that is tested."""

import re
from pathlib import Path

import pytest

from .page import PAGE, TITLES

FOLDER = Path(__file__).parent


def test_every_file_of_faults_is_on_the_page():
    assert {file.name for file in FOLDER.glob("test_*.py")} - {"test_page.py"} == set(TITLES)


@pytest.mark.parametrize("file", TITLES)
def test_every_fault_is_on_the_page(file):
    page = PAGE.read_text()
    [section] = re.findall(rf"^### {TITLES[file]}$(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    tests = re.findall(r"^def (test_\w+)", (FOLDER / file).read_text(), re.MULTILINE)
    assert tests
    for test in tests:
        assert f"`{test}`" in section, f"{test}: run the tests, and then tests/faults/page.py"
