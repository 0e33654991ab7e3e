"""README, docs/ and examples/ are right: every command, snippet and link in them is tried."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ratelimit import Policy

from ..sidecars import run_sidecar

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
]


# A busy machine may need longer than the default deadline, and an outage then decides in place of the store.
RUN_PATIENTLY = """
import runpy
from ratelimit import AsyncLimiter, Limiter
for kind in (AsyncLimiter, Limiter):
    kind.__init__.__kwdefaults__["deadline"] = 10.0
runpy.run_path("snippet.py", run_name="__main__")
"""


def is_missing(name):
    """Return whether a module, or a name of a module, does not exist."""
    module, _, member = name.rpartition(".")
    try:
        if importlib.util.find_spec(name):
            return False
    except ImportError:
        return True
    return not module or not hasattr(importlib.import_module(module), member)


def find_blocks(language):
    """Return every fenced block of a language, named by its document and line."""
    return list(_find_blocks(language))


def _find_blocks(language):
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            before = text[: match.start()]
            needed = re.search(r"<!-- needs: (\S+) -->\n\Z", before)
            skipped = bool(needed) and is_missing(needed[1])
            marks = pytest.mark.skipif(skipped, reason=f"{needed[1]} is missing") if needed else ()
            name = f"{document.relative_to(ROOT)}:{before.count(chr(10)) + 1}"
            yield pytest.param(match[1], id=name, marks=marks)


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that the commands in the documents need."""
    [policy] = [block.values[0] for block in find_blocks("yaml") if "README" in block.id]
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture(scope="module")
def address():
    """The address of what `make run` starts, on a port of its own."""
    starter = ROOT / "examples" / "policies" / "starter.yaml"
    with run_sidecar(policy=starter.read_text()) as sidecar:
        yield sidecar.address


def run_shell(*commands, folder):
    """Run commands in one shell, with `ratelimit` on its path, and return what each of them prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    script = "set -e\n" + "".join(f"{command}\nprintf '\\0'\n" for command in commands)
    shell = ["bash", "-c", script]
    done = subprocess.run(shell, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r\n", "\n").split("\0")[:-1]


def make_pattern(expected):
    """Turn shown output into a pattern, in which `…` stands for any text, and a shown wait for any wait."""
    text = " ".join(expected.split())
    pattern = (
        re.escape(text).replace("…", ".*?").replace(re.escape("retry in 2.855 s"), r"retry in [0-9.]+ s")
    )
    return pattern.replace(r"\ ", r"\s*")


@pytest.mark.parametrize("block", find_blocks("console"))
def test_every_command_shown_prints_what_is_shown(block, checkout, address):
    block = block.replace("http://127.0.0.1:8080", address)
    steps = [step.partition("\n") for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    outputs = run_shell(*(command for command, _, _ in steps), folder=checkout)
    for (command, _, expected), output in zip(steps, outputs, strict=True):
        printed = " ".join(line for line in output.splitlines() if not line.startswith("date:"))
        for part in filter(None, expected.split("\n\n")):
            shown, unshown = make_pattern(part), "content-length:"
            printed = re.sub(rf"{unshown} [0-9]+ ?", "", printed) if unshown not in part else printed
            assert re.search(shown, printed, re.DOTALL), f"{command}\nshows\n{part}\nbut prints\n{output}"


def test_what_a_snippet_needs_is_found_if_it_exists():
    assert not any(map(is_missing, ["ratelimit", "ratelimit.history", "ratelimit.Limiter"]))
    assert all(map(is_missing, ["ratelimit.nothing", "nothing", "nothing.at_all"]))


@pytest.mark.parametrize("block", find_blocks("python"))
def test_every_python_snippet_runs(block, checkout):
    (checkout / "snippet.py").write_text(block)
    command = [sys.executable, "-W", "error", "-c", RUN_PATIENTLY]
    [output] = run_shell(shlex.join(command), folder=checkout)
    for expected in re.findall(r"print\(.*\)  # (\S+)$", block, re.MULTILINE):
        assert expected in output


@pytest.mark.parametrize("block", find_blocks("yaml"))
def test_every_policy_shown_is_valid(block):
    Policy.from_text(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("block", find_blocks("sh"))
def test_every_make_target_shown_exists(block):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", block, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_docs_are_served_where_the_readme_says(address):
    assert httpx.get(f"{address}/docs").status_code == 200


def test_every_example_policy_is_valid():
    policies = [*ROOT.glob("examples/policies/*.yaml")]
    assert policies
    for file in policies:
        Policy.from_file(file)


def test_nothing_committed_names_this_machine_or_a_registry():
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    forbidden = re.compile("/" + "work/|/" + "root/|pypi" + r"\.org|files\.python" + "hosted")
    for file in files:
        text = (ROOT / file).read_text(errors="ignore")
        assert not forbidden.search(text), file
