"""The notebook of examples/python, executed as its README says: it prints what it shows."""

import json
import os
import shutil
import subprocess

from .python_examples import FOLDER, VARIABLES, find_command


def read_outputs(file):
    """Return the outputs of each cell of code."""
    cells = json.loads(file.read_text())["cells"]
    return [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]


def test_every_cell_prints_what_it_shows(tmp_path):
    copy = tmp_path / "examples" / "python" / "notebook.ipynb"
    copy.parent.mkdir(parents=True)
    shutil.copy(FOLDER / "notebook.ipynb", copy)
    folders = {"IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}

    done = subprocess.run(
        [*find_command("jupyter execute"), "--inplace"],
        cwd=tmp_path,
        env={**os.environ, **VARIABLES, **folders},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    shown = read_outputs(FOLDER / "notebook.ipynb")
    assert shown[0][0]["data"]["text/plain"] == ["[True, True, True, True, True, False]"]
    assert read_outputs(copy) == shown
