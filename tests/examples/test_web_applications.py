"""The web applications of examples/python, each served by the command in its README."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from ..processes import find_free_port, run_program
from .python_examples import FOLDER, ROOT, VARIABLES, find_command, read_first_line

COMMANDS = {
    "fastapi_app": "uvicorn --app-dir examples/python fastapi_app",
    "starlette_app": "uvicorn --app-dir examples/python starlette_app",
    "flask_app": "flask",
    "django_app": "python examples/python/django_app.py",
}
WITH_HEALTH = [name for name in COMMANDS if name != "fastapi_app"]
FORKED_REQUESTS = Path(__file__).with_name("forked_requests.py")


@contextmanager
def serve(name, store, folder):
    """Run an example as its README says, on another port; yield a client."""
    port = find_free_port()
    command = find_command(COMMANDS[name])
    assert command.count("8000") == 1
    command[command.index("8000")] = str(port)
    command = ["/usr/bin/env", "-C", str(ROOT), *command]
    variables = {**VARIABLES, "RATELIMIT_REDIS": store, "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
    output = folder / "output"
    with (
        run_program(command, output, lambda: _listens(port), **variables),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client
    assert "Traceback" not in output.read_text()


def _listens(port):
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def store(valkey_url, open_client):
    """The URL of an empty Valkey."""
    open_client(valkey_url).flushall()
    return valkey_url


@pytest.fixture(scope="module", params=COMMANDS)
def client(request, valkey_url, open_client, tmp_path_factory):
    """A client of each application in turn, on an empty Valkey."""
    open_client(valkey_url).flushall()
    with serve(request.param, valkey_url, tmp_path_factory.mktemp("web")) as client:
        yield client


def test_the_sixth_request_is_denied_whatever_key_it_claims_to_have(client):
    answers = [client.get("/", headers={"X-Api-Key": f"sk-made-up-{number}"}) for number in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    for left, answer in zip([4, 3, 2, 1, 0, 0], answers, strict=True):
        assert answer.headers["RateLimit-Policy"] == '"requests";q=5;w=60'
        assert answer.headers["RateLimit"].startswith(f'"requests";r={left};t=')
    assert ["Retry-After" in answer.headers for answer in answers] == [False] * 5 + [True]
    denial = answers[-1]
    assert 1 <= int(denial.headers["Retry-After"]) <= 12
    assert denial.headers["Content-Type"] == "application/problem+json"
    assert denial.json()["violated-policies"] == ["requests"]


@pytest.mark.parametrize("client", WITH_HEALTH, indirect=True)
def test_a_path_that_is_left_out_is_not_limited(client):
    answers = [client.get("/health") for _ in range(7)]

    assert [answer.status_code for answer in answers] == [200] * 7
    assert not any("RateLimit" in answer.headers for answer in answers)


@pytest.mark.parametrize("client", ["fastapi_app"], indirect=True)
def test_openapi_shows_the_denials_of_the_fastapi_example(client):
    assert "429" in client.get("/openapi.json").json()["paths"]["/"]["get"]["responses"]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_line_of_an_example_is_its_command_in_the_readme(name):
    assert read_first_line(f"{name}.py") == find_command(COMMANDS[name])


def test_the_fastapi_example_has_at_most_twelve_lines():
    lines = (FOLDER / "fastapi_app.py").read_text().splitlines()

    assert len([line for line in lines if line.strip()]) <= 12


@pytest.mark.parametrize("name", COMMANDS)
def test_p1_processes_forked_after_the_import_share_exactly_the_burst(name, store):
    """As `gunicorn --preload` does: the application is imported, and then the workers are forked."""
    done = subprocess.run(
        [sys.executable, FORKED_REQUESTS, FOLDER, name],
        cwd=ROOT,
        env={**os.environ, **VARIABLES, "RATELIMIT_REDIS": store},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    statuses = [status for child in json.loads(done.stdout) for status in child]
    assert sorted(statuses) == [200] * 100 + [429] * (1 + 4 * 50 - 100)
