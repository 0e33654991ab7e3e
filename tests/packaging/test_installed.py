"""The wheel and the sdist, installed: the sidecar runs from there, not from the checkout."""

from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

import ratelimit

from ..processes import find_free_port, run_program
from ..sidecars import ADDRESS

POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 5/minute}}}}\n"


@pytest.mark.parametrize("package", ["ratelimit", "service"])
def test_both_packages_are_those_that_were_installed(installed, package):
    ended = installed.run_script(f"import {package}; print({package}.__file__)")
    assert Path(ended.stdout.strip()).is_relative_to(installed.site_packages), ended.stderr


def test_the_command_prints_the_version_that_was_installed(installed):
    ended = installed.run_command("ratelimit", "--version")
    assert ended.stdout == f"ratelimit {ratelimit.__version__}\n", ended.stderr
    ended = installed.run_script(
        "from importlib.metadata import version; print(version('ratelimit-sidecar'))"
    )
    assert ended.stdout.strip() == ratelimit.__version__


@contextmanager
def run_installed(environment, folder, **variables):
    """Run the sidecar of an environment until the end of the block, and return its address."""
    policy, output = folder / "policy.yaml", folder / "output"
    policy.write_text(POLICY)
    command = [str(environment.folder / "bin" / "ratelimit"), "serve", "--policy", str(policy), "--port", "0"]
    variables = {"RATELIMIT_DEADLINE": "10s", "PYTHONPATH": "", "COLUMNS": "200", **variables}
    with run_program(command, output, lambda: ADDRESS.search(output.read_text()), **variables):
        yield ADDRESS.search(output.read_text())[1]


def send_check(address, key):
    return httpx.post(f"{address}/v1/check", json={"key": key}, timeout=20, trust_env=False)


@pytest.mark.parametrize("store", ["embedded", "valkey"])
def test_the_sidecar_starts_and_answers(installed, store, valkey_url, tmp_path):
    url = valkey_url if store == "valkey" else "embedded://"
    with run_installed(installed, tmp_path, RATELIMIT_REDIS=url) as address:
        answer = send_check(address, f"vk_{tmp_path.name}")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["source"], answer.json()["limits"][0]["remaining"]) == ("store", 4)


def test_the_extras_of_the_image_are_enough_for_http_and_grpc(image, valkey_url, tmp_path):
    port = find_free_port()
    variables = {"RATELIMIT_REDIS": valkey_url, "RATELIMIT_GRPC_PORT": str(port)}
    with run_installed(image, tmp_path, **variables) as address:
        assert send_check(address, f"vk_{tmp_path.name}").status_code == 200
        assert httpx.get(f"{address}/metrics", trust_env=False).status_code == 200
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)


def test_the_image_without_a_store_says_what_it_needs(image, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ended = image.run_command("ratelimit", "serve", "--policy", str(policy))
    assert ended.returncode == 2
    assert "embedded://" in ended.stderr
    assert "pip install 'ratelimit-sidecar[embedded]'" in ended.stderr
