"""Processes that tests start, and polling until a condition holds.

Every process gets the environment of the tests, from which tests/conftest.py has removed `RATELIMIT_*`.
"""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest


def find_free_port():
    """Return a TCP port on which nothing listens now.

    It is below the ports that Linux gives to connections, one of which might take it before the test does.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


def find_free_cluster_port():
    """Return a port like `find_free_port`, whose cluster bus (10,000 above it) is free as well."""
    while True:
        bus = find_free_port()
        with contextlib.suppress(OSError), socket.create_server(("", bus - 10_000)):
            return bus - 10_000


def wait_until(condition, seconds=30, *, describe=lambda: "the condition"):
    """Poll until `condition()` is true and return its value; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not true within {seconds} s: {describe()}")
        time.sleep(0.01)
    return value


def run_ratelimit(*arguments, columns=80, input="", **variables):  # noqa: A002 - as subprocess calls it
    """Run a `ratelimit` command to its end.

    Args:
        arguments: of the command.
        columns: the width of its terminal, in characters.
        input: the text for its standard input.
        variables: environment variables to add.
    """
    return subprocess.run(
        [sys.executable, "-m", "service", *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "COLUMNS": str(columns), **variables},
    )


@contextmanager
def run_program(command, output, is_ready=lambda: True, *, errors=None, **variables):
    """Run a program until the end of the block; fail the test if it ends before it is ready.

    Args:
        command: the program and its arguments.
        output: the file for its standard output.
        is_ready: polled until it returns true; then the block starts.
        errors: the file for its standard error; `output` if None.
        variables: environment variables to add.
    """
    with output.open("ab") as stdout, (errors or output).open("ab") as stderr:
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env={**os.environ, **variables})

    def describe():
        return f"{command} with exit code {process.poll()}:\n{(errors or output).read_text()}"

    try:
        wait_until(lambda: process.poll() is not None or is_ready(), describe=describe)
        if process.poll() is not None:
            pytest.fail(f"ended before it was ready: {describe()}")
        yield process
    finally:
        stop_process(process)


def stop_process(process):
    """Send SIGTERM, and SIGKILL if that does not end the process; return the exit code."""
    process.terminate()
    try:
        return process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
