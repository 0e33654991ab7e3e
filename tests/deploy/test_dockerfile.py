"""The Dockerfile: what it names exists, and its commands run a sidecar that it finds healthy."""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import httpx

from ..processes import find_free_port, run_program, wait_until
from ..sidecars import run_sidecar
from .probes import run_probe
from .shipped import DEPLOY, ROOT, SETTINGS

POLICY = "default_plan: free\nplans: {free: {limits: {requests: {rate: 100/second}}}}\n"


def read_instructions():
    """Return the Dockerfile's instructions as (name, arguments); continued lines are joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", "", text)
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def find_arguments(name):
    return [arguments for instruction, arguments in read_instructions() if instruction == name]


def read_variables():
    """Return the environment of the image."""
    return dict(pair.split("=", 1) for line in find_arguments("ENV") for pair in shlex.split(line))


def read_health_check():
    [line] = find_arguments("HEALTHCHECK")
    return json.loads(line.partition(" CMD ")[2])


def test_every_copied_file_exists_and_is_not_ignored():
    copied = [line.split()[:-1] for line in find_arguments("COPY") if not line.startswith("--from")]
    sources = {source for line in copied for source in line}
    assert sources >= {"pyproject.toml", "ratelimit", "service"}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source
    assert "*" in ignored


def test_what_the_build_reads_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = " ".join(find_arguments("COPY"))
    needed = [project["project"]["readme"], *project["project"]["license-files"]]
    for name in needed + project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert name in copied


def test_the_extras_it_installs_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [installed] = re.findall(r'"\.\[([a-z,]+)\]"', " ".join(find_arguments("RUN")))
    assert installed.split(",") == ["service", "grpc"]
    assert set(installed.split(",")) <= extras.keys()


def test_its_python_is_one_that_the_project_supports():
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    [version] = [line.removeprefix("PYTHON=") for line in find_arguments("ARG")]
    assert f"Programming Language :: Python :: {version}" in classifiers


def test_the_image_is_slim_and_runs_as_a_user_with_a_number():
    assert [image.split()[0] for image in find_arguments("FROM")] == ["python:${PYTHON}-slim"] * 2
    [user] = find_arguments("USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)


def test_every_variable_is_a_setting_and_none_is_a_secret():
    names = {name for name in read_variables() if name.startswith("RATELIMIT_")}
    assert names <= SETTINGS
    assert not [name for name in names if name.endswith(("TOKEN", "PEPPER"))]
    assert read_variables()["RATELIMIT_HOST"] == "0.0.0.0"


def test_the_health_check_tells_a_running_sidecar_from_a_dead_one():
    command = read_health_check()
    with run_sidecar(policy=POLICY) as sidecar:
        assert run_probe(command, RATELIMIT_PORT=str(sidecar.port)) == 0
        sidecar.kill()
        assert run_probe(command, RATELIMIT_PORT=str(sidecar.port)) != 0


def test_the_health_check_asks_the_default_port_unless_told():
    assert "get('RATELIMIT_PORT', 8080)" in read_health_check()[-1]
    assert "8080" in find_arguments("EXPOSE")[0].split()


def test_the_entry_point_starts_a_sidecar_with_the_variables_of_the_image(tmp_path, valkey_url):
    [line] = find_arguments("ENTRYPOINT")
    command = json.loads(line)
    assert not find_arguments("CMD")
    assert command[0] == "ratelimit"
    program = Path(sys.executable).with_name(command[0])
    policy, output, port = tmp_path / "policy.yaml", tmp_path / "output", find_free_port()
    policy.write_text(POLICY)
    variables = {name: value for name, value in read_variables().items() if name.startswith("RATELIMIT_")}
    variables |= {
        # What a container has of its own: its ports, and what is mounted or set when it is started.
        "RATELIMIT_PORT": str(port),
        "RATELIMIT_POLICY": str(policy),
        "RATELIMIT_REDIS": valkey_url,
        "RATELIMIT_GATEWAY_TOKEN": "a token of the tests",
    }
    with run_program(
        [str(program), *command[1:]], output, lambda: "listening" in output.read_text(), **variables
    ):
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx.get(f"{address}/readyz", trust_env=False).status_code == 200)
        assert run_probe(read_health_check(), RATELIMIT_PORT=str(port)) == 0
    assert '"address": "http://0.0.0.0' in output.read_text().replace('":"', '": "')
