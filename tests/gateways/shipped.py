"""The shipped configurations: where they are, and how tests run them on addresses of their own."""

import shutil
import socket
import sysconfig
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def replace_addresses(text, replacements):
    """Return the text of a shipped configuration with other addresses; each must occur exactly once."""
    for shipped, replacement in replacements.items():
        assert text.count(shipped) == 1, f"{shipped!r} occurs {text.count(shipped)} times"
        text = text.replace(shipped, replacement)
    return text


def find_program(name):
    """Return the path of a program of the tests' environment, or of the machine; None if it is missing."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


def accepts_connections(port):
    """Whether a server listens on the TCP port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
