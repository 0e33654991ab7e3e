"""What is in the wheel and in the sdist."""

import re
import tarfile
import zipfile
from importlib import metadata

import pytest

import ratelimit

from .conftest import LEFTOVERS


@pytest.fixture(scope="module")
def wheel_files(distributions):
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        return set(wheel.namelist())


@pytest.fixture(scope="module")
def sdist_files(distributions):
    """The names in the sdist, without its folder."""
    with tarfile.open(distributions["sdist"]) as sdist:
        return {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}


@pytest.fixture(scope="module")
def info(distributions):
    """The wheel's metadata."""
    [folder] = [
        path for path in zipfile.Path(distributions["wheel"]).iterdir() if path.name.endswith(".dist-info")
    ]
    return metadata.PathDistribution(folder)


def test_both_have_the_version_of_the_library(distributions, info):
    assert distributions["sdist"].name == f"ratelimit_sidecar-{ratelimit.__version__}.tar.gz"
    assert distributions["wheel"].name == f"ratelimit_sidecar-{ratelimit.__version__}-py3-none-any.whl"
    assert info.version == ratelimit.__version__


def test_the_wheel_has_exactly_the_files_of_both_packages(wheel_files, tracked_files):
    packages = {name for name in tracked_files if name.startswith(("ratelimit/", "service/"))}
    assert {name for name in wheel_files if ".dist-info/" not in name} == packages
    assert {
        "ratelimit/py.typed",
        "service/py.typed",
        "ratelimit/engine/lua/check.lua",
        "ratelimit/engine/lua/settle.lua",
        "ratelimit/version.py",
    } <= packages


def test_the_wheel_has_the_licence(wheel_files):
    assert f"ratelimit_sidecar-{ratelimit.__version__}.dist-info/licenses/LICENSE" in wheel_files


def test_the_sdist_has_exactly_the_files_of_the_checkout(sdist_files, tracked_files):
    assert sdist_files - {"PKG-INFO"} == set(tracked_files)
    assert {"LICENSE", "README.md", "pyproject.toml"} <= sdist_files


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_lies_about_in_a_folder_is_in_neither(name, wheel_files, sdist_files):
    assert name not in wheel_files | sdist_files


def test_the_metadata_name_the_command_and_all_extras(info):
    [command] = [entry for entry in info.entry_points if entry.group == "console_scripts"]
    assert (command.name, command.value) == ("ratelimit", "service.cli:main")
    extras = set(info.metadata.get_all("Provides-Extra"))
    assert {"service", "embedded", "metrics", "tracing", "grpc", "gateways", "bench", "dev"} <= extras
    assert info.metadata["License-Expression"] == "MIT"
    assert re.match(r"# ", info.metadata.get_payload())  # the README
