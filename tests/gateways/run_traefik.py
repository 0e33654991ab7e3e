"""The shipped Traefik configuration in a running Traefik."""

from contextlib import contextmanager

import httpx

from ..processes import find_free_port, run_program
from .shipped import EXAMPLES, accepts_connections, find_program, replace_addresses

STATIC = EXAMPLES / "traefik" / "traefik.yml"
DYNAMIC = EXAMPLES / "traefik" / "dynamic.yml"


@contextmanager
def run_traefik(sidecar_port, upstream_port, folder, *, dynamic=None):
    """Run Traefik until the end of the block, with the shipped routes unless given; gives its URL."""
    port, checks = find_free_port(), find_free_port()
    replacements = {
        '":8000"': f'"127.0.0.1:{port}"',
        '"127.0.0.1:8001"': f'"127.0.0.1:{checks}"',
        # Traefik finds it in the folder in which it is started.
        "filename: dynamic.yml": f"filename: {folder}/dynamic.yml",
    }
    (folder / "traefik.yml").write_text(replace_addresses(STATIC.read_text(), replacements))
    replacements = {
        "http://127.0.0.1:8001/": f"http://127.0.0.1:{checks}/",
        "http://127.0.0.1:8080": f"http://127.0.0.1:{sidecar_port}",
        "http://127.0.0.1:9000": f"http://127.0.0.1:{upstream_port}",
    }
    (folder / "dynamic.yml").write_text(replace_addresses(dynamic or DYNAMIC.read_text(), replacements))
    command = [find_program("traefik"), f"--configFile={folder}/traefik.yml"]

    def is_ready():
        # Traefik takes connections before it has read its routes. The key is one that no test uses.
        url, headers = f"http://127.0.0.1:{checks}/v1/authorize", {"X-RateLimit-Key": f"vk_ready_{port}"}
        return (
            accepts_connections(port)
            and accepts_connections(checks)
            and httpx.get(url, headers=headers, trust_env=False).status_code != 404
        )

    with run_program(command, folder / "output.log", is_ready):
        yield f"http://127.0.0.1:{port}"
