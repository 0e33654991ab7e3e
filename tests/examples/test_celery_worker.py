"""The Celery worker of examples/python, started by the commands in its README."""

import os
import re
import subprocess

import pytest

from ..processes import run_program, wait_until
from .python_examples import ROOT, VARIABLES, find_command, read_first_line

WORKER = "celery --workdir examples/python"
SENDER = "python examples/python/celery_worker.py"
SENT = re.compile(r"sent mail (\d+) of (\w+)")
SLOW = """
from celery_worker import app, limiter
from ratelimit import Limit

limiter.policy = Limit("mails", "30/7d")
limiter.check("initech")
"""
"""The example with a limit that gives nothing back while a test runs, and a connection before the fork."""


@pytest.fixture
def variables(valkey_url, open_client):
    """Variables that name an empty Valkey as broker and store."""
    open_client(valkey_url).flushall()
    broker = valkey_url.replace("unix://", "redis+socket://")
    # A worker that runs as root warns.
    return {**VARIABLES, "RATELIMIT_REDIS": valkey_url, "CELERY_BROKER_URL": broker, "C_FORCE_ROOT": "1"}


def run_command(*command, **variables):
    environment = {**os.environ, **variables}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)


def run_worker(command, output, variables):
    return run_program(["/usr/bin/env", "-C", str(ROOT), *command], output, **variables)


def test_a_denied_task_is_tried_again_until_it_may_run(variables, tmp_path):
    output = tmp_path / "output"
    run_command(*find_command(SENDER), **variables)

    with run_worker(find_command(WORKER), output, variables):
        wait_until(lambda: len(SENT.findall(output.read_text())) >= 7, describe=output.read_text)

    assert sorted(SENT.findall(output.read_text())) == [(str(number), "acme") for number in range(7)]
    assert "Retry in" in output.read_text()
    assert "Traceback" not in output.read_text()
    assert read_first_line("celery_worker.py") == find_command(WORKER)


def test_p1_forked_workers_share_exactly_the_burst_of_each_tenant(variables, tmp_path):
    (tmp_path / "slow_worker.py").write_text(SLOW)
    variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [*find_command(WORKER), "--concurrency", "4", "--without-mingle", "--without-gossip"]
    command[command.index("celery_worker")] = "slow_worker"
    send = (
        "from celery_worker import send_mail\n"
        "for i in range(60): send_mail.delay('acme', i); send_mail.delay('globex', i)"
    )
    environment = {**variables, "PYTHONPATH": f"{variables['PYTHONPATH']}{os.pathsep}examples/python"}
    run_command("python", "-c", send, **environment)
    output = tmp_path / "output"

    def count_decided():
        text = output.read_text()
        return len(SENT.findall(text)) + text.count("Retry in")

    with run_worker(command, output, variables):
        wait_until(lambda: count_decided() >= 120, describe=output.read_text)

    tenants = [tenant for _, tenant in SENT.findall(output.read_text())]
    assert {tenant: tenants.count(tenant) for tenant in tenants} == {"acme": 30, "globex": 30}
