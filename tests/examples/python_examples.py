"""What the tests of examples/python have in common: they run the commands that its README shows."""

import importlib.util
import os
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "python"
_SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

VARIABLES = {
    "RATELIMIT_KEY_PEPPER": "pepper-for-tests",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "NO_PROXY": "127.0.0.1",  # an HTTP proxy that the environment names must not be used
}
"""The environment of every example, beside that of the tests."""


def find_command(start):
    """Return the only command in the README that begins like this, as a list of arguments."""
    blocks = _SHELL_BLOCK.findall((FOLDER / "README.md").read_text())
    lines = [line for block in blocks for line in block.splitlines()]
    [command] = [line for line in lines if line.startswith(start)]
    return shlex.split(command)


def read_first_line(name):
    """Return the command that the first line of an example says."""
    first, _, _ = (FOLDER / name).read_text().partition("\n")
    return shlex.split(first.removeprefix("# Run it: "))


def import_example(name):
    """Import an example afresh."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
