"""The commands of examples/deploy/README.md lead to a sidecar that starts.

Stand-ins take the place of Docker and systemctl.
"""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys

import httpx
import pytest

from ..processes import find_free_port, run_program
from ..sidecars import ADDRESS, run_sidecar
from .shipped import DEPLOY, ROOT, SETTINGS
from .test_systemd import PROGRAM, UNIT, read_options, read_variables

POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 100/second}}}}\n"
SECRETS = ["RATELIMIT_KEY_PEPPER", "RATELIMIT_GATEWAY_TOKEN", "RATELIMIT_ADMIN_TOKEN"]

pytestmark = pytest.mark.skipif(
    not shutil.which("curl") or not shutil.which("openssl"), reason="needs curl and openssl"
)


def read_commands(heading):
    """Return the commands of a section, of all its blocks."""
    text = (DEPLOY / "README.md").read_text()
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]
    return "".join(re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE))


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the commands use of the checkout."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture
def run_commands(checkout):
    """Run commands in the copy of the checkout. What would change this machine only notes its arguments."""
    programs, called = checkout / "stand-ins", checkout / "called"
    programs.mkdir()
    for name in ("docker", "systemctl", "kubectl"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {shlex.quote(str(called))}\n')
        program.chmod(0o755)

    def run(commands):
        ended = subprocess.run(
            ["bash", "-euc", commands],
            cwd=checkout,
            env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, called.read_text().splitlines()

    return run


def read_variables_file(file):
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_compose_gets_secrets_with_which_the_command_shown_is_answered(run_commands, checkout):
    commands = read_commands("Compose")
    before, check = commands.split("curl", 1)
    run_commands(before)
    variables = read_variables_file(checkout / "examples" / "deploy" / ".env")
    assert list(variables) == SECRETS
    with run_sidecar(policy=POLICY, **variables) as sidecar:
        address = sidecar.address.removeprefix("http://")
        printed, called = run_commands(
            "cd examples/deploy\n. ./.env\ncurl" + check.replace("127.0.0.1:8080", address)
        )
        assert "is shorter than" not in sidecar.output
    assert "HTTP/1.1 200 OK" in printed
    assert called == ["docker compose up --build --detach --wait"]


def test_systemd_gets_the_files_with_which_the_unit_starts_a_sidecar(run_commands, tmp_path, valkey_url):
    system = tmp_path / "system"
    (system / "etc" / "systemd" / "system").mkdir(parents=True)
    commands = "".join(
        f"{line}\n" for line in read_commands("systemd").splitlines() if "/opt/ratelimit" not in line
    )
    commands = re.sub(r"(?<![\w.])/etc/", f"{system}/etc/", commands)
    _, called = run_commands(commands)
    assert called == ["systemctl daemon-reload", "systemctl enable --now ratelimit"]

    [environment_file] = (system / path.lstrip("/") for path in read_options()["EnvironmentFile"])
    assert stat.S_IMODE(environment_file.stat().st_mode) == 0o600  # secrets
    policy = system / read_variables()["RATELIMIT_POLICY"].lstrip("/")
    assert stat.S_IMODE(policy.stat().st_mode) & stat.S_IROTH  # the service has a user of its own
    assert (system / "etc" / "systemd" / "system" / UNIT.name).read_text() == UNIT.read_text()

    variables = read_variables() | read_variables_file(environment_file)
    assert {"RATELIMIT_REDIS", *SECRETS} <= variables.keys() <= SETTINGS
    variables |= {"RATELIMIT_POLICY": str(policy), "RATELIMIT_REDIS": valkey_url, "RATELIMIT_DRAIN": "0s"}
    variables["RATELIMIT_PORT"] = str(find_free_port())
    command, output = [sys.executable, "-m", "service", "serve"], tmp_path / "output"
    assert read_options()["ExecStart"] == [f"{PROGRAM} serve"]
    with run_program(command, output, lambda: ADDRESS.search(output.read_text()), **variables):
        address = ADDRESS.search(output.read_text())[2]
        assert httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
        assert httpx.post(f"{address}/v1/check", json={"key": "vk"}, trust_env=False).status_code == 401
    assert '"WARNING"' not in output.read_text()


def test_the_paths_and_extras_of_the_other_commands_exist(checkout):
    for heading in ("systemd", "Kubernetes"):
        for path in re.findall(r"examples/[\w./-]*\w", read_commands(heading)):
            assert (checkout / path).exists(), path
    assert "--constraint constraints.txt '.[service,grpc]'" in read_commands("systemd")


def test_the_readme_names_what_production_needs():
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"^\| `(RATELIMIT_\w+)`", text, re.MULTILINE))
    assert named == {*SECRETS, "RATELIMIT_REDIS", "RATELIMIT_TRUSTED_PROXIES", "RATELIMIT_DRAIN"}
