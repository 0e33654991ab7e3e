"""ratelimit.service: systemd accepts it, and it is right about the sidecar."""

import re
import shutil
import subprocess
import sys

import pytest

from .shipped import DEPLOY, MIN_STOP, SETTINGS, read_seconds

UNIT = DEPLOY / "ratelimit.service"
PROGRAM = "/opt/ratelimit/bin/ratelimit"
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze, of the package systemd"
)


def read_options():
    """Return the lines `NAME=VALUE` of the unit, by name."""
    options = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        options.setdefault(name, []).append(value)
    return options


def read_variables():
    [variables] = read_options()["Environment"]
    return dict(pair.split("=", 1) for pair in variables.split())


def verify(text, folder):
    """Let systemd read a unit whose program exists on this machine."""
    unit = folder / UNIT.name
    unit.write_text(text.replace(PROGRAM, sys.executable))
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path):
    done = verify(UNIT.read_text(), tmp_path)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])


@needs_systemd
def test_systemd_complains_of_a_misspelt_option(tmp_path):
    done = verify(UNIT.read_text().replace("KillMode", "KilMode"), tmp_path)
    assert "KilMode" in done.stderr


@needs_systemd
def test_systemd_finds_little_that_the_service_may_do(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd 250 or newer")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_has_no_user_capability_or_folder_of_its_own():
    options = read_options()
    hardened = {
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
    }
    hardened |= {"CapabilityBoundingSet": "", "PrivateDevices": "yes", "MemoryDenyWriteExecute": "yes"}
    assert {name: options[name] for name in hardened} == {name: [value] for name, value in hardened.items()}


def test_it_starts_and_reloads_the_sidecar():
    options = read_options()
    assert options["ExecStart"] == [f"{PROGRAM} serve"]
    assert options["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert options["Restart"] == ["on-failure"]


def test_a_stop_reaches_the_parent_of_the_workers_only():
    # A worker that got SIGTERM from systemd and from its parent would end its drain.
    assert read_options()["KillMode"] == ["mixed"]


def test_every_variable_is_a_setting():
    assert read_variables().keys() <= SETTINGS


def test_no_secret_is_in_the_unit():
    assert not [name for name in read_variables() if name.endswith(("TOKEN", "PEPPER", "REDIS"))]
    assert read_options()["EnvironmentFile"] == ["/etc/ratelimit/ratelimit.env"]


def test_the_time_to_stop_is_longer_than_the_drain():
    [stop] = read_options()["TimeoutStopSec"]
    assert read_seconds(stop) > read_seconds(read_variables()["RATELIMIT_DRAIN"]) + MIN_STOP > MIN_STOP


def test_the_readme_installs_what_the_unit_needs():
    readme = (DEPLOY / "README.md").read_text()
    for path in ("/opt/ratelimit", read_variables()["RATELIMIT_POLICY"], *read_options()["EnvironmentFile"]):
        assert path in readme
