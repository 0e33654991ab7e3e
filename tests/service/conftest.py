"""Sidecars as users run them: a process of their own, on a real server."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

POLICY = """
default_plan: free
models: {small: [qwen3-4b], large: [qwen3-235b]}
plans:
  anonymous: {limits: {requests: {rate: 2/hour}}}
  free:
    limits:
      requests: {rate: 20/hour, burst: 5}  # slow: what comes back while a busy machine stalls does not show
      tokens: {unit: tokens, rate: 1000/hour}
  pro:
    limits:
      requests: {rate: {small: 100/minute, large: 10/minute, other: 10/minute}, per: [key, model]}
      tokens: {unit: tokens, rate: 100000/minute, per: [tenant]}
  strict:
    limits:
      requests: {rate: 20/minute, on_outage: deny}
keys:
  vk_partner: {plan: pro, tenant: acme}
"""


class Process:
    """A running sidecar: its address, a client, its output, and its policy file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, policy: Path) -> None:
        self.process = process
        self._output = output
        self.policy = policy
        address = self.await_output(
            lambda output: re.search(r"listens on (\S+)|\"address\": *\"([^\"]+)", output)
        )
        address = address[1] or address[2]
        if address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"))
            self.client = httpx.Client(transport=transport, base_url="http://sidecar", timeout=10)
        else:
            self.client = httpx.Client(base_url=address, timeout=10)
        self.address = address

    @property
    def output(self) -> str:
        return self._output.read_text()

    def await_output(self, find):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = find(self.output)
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the sidecar never said it; it said:\n{self.output}")

    def check(self, key: str, **fields) -> httpx.Response:
        return self.client.post("/v1/check", json={"key": key, **fields})


@contextlib.contextmanager
def running(*flags: str, env: dict[str, str] | None = None, policy: str = POLICY):
    with tempfile.TemporaryDirectory(prefix="sidecar-") as folder:
        file = Path(folder, "policy.yaml")
        file.write_text(policy)
        output = Path(folder, "output")
        command = [sys.executable, "-m", "service", "serve", "--policy", str(file), "--port", "0", *flags]
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200", **(env or {})},
            )
        sidecar = None
        try:
            sidecar = Process(process, output, file)
            yield sidecar
        finally:
            if sidecar:
                sidecar.client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) in {0, -signal.SIGTERM}, output.read_text()


@pytest.fixture(scope="session")
def sidecar():
    """A sidecar with nothing configured but its policy and a pepper."""
    with running("--key-pepper", "a-pepper-for-tests") as process:
        yield process


@pytest.fixture
def start():
    """Start sidecars with flags of the test's own; they stop with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *flags, **options: stack.enter_context(running(*flags, **options))


@pytest.fixture(scope="module")
def module_start():
    """As `start`, for sidecars that a whole module shares."""
    with contextlib.ExitStack() as stack:
        yield lambda *flags, **options: stack.enter_context(running(*flags, **options))


@pytest.fixture
def key():
    """A key that no other test has used."""
    return f"vk_{os.urandom(12).hex()}"
