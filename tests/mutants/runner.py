"""Runs the tests of a promise in a copy of the project that has one mutant."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from .promised_tests import list_other_files, make_pattern
from .table import ROOT

TEST_TIMEOUT = 60
"""Seconds for one test. A test that takes longer hangs, and has failed."""

RUN_TIMEOUT = 900
"""Seconds for one run of pytest, for a test that cannot be interrupted."""

_COPIED = ["benchmarks", "docs", "examples", "ratelimit", "service", "tests"]
_IGNORED = shutil.ignore_patterns("__pycache__", "results")
_FAILED = re.compile(r"^FAILED (\S+?::\w+)(.*)$", re.MULTILINE)
_BROKEN = re.compile(r"^ERROR (.*)$", re.MULTILINE)
_STARTED = re.compile(r"^(\S+?::\w+)", re.MULTILINE)
_NOTHING_FOUND = 5  # pytest's exit code


class Outcome(NamedTuple):
    """What became of a mutant.

    Attributes:
        mutant: the mutant.
        test: the test that went red, as `FILE::NAME`; None if none did.
        hangs: whether it did because it took too long.
        seconds: how long it took to find that.
        error: what was wrong with the run itself; empty if nothing was.
    """

    mutant: object
    test: str | None
    hangs: bool
    seconds: float
    error: str = ""


class Copy:
    """A copy of the project, in which one mutant at a time is run.

    Args:
        folder: where to put it. The temporary files of its tests go there, too.
    """

    def __init__(self, folder):
        self._root = folder / "project"
        self._temporary = folder / "t"
        self._temporary.mkdir(parents=True)
        self._root.mkdir()
        for name in _COPIED:
            shutil.copytree(ROOT / name, self._root / name, ignore=_IGNORED)
        for file in ROOT.iterdir():
            if file.is_file() and file.name != ".git":
                shutil.copy2(file, self._root)
        self._stamp = time.time()
        self._process = None
        self._is_stopped = False

    def run_mutant(self, mutant, tests):
        """Run the tests of the mutant's promise until one goes red, and return the outcome.

        Args:
            mutant: the mutant.
            tests: the names of the promise's tests, by file.
        """
        started = time.monotonic()
        file = self._root / mutant.file
        original = file.read_text(encoding="utf-8")
        self._write(file, mutant.apply(original))
        try:
            test, hangs, error = self._run_in_turn(mutant, list_other_files(tests, mutant.tests))
        finally:
            self._write(file, original)
        return Outcome(mutant, test, hangs, time.monotonic() - started, error)

    def _run_in_turn(self, mutant, others):
        """Run the tests that are expected to go red, and the others only if none does."""
        for paths in filter(None, (mutant.tests, others)):
            test, hangs, error = self._run_tests(paths, make_pattern(mutant.promise))
            if test or error:
                return test, hangs, error
        return None, False, ""

    def run_unchanged(self, tests):
        """Run tests without any mutant; return the first that fails anyhow, or None."""
        test, _, error = self._run_tests(tests, "test_p") if tests else (None, False, "")
        return test or error or None

    def stop(self):
        """End the run that is under way, in another thread, and start no other."""
        self._is_stopped = True
        if self._process is not None:
            _end_session(self._process)

    def find_package(self):
        """Return the path of the package that the tests import."""
        command = [sys.executable, "-c", "import ratelimit; print(ratelimit.__file__)"]
        done = subprocess.run(
            command, cwd=self._temporary, env=self._environment, check=True, text=True, capture_output=True
        )
        return done.stdout.strip()

    def _write(self, file, text):
        file.write_text(text, encoding="utf-8")
        # Python keeps compiled files by the second: two mutants of one second must not be mistaken.
        self._stamp += 10
        os.utime(file, (self._stamp, self._stamp))

    @property
    def _environment(self):
        return {
            **os.environ,
            "PYTHONPATH": str(self._root),
            "TMPDIR": str(self._temporary),
            "HYPOTHESIS_PROFILE": "mutants",
        }

    def _run_tests(self, paths, pattern):
        """Return the test that went red, whether it hung, and what was wrong with the run itself."""
        options = ["-x", "-v", "-rfE", "--tb=no", "-p", "no:cacheprovider", "--timeout", str(TEST_TIMEOUT)]
        command = [sys.executable, "-m", "pytest", *options, "-k", pattern, *paths]
        log = self._temporary / "log"
        if self._is_stopped:
            return None, False, "stopped"
        with log.open("w") as output:
            # A session of its own, so that a run that hangs is ended with all that it has started.
            self._process = process = subprocess.Popen(
                command,
                cwd=self._root,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(RUN_TIMEOUT)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end_session(process)
        return read_output(log.read_text(errors="replace"), code)


def read_output(text, code):
    """Return the test that went red, whether it hung, and what was wrong with the run itself.

    Args:
        text: what pytest has printed.
        code: its exit code; None if it was ended because it took too long.
    """
    if code is None:
        started = _STARTED.findall(text)
        return (started[-1], True, "") if started else (None, True, "hung before the first test")
    if (failed := _FAILED.search(text)) is not None:
        return failed[1], "Timeout" in failed[2], ""
    if (broken := _BROKEN.search(text)) is not None:
        return None, False, f"not a test went red but {broken[1]}"
    if code not in {0, _NOTHING_FOUND}:
        return None, False, f"pytest ended with {code}: {text[-300:]}"
    return None, False, ""


def _end_session(process):
    """End a run of pytest that has not ended, with all that it has started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
