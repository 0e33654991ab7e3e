"""Dependencies: each is pinned, and `make audit` says clearly whether it could look for known faults."""

import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+-]*")
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
VERSIONS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}


def find_installed():
    """Return each installed distribution that the project needs, with all extras, and its version."""
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    waiting = [Requirement(text) for group in groups for text in group]
    versions, done = {}, set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name == canonicalize_name(PROJECT["name"]) or (name, *needed.extras) in done:
            continue
        done.add((name, *needed.extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system, or another Python
            continue
        versions[name] = found.version
        for text in found.requires or ():
            more = Requirement(text)
            extras = needed.extras or {""}
            if more.marker is None or any(more.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(more)
    return versions


def test_every_dependency_is_pinned_exactly():
    assert [line for line in LINES if not PINNED.fullmatch(line)] == []
    assert len(VERSIONS) == len(LINES)


def test_every_distribution_that_the_project_needs_is_pinned():
    installed = find_installed()
    assert len(installed) > 50
    assert {name: version for name, version in installed.items() if VERSIONS.get(name) != version} == {}


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("exit 1", 0, "not audited: pip-audit is not installed"),
        ('[ "$3" = --version ] || { echo ConnectionError; exit 1; }', 0, "not audited: pip-audit could not"),
        ('[ "$3" = --version ] || echo No known vulnerabilities found', 0, "No known vulnerabilities found"),
        ('[ "$3" = --version ] || { echo Found 1 known vulnerability; exit 1; }', 2, "Found 1 known"),
    ],
    ids=["not installed", "no network", "nothing found", "something found"],
)
def test_make_audit_succeeds_without_an_audit_only_if_it_says_so(tmp_path, script, code, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    command = ["make", "audit", f"BIN={tmp_path}", "-o", ".venv/.dev"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code, done.stderr
    assert told in done.stdout
    assert ("not audited" in told) == ("not audited" in done.stdout)
