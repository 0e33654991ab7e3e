"""The public API under type checkers in their strict modes: what is right passes, and mistakes are found."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [Path(__file__).with_name(name) for name in ("api.py", "mistakes.py")]
WRONG = {
    ("mistakes.py", number)
    for number, line in enumerate(FILES[1].read_text().splitlines(), 1)
    if line.endswith("# wrong")
}


def run(command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    return done.stdout, done.stdout + done.stderr


def find_with_mypy(tmp_path):
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", *FILES]
    output, everything = run(command)
    assert "Found 13 errors in 1 file (checked 2 source files)" in output, everything
    return {
        (Path(file).name, int(line))
        for file, line in re.findall(r"^(\S+):(\d+): error:", output, re.MULTILINE)
    }


def find_with_pyright(tmp_path):
    project = tmp_path / "pyrightconfig.json"
    options = {"include": [str(file) for file in FILES], "extraPaths": [str(ROOT)]}
    project.write_text(json.dumps({**options, "typeCheckingMode": "strict"}))
    command = [sys.executable, "-m", "basedpyright", "-p", project, "--outputjson"]
    output, everything = run([*command, "--pythonpath", sys.executable])
    try:
        found = json.loads(output)
    except ValueError:
        pytest.fail(everything)
    assert found["summary"]["filesAnalyzed"] == len(FILES)
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    }


@pytest.mark.parametrize("find_errors", [find_with_mypy, find_with_pyright])
def test_type_checkers_find_each_mistake_and_nothing_else(find_errors, tmp_path):
    assert len(WRONG) == 13
    assert find_errors(tmp_path) == WRONG
