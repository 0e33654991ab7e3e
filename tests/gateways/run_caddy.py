"""The shipped Caddyfile in a running Caddy."""

from contextlib import contextmanager

from ..processes import find_free_port, run_program
from .shipped import EXAMPLES, accepts_connections, find_program, replace_addresses

CONFIG = EXAMPLES / "caddy" / "Caddyfile"


@contextmanager
def run_caddy(sidecar_port, upstream_port, folder, *, text=None):
    """Run Caddy until the end of the block, with the shipped Caddyfile unless given; gives its URL."""
    port = find_free_port()
    text = replace_addresses(
        text or CONFIG.read_text(),
        {
            "\n:8000 {": f"\nhttp://127.0.0.1:{port} {{",
            "reverse_proxy 127.0.0.1:8080 {": f"reverse_proxy 127.0.0.1:{sidecar_port} {{",
            "reverse_proxy 127.0.0.1:9000 {": f"reverse_proxy 127.0.0.1:{upstream_port} {{",
        },
    )
    (folder / "Caddyfile").write_text(text)
    command = [find_program("caddy"), "run", "--config", str(folder / "Caddyfile")]
    # Caddy saves its configuration below these folders; not in those of the user who runs the tests.
    homes = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with run_program(command, folder / "output.log", lambda: accepts_connections(port), **homes):
        yield f"http://127.0.0.1:{port}"
