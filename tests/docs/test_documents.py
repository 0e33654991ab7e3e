"""README and docs/ do what they say: every command, snippet and link is tried."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ratelimit import Policy

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/**/*.md")),
]


def blocks(language):
    """Return every fenced block of a language, with a name to tell it by."""
    return list(_blocks(language))


def _blocks(language):
    for document in DOCUMENTS:
        text = document.read_text()
        for match in re.finditer(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            yield pytest.param(match[1], id=f"{document.relative_to(ROOT)}:{line}")


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that commands in the documents name, and `ratelimit` on the path."""
    [policy] = [block.values[0] for block in blocks("yaml") if "README" in block.id]
    (tmp_path / "policy.yaml").write_text(policy)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.fixture(scope="module")
def address():
    """What `make run` starts, on a port of its own."""
    command = [
        sys.executable,
        "-m",
        "service",
        "serve",
        "--policy",
        "examples/policies/starter.yaml",
        "--port",
        "0",
    ]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield re.search(r"http://\S+", process.stdout.readline())[0]
        process.terminate()


def run(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    command = ["bash", "-c", command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r\n", "\n")


def as_pattern(expected):
    """Turn what a document shows into a pattern: `…` stands for anything, and so do times and waits."""
    text = " ".join(expected.split())
    pattern = (
        re.escape(text).replace("…", ".*?").replace(re.escape("retry in 2.855 s"), r"retry in [0-9.]+ s")
    )
    return pattern.replace(r"\ ", r"\s*")


@pytest.mark.parametrize("block", blocks("console"))
def test_every_command_shown_prints_what_is_shown(block, checkout, address):
    for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        output = run(command.replace("http://127.0.0.1:8080", address), checkout)
        seen = " ".join(line for line in output.splitlines() if not line.startswith("date:"))
        for part in filter(None, expected.split("\n\n")):
            shown, unshown = as_pattern(part), "content-length:"
            seen = re.sub(rf"{unshown} [0-9]+ ?", "", seen) if unshown not in part else seen
            assert re.search(shown, seen, re.DOTALL), f"{command}\nshows\n{part}\nbut prints\n{output}"


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_snippet_runs(block, checkout):
    script = checkout / "snippet.py"
    script.write_text(block)
    output = run(f"{shlex.quote(sys.executable)} -W error snippet.py", checkout)
    for expected in re.findall(r"print\(.*\)  # (\S+)$", block, re.MULTILINE):
        assert expected in output


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_policy_shown_is_valid(block):
    Policy.from_text(block)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("block", blocks("sh"))
def test_every_make_target_shown_exists(block):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\S+)", block, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_docs_are_served_where_the_readme_says(address):
    assert httpx.get(f"{address}/docs").status_code == 200


def test_every_example_policy_is_valid():
    policies = [*ROOT.glob("examples/**/*.yaml")]
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
