"""The shipped HAProxy configuration in a running HAProxy."""

import shutil
from contextlib import contextmanager

import pytest

from ..processes import find_free_port, run_program
from .shipped import EXAMPLES, accepts_connections, find_program, replace_addresses

CONFIG = EXAMPLES / "haproxy" / "haproxy.cfg"
SCRIPT = EXAMPLES / "haproxy" / "ratelimit.lua"


def find_haproxy():
    """Return the path of HAProxy; skip the test where it is not installed."""
    program = find_program("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed, and no Python package has it")
    return program


@contextmanager
def run_haproxy(sidecar_port, upstream_port, folder, *, script=None):
    """Run HAProxy until the end of the block, with the shipped Lua unless given; gives its URL."""
    port = find_free_port()
    checks = f"abns@ratelimit-checks-{port}"  # another one may run on this machine
    text = replace_addresses(
        CONFIG.read_text(),
        {
            "bind :8000": f"bind 127.0.0.1:{port}",
            "server api 127.0.0.1:9000": f"server api 127.0.0.1:{upstream_port}",
            "server sidecar 127.0.0.1:8080": f"server sidecar 127.0.0.1:{sidecar_port}",
            "abns@ratelimit-checks": checks,
        },
    )
    (folder / "haproxy.cfg").write_text(text)
    script = replace_addresses(script or SCRIPT.read_text(), {"abns@ratelimit-checks": checks})
    (folder / "ratelimit.lua").write_text(script)
    command = [find_haproxy(), "-db", "-C", str(folder), "-f", "haproxy.cfg"]
    with run_program(command, folder / "output.log", lambda: accepts_connections(port)):
        yield f"http://127.0.0.1:{port}"
