"""Stores that refuse connections, never answer, or lose their replies; and a count of a server's commands."""

import socket
from collections import Counter

import pytest

from ..processes import find_free_port
from ..stored import used
from .proxy import Proxy


@pytest.fixture
def refusing_url():
    """A URL at which no server listens."""
    return f"redis://:s3cret@127.0.0.1:{find_free_port()}/0"


@pytest.fixture
def silent_url():
    """A URL that accepts connections and never answers, like a server whose process is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"redis://:s3cret@127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.fixture(params=["refusing", "silent"])
def dead_url(request):
    """Both of these URLs in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def proxy(real_url):
    """A proxy in front of each real server in turn."""
    proxy = Proxy(real_url.removeprefix("unix://"))
    yield proxy
    proxy.close()


@pytest.fixture
def count_commands(open_client, real_url):
    """Count the commands that the server has run, by name, without the INFO commands of this count."""

    def count():
        stats = open_client(real_url).info("commandstats")
        return Counter({name: values["calls"] for name, values in stats.items() if name != "cmdstat_info"})

    return count


@pytest.fixture
def read_used(client):
    """Read how many tokens are missing from a bucket in the store."""

    def read(limit="requests", name="rl1:{k}:k"):
        return round(used(client, limit, name), 2)

    return read
