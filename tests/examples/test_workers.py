"""Web applications with several worker processes on one real store, started by the commands in the README."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from ..processes import find_free_port, run_program
from .python_examples import ROOT, VARIABLES, find_command

COMMANDS = {
    "gunicorn with a fork after the import": ("gunicorn --preload", ()),
    "gunicorn with threads": ("gunicorn --preload", ("--threads", "4")),
    "uvicorn with workers": ("uvicorn --workers", ()),
}
WORKERS, BURST, SECONDS_PER_TOKEN = 4, 5, 12  # of an unknown key; see examples/policies/starter.yaml
MOST_ROUNDS = 20


@pytest.mark.parametrize(("command", "more"), COMMANDS.values(), ids=list(COMMANDS))
def test_p1_worker_processes_share_exactly_the_burst(command, more, valkey_url, open_client, tmp_path):
    store = open_client(valkey_url)
    store.flushall()
    port = find_free_port()
    url = f"http://127.0.0.1:{port}"
    line = [word.replace("8000", str(port)) for word in find_command(command)]
    output = tmp_path / "output"
    variables = {**VARIABLES, "RATELIMIT_REDIS": valkey_url, "PYTHONUNBUFFERED": "1"}
    others = count_connections(store)

    def is_ready():
        try:
            return httpx.get(f"{url}/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def send(_):
        """Send a request on a connection of its own, which any worker may take."""
        return httpx.get(url, headers={"X-Api-Key": "sk-made-up"}, trust_env=False, timeout=30).status_code

    program = run_program(["/usr/bin/env", "-C", str(ROOT), *line, *more], output, is_ready, **variables)
    with program, ThreadPoolExecutor(8) as threads:
        started = time.monotonic()
        statuses = []
        for _ in range(MOST_ROUNDS):
            statuses += threads.map(send, range(40))
            connections = count_connections(store) - others
            if connections >= WORKERS:
                break
        refilled = math.ceil((time.monotonic() - started) / SECONDS_PER_TOKEN)
    assert connections >= WORKERS  # each worker decided something; threads have a connection each
    assert set(statuses) == {200, 429}
    assert BURST <= statuses.count(200) <= BURST + refilled
    assert "Traceback" not in output.read_text()


def count_connections(store):
    return len(store.client_list())
