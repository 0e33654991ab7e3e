"""Sidecars as users run them: `ratelimit serve` in a process of its own."""

import re
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import httpx

from .processes import run_program, stop_process, wait_until

ADDRESS = re.compile(r'listens on (\S+)\n|"address": *"([^"]+)"')
"""Where a sidecar prints that it listens, with console and with JSON logs."""


class Sidecar:
    """A running sidecar.

    Attributes:
        process: the process that was started.
        policy_file: the policy that it serves.
        address: `http://HOST:PORT`, or `unix:PATH`.
        client: an HTTP client for that address.
    """

    def __init__(self, process, output, policy_file):
        self.process = process
        self.policy_file = policy_file
        self._output = output
        self._expected_exit_code = 0
        match = ADDRESS.search(self.output)
        self.address = match[1] or match[2]
        if self.address.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.address.removeprefix("unix:"))
            self.client = httpx.Client(transport=transport, base_url="http://sidecar", timeout=10)
        else:
            self.client = httpx.Client(base_url=self.address, timeout=10, trust_env=False)

    @property
    def pid(self):
        return self.process.pid

    @property
    def port(self):
        """The TCP port; None on a Unix socket."""
        return self.client.base_url.port

    @property
    def output(self):
        """Everything that the sidecar has printed, on standard output and standard error."""
        return self._output.read_text()

    def wait_for_output(self, text):
        """Wait until the sidecar has printed a text; fail the test if it ends before."""
        wait_until(
            lambda: text in self.output or self.process.poll() is not None,
            describe=lambda: f"{text!r} in the output\n{self.output}",
        )
        assert text in self.output, f"ended without {text!r}:\n{self.output}"

    def check(self, key, **fields):
        """Send one check to `/v1/check` and return the response."""
        return self.client.post("/v1/check", json={"key": key, **fields})

    def stop(self):
        """Stop the sidecar with SIGTERM and return its exit code."""
        return stop_process(self.process)

    def kill(self):
        """Kill the sidecar, which leaves it no time to clean up."""
        self._expected_exit_code = -signal.SIGKILL
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self):
        """Freeze the sidecar until the end of the block: it keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self):
        """Close the client and stop the sidecar; fail the test unless it ends as it should."""
        self.client.close()
        assert self.stop() == self._expected_exit_code, self.output


@contextmanager
def run_sidecar(*flags, policy, **variables):
    """Run a sidecar until the end of the block, on a free port unless `flags` say otherwise.

    Args:
        flags: flags of `ratelimit serve`.
        policy: the text of its policy file.
        variables: environment variables to add.
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-") as folder:
        policy_file, output = Path(folder, "policy.yaml"), Path(folder, "output")
        policy_file.write_text(policy)
        command = [sys.executable, "-m", "service", "serve"]
        command += ["--policy", str(policy_file), "--port", "0", *flags]
        # Wide enough that no printed line is folded.
        variables = {"COLUMNS": "200", **variables}
        with run_program(command, output, lambda: ADDRESS.search(output.read_text()), **variables) as process:
            sidecar = Sidecar(process, output, policy_file)
            try:
                yield sidecar
            finally:
                sidecar.close()
