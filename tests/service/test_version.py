"""The version comes from one place, ratelimit/version.py."""

import re
import tomllib
from pathlib import Path

import ratelimit

from ..processes import run_ratelimit
from ..sidecars import run_sidecar

ROOT = Path(__file__).parents[2]
POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 5/minute}}}}\n"


def test_it_is_a_semantic_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", ratelimit.__version__)


def test_the_command_prints_it():
    ended = run_ratelimit("--version")
    assert (ended.returncode, ended.stdout) == (0, f"ratelimit {ratelimit.__version__}\n")


def test_a_sidecar_says_it_in_its_document_and_its_metrics():
    with run_sidecar(policy=POLICY) as sidecar:
        assert sidecar.client.get("/openapi.json").json()["info"]["version"] == ratelimit.__version__
        metrics = sidecar.client.get("/metrics").text
    assert f'ratelimit_build_info{{version="{ratelimit.__version__}"}} 1.0' in metrics


def test_the_project_reads_it_from_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert (ROOT / project["tool"]["hatch"]["version"]["path"]).samefile(ratelimit.version.__file__)
