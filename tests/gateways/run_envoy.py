"""Envoy with the shipped configuration, of which only the addresses are changed."""

from contextlib import contextmanager
from pathlib import Path

from ..processes import find_free_port, run_program
from .run_envoy_grpc import find_envoy
from .shipped import EXAMPLES, accepts_connections

ENVOY = find_envoy()
CONFIG = EXAMPLES / "envoy" / "envoy-http.yaml"


def write_envoy_config(file, port, sidecar_port, upstream_port, changes=None):
    """Write the shipped configuration with other addresses, and with more changes, to a file."""
    text = CONFIG.read_text()
    for shipped, replacement in {
        "address: 0.0.0.0, port_value: 8000": f"address: 127.0.0.1, port_value: {port}",
        "address: 127.0.0.1, port_value: 8080": f"address: 127.0.0.1, port_value: {sidecar_port}",
        "address: 127.0.0.1, port_value: 9000": f"address: 127.0.0.1, port_value: {upstream_port}",
        **(changes or {}),
    }.items():
        assert text.count(shipped) == 1
        text = text.replace(shipped, replacement)
    file.write_text(text)


@contextmanager
def run_envoy(sidecar_port: int, upstream_port: int, folder: Path, changes=None):
    """Run Envoy until the end of the block, which gets its base URL.

    Args:
        sidecar_port: of the sidecar, or of what takes its place.
        upstream_port: of the API.
        folder: for the configuration, `access.log` and `error.log`.
        changes: other texts of the configuration, and what to write for each.
    """
    port = find_free_port()
    write_envoy_config(folder / "envoy.yaml", port, sidecar_port, upstream_port, changes)
    # Hot restart would let only one Envoy run on a machine. The tests read the log, so it is written soon.
    command = [str(ENVOY), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--disable-hot-restart"]
    command += ["--log-level", "warning", "--file-flush-interval-msec", "50"]
    with run_program(
        command, folder / "access.log", lambda: accepts_connections(port), errors=folder / "error.log"
    ):
        yield f"http://127.0.0.1:{port}"
