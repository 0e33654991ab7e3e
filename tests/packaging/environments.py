"""Virtual environments of the tests' own, filled without a network, and what a distribution requires."""

import os
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PIP_OPTIONS = (
    *("--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir"),
    *("--disable-pip-version-check", "--quiet"),
    "--ignore-installed",  # the tests' own environment has the same version of the project, editable
)


class Environment:
    """An empty virtual environment.

    Attributes:
        python: its interpreter.
        site_packages: where it has its packages.
    """

    def __init__(self, folder):
        venv.create(folder, with_pip=False)
        self.folder = folder
        self.python = folder / "bin" / "python"
        [self.site_packages] = folder.glob("lib/python*/site-packages")

    def add_running_packages(self):
        """Let it see all packages of the tests' environment, but not what is installed there as editable.

        Python does not read the .pth files of a folder that a .pth file adds, and an editable installation
        is such a file.
        """
        running = sorted({str(Path(entry)) for entry in sys.path if entry.endswith("site-packages")})
        (self.site_packages / "running.pth").write_text("".join(f"{entry}\n" for entry in running))

    def link_packages(self, distributions):
        """Let it see these installed distributions, and no others.

        Each file is a link of its own: several distributions may share a folder, such as `google`.
        """
        for distribution in distributions:
            for file in distribution.files:
                link, target = self.site_packages / file, Path(distribution.locate_file(file))
                if ".." not in file.parts and target.exists() and not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(target)

    def install(self, file):
        """Install a wheel or an sdist, without what it requires."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", *PIP_OPTIONS, str(file)]
        ended = self._run(pip)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def run_script(self, script):
        """Run a Python script and return the ended process."""
        return self._run([str(self.python), "-c", script])

    def run_command(self, name, *arguments):
        """Run an installed command and return the ended process."""
        return self._run([str(self.folder / "bin" / name), *arguments])

    def _run(self, command):
        # Neither PYTHONPATH nor the current folder may lead to the checkout.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def find_required(wheel, *extras):
    """Return the installed distributions that a wheel requires with some extras, and what these require.

    They are a dict by name.
    """
    [info] = [path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info")]
    found, seen = {}, set()
    pending = [
        requirement
        for requirement in map(Requirement, metadata.PathDistribution(info).requires)
        if is_active(requirement, {"", *extras})
    ]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        found[name] = metadata.distribution(name)
        pending += [
            needed
            for needed in map(Requirement, found[name].requires or ())
            if is_active(needed, {"", *requirement.extras})
        ]
    return found


def is_active(requirement, extras):
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
