"""The commands of an example's README, run as a new user would."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from pathlib import Path

from .shipped import EXAMPLES


def copy_examples(folder):
    """Copy the examples and return the copy."""
    return Path(shutil.copytree(EXAMPLES, folder / "examples"))


def run_readme(example, replacements, sidecar_port, gateway_port):
    """Run the README's commands in an example's folder and return what they printed.

    A user reads that a program runs before typing the next command; here, its port is asked.

    Args:
        example: the folder of the example.
        replacements: addresses in the commands, and what to write for each.
        sidecar_port: of the first program in the background.
        gateway_port: of the second program in the background.
    """
    text = (example / "README.md").read_text()
    commands = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[0]
    for shipped, replacement in replacements.items():
        assert commands.count(shipped) == 1
        commands = commands.replace(shipped, replacement)
    # The first check loads scripts and may take longer than a gateway waits.
    check = f"curl -sf -o /dev/null -H 'X-RateLimit-Key: vk_warm_up' 127.0.0.1:{sidecar_port}/v1/authorize"
    waits = iter([check, f"(: >/dev/tcp/127.0.0.1/{gateway_port}) 2>/dev/null"])
    lines = [
        f"{line}\nuntil {next(waits)}; do sleep 0.05; done" if line.endswith("&") else line
        for line in commands.splitlines()
    ]
    scripts = sysconfig.get_path("scripts")
    with subprocess.Popen(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=example,
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            process.wait(timeout=60)
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # the programs in the background
        output = process.stdout.read()
    assert process.returncode == 0, output
    return output
