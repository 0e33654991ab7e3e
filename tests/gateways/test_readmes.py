"""The commands of the gateways' READMEs, run as a new user would, protect an API."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager

import httpx
import pytest

from ..processes import find_free_port, wait_until
from .gateways import CLOSES_WITHOUT_SIDECAR
from .run_envoy_grpc import find_envoy
from .run_nginx import find_nginx
from .shipped import EXAMPLES, accepts_connections, replace_addresses

PROGRAMS = {
    "nginx": "nginx",
    "nginx-njs": "nginx",
    "envoy": "envoy",
    "caddy": "caddy",
    "haproxy": "haproxy",
    "traefik": "traefik",
}
"""The program that the README of each folder runs."""


def read_commands(readme):
    """Return the blocks of commands: what starts everything, and what sends requests."""
    start, send = re.findall(r"^```sh\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)[:2]
    return start, send


@contextmanager
def run_script(script, folder, path):
    """Run the commands until the end of the block, with all that they start in the background."""
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(EXAMPLES.parent), "HOME": str(folder)}
    output = folder / "output.log"
    with output.open("ab") as log:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process, output
    finally:
        # The session is the test's own: it holds the gateway, the sidecar and the server in place of the API.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)
        wait_until(lambda: not has_members(process.pid))


def has_members(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def path(tmp_path):
    """The PATH of a new user, who has installed this distribution and a gateway."""
    programs = tmp_path / "bin"
    programs.mkdir()
    commands = {
        "ratelimit": f"{sys.executable} -m service",
        "nginx": str(find_nginx()),
        # Two Envoys on one machine would share memory for a hot restart.
        "envoy": f"{find_envoy()} --disable-hot-restart",
    }
    for name, command in commands.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
    return os.pathsep.join([str(programs), sysconfig.get_path("scripts"), os.environ["PATH"], "/usr/sbin"])


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("openssl"), reason="needs curl and openssl")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_commands_of_the_readme_protect_an_api(name, path, tmp_path):
    if shutil.which(PROGRAMS[name], path=path) is None:
        pytest.skip(f"{PROGRAMS[name]} is not installed")
    for folder in (name, "policies"):
        shutil.copytree(EXAMPLES / folder, tmp_path / folder)
    folder = tmp_path / name
    start, send = read_commands(folder / "README.md")
    ports = {shipped: find_free_port() for shipped in (8000, 8001, 8080, 9000)}
    start = replace_addresses(start, {"serve --policy": f"serve --port {ports[8080]} --policy"})
    start = replace_addresses(start, {"127.0.0.1 9000": f"127.0.0.1 {ports[9000]}"})
    start = start.replace("/tmp/gateway", str(tmp_path / "gateway"))  # noqa: S108 - replaced, not used
    for file in folder.glob("[!R]*"):
        text = file.read_text()
        for shipped, port in ports.items():
            text = re.sub(rf"(?<=[: ]){shipped}\b", str(port), text)
        file.write_text(text)
    send = re.sub(r"localhost:8000\b", f"127.0.0.1:{ports[8000]}", send)

    servers = [ports[shipped] for shipped in (8000, 8080, 9000)]
    with run_script(start, folder, path) as (process, output):
        wait_until(
            lambda: process.poll() is not None or all(map(accepts_connections, servers)),
            describe=lambda: f"servers on {servers}:\n{output.read_text()}",
        )
        assert process.poll() is None, output.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{ports[8080]}", trust_env=False) as sidecar:
            wait_until(lambda: sidecar.get("/readyz").status_code == 200)
            # The first check loads scripts and may take longer than a gateway waits.
            sidecar.get("/v1/authorize", headers={"X-RateLimit-Key": "vk_warm_up"})
        sent = ""
        while "\n429\n" not in sent and sent.count("\n") < 1_000:
            # Again only where a machine that stalls made the gateway give up waiting for a check.
            sent += run_commands(send, path)
    statuses = re.findall(r"^\d{3}$", sent, re.MULTILINE)
    assert statuses[:5] == ["200"] * 5, sent
    assert statuses[-1] == "429", sent
    assert "HTTP/1.1 429 Too Many Requests\n" in sent


def run_commands(script, path):
    """Run commands to their end and return what they printed."""
    command, environment = ["bash", "-c", script], os.environ | {"PATH": path}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_readme_says_whether_it_opens_without_a_sidecar(name):
    text = (EXAMPLES / name / "README.md").read_text()
    assert ("**It opens when the sidecar is gone or frozen,**" in text) == (
        name not in CLOSES_WITHOUT_SIDECAR
    )
