"""nginx with njs and the shipped configuration, of which only the addresses are changed."""

import shutil
from contextlib import contextmanager
from pathlib import Path

from ..processes import find_free_port, run_program
from .run_nginx import build_nginx_command
from .shipped import EXAMPLES, accepts_connections

EXAMPLE = EXAMPLES / "nginx-njs"


def write_nginx_njs_config(folder, port, sidecar_port, upstream_port):
    """Write the shipped configuration with other addresses, and its script, to a folder."""
    text = (EXAMPLE / "nginx.conf").read_text()
    for shipped, replacement in {
        "listen 8000;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8080;": f"server 127.0.0.1:{sidecar_port};",
        "http://127.0.0.1:8080/": f"http://127.0.0.1:{sidecar_port}/",
        "server 127.0.0.1:9000;": f"server 127.0.0.1:{upstream_port};",
    }.items():
        assert text.count(shipped) == 1
        text = text.replace(shipped, replacement)
    (folder / "nginx.conf").write_text(text)
    shutil.copyfile(EXAMPLE / "ratelimit.js", folder / "ratelimit.js")


@contextmanager
def run_nginx_njs(sidecar_port: int, upstream_port: int, folder: Path):
    """Run nginx with njs until the end of the block, which gets its base URL.

    Args:
        sidecar_port: of the sidecar, or of what takes its place.
        upstream_port: of the API.
        folder: for the configuration, `access.log` and `error.log`.
    """
    port = find_free_port()
    write_nginx_njs_config(folder, port, sidecar_port, upstream_port)
    command = build_nginx_command("-p", f"{folder}/", "-c", "nginx.conf")
    with run_program(command, folder / "output.log", lambda: accepts_connections(port)):
        yield f"http://127.0.0.1:{port}"
