"""The table of mutants fits the code, and docs/promises.md fits the table. Only `make mutants` runs them."""

import pytest
from lupa.lua51 import LuaRuntime

from .page import PAGE, read_rows
from .promised_tests import find_tests, list_other_files, list_promises, make_pattern, read_promises
from .runner import read_output
from .table import PROMISES, ROOT, read_mutants

MUTANTS = read_mutants()
TESTS = find_tests()

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@each_mutant
def test_a_mutant_can_be_made(mutant):
    text = (ROOT / mutant.file).read_text()
    changed = mutant.apply(text)
    assert changed != text
    # A file that cannot be compiled would fail every test and show nothing.
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")
    else:
        LuaRuntime().compile(changed)


@each_mutant
def test_the_tests_that_are_expected_to_catch_it_exist(mutant):
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        names = TESTS[mutant.promise][file]
        assert not name or name in names


def test_a_text_that_is_not_there_once_is_refused():
    with pytest.raises(ValueError, match="must occur once"):
        MUTANTS[0].apply("")
    with pytest.raises(ValueError, match="not 2 times"):
        MUTANTS[0].apply(2 * MUTANTS[0].text)


def test_no_two_mutants_are_the_same():
    assert len({mutant.guard for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.promise, mutant.file, mutant.text, mutant.replacement) for mutant in MUTANTS}) == len(
        MUTANTS
    )


@pytest.mark.parametrize("promise", PROMISES)
def test_every_promise_has_mutants_and_tests(promise):
    assert sum(mutant.promise == promise for mutant in MUTANTS) >= 3
    assert sum(map(len, TESTS[promise].values())) >= 3


def test_the_pattern_finds_the_tests_of_a_promise_and_no_others():
    names = {name for files in TESTS.values() for found in files.values() for name in found}
    for promise in PROMISES:
        found = {name for name in names if make_pattern(promise) in name}
        assert found == {name for name in names if promise in list_promises(name)}


def test_the_page_lists_exactly_the_mutants_and_a_test_of_the_promise_for_each():
    rows = read_rows()
    assert [(row["name"], row["guard"], row["file"]) for row in rows] == [
        (mutant.name, mutant.guard, mutant.file) for mutant in MUTANTS
    ]
    for row in rows:
        file, _, name = row["test"].partition("::")
        assert name in TESTS[row["name"].partition(".")[0]][f"tests/{file}"], row


def test_the_page_has_the_words_of_the_promises():
    promises, page = read_promises(), PAGE.read_text()
    assert [*promises] == PROMISES
    for promise, (title, sentence) in promises.items():
        assert f"## {promise} {title}\n\n{sentence}\n" in page


@pytest.mark.parametrize(
    ("name", "promises"),
    [
        ("test_p1_x", ["P1"]),
        ("test_p1_p11_x_p2_y", ["P1", "P11"]),
        ("test_x_p1_y", []),
        ("test_px_y", []),
        ("make_p1_x", []),
    ],
)
def test_a_test_is_of_the_promises_at_the_start_of_its_name(name, promises):
    assert list_promises(name) == promises


def test_other_files_come_cheapest_room_first_and_without_the_gateways():
    rooms = ["service", "gateways", "unit", "failover", "store"]
    files = {f"tests/{room}/test_a.py": [] for room in rooms}
    assert list_other_files(files, ["tests/store/test_a.py"]) == [
        "tests/unit/test_a.py",
        "tests/service/test_a.py",
        "tests/failover/test_a.py",
    ]


GREEN = "tests/unit/test_a.py::test_p1_a PASSED [100%]\n1 passed\n"
RED = "tests/unit/test_a.py::test_p1_a[x - y] FAILED\nFAILED tests/unit/test_a.py::test_p1_a[x - y] - no\n"
SLOW = "FAILED tests/unit/test_a.py::test_p1_a - Failed: Timeout (>60.0s) from pytest-timeout.\n"
HUNG = "tests/unit/test_a.py::test_p1_a PASSED [ 50%]\ntests/unit/test_a.py::test_p1_b[x - y] "
BROKEN = "ERROR tests/unit/test_a.py - SyntaxError: invalid syntax\n"


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        (GREEN, 0, (None, False, "")),
        ("no tests ran", 5, (None, False, "")),
        (RED, 1, ("tests/unit/test_a.py::test_p1_a", False, "")),
        (SLOW, 1, ("tests/unit/test_a.py::test_p1_a", True, "")),
        (HUNG, None, ("tests/unit/test_a.py::test_p1_b", True, "")),
    ],
)
def test_what_pytest_prints_tells_which_test_went_red(text, code, expected):
    assert read_output(text, code) == expected


@pytest.mark.parametrize(("text", "code"), [(BROKEN, 2), ("cannot open", 4), ("", None)])
def test_a_run_that_went_wrong_is_no_test_gone_red(text, code):
    test, _, error = read_output(text, code)
    assert test is None
    assert error
