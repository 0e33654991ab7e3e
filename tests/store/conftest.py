"""Stores that refuse, are silent, or keep their answers to themselves."""

import socket

import pytest

from ..processes import find_free_port
from .proxy import Proxy


@pytest.fixture
def refusing_url():
    """The address of a server that has just gone."""
    return f"redis://:s3cret@127.0.0.1:{find_free_port()}/0"


@pytest.fixture
def silent_url():
    """The address of a frozen server: its kernel still takes connections, and nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://:s3cret@127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.fixture(params=["refusing", "silent"])
def dead_url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def proxy(real_url):
    """A proxy in front of each real server."""
    proxy = Proxy(real_url.removeprefix("unix://"))
    yield proxy
    proxy.close()


@pytest.fixture
def commands(client_of, real_url):
    """Count the commands that the server has run, but for those that ask."""

    def count():
        stats = client_of(real_url).info("commandstats")
        return sum(values["calls"] for name, values in stats.items() if name != "cmdstat_info")

    return count
